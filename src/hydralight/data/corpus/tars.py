"""The rows of a tar shard in WebDataset's layout, some at a time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from datasets.utils.file_utils import ArchiveIterable

if TYPE_CHECKING:
    from hydralight.data.corpus.pieces import Piece


def rows_of_tar(piece: "Piece", most_rows: int, most_bytes: int) -> Iterator[tuple[pa.Table, int]]:
    """Yield the columns that `datasets` gives such a shard; images stay as they are encoded.

    Args:
        piece: The shard.
        most_rows: Of a table.
        most_bytes: Of its files, about; a row alone may be larger.
    """
    with piece.opened() as stream:
        entries = ArchiveIterable.from_buf(stream)
        found: list[dict[str, Any]] = []
        size = total = 0
        for row in WebDataset._get_pipeline_from_tar(piece.file, entries):
            found.append(row)
            size += sum(len(value) for value in row.values() if isinstance(value, bytes))
            if size >= most_bytes or len(found) >= most_rows:
                total += size
                yield _table(found), min(total, piece.size)
                found, size = [], 0
        if found:
            yield _table(found), piece.size


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows as a table whose images are known as such."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    images = [name for name in names if _ending(name) in WebDataset.IMAGE_EXTENSIONS]
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    for name in images:
        paths = [f"{row['__key__']}.{name}" for row in rows]
        columns[name] = [
            None if content is None else {"bytes": content, "path": path}
            for content, path in zip(columns[name], paths, strict=True)
        ]
    table = pa.table(columns)
    features = datasets.Features.from_arrow_schema(table.schema)
    features |= {name: datasets.Image(decode=False) for name in images}
    return table.cast(datasets.Features(features).arrow_schema)


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()
