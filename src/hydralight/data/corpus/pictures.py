"""Images of a corpus: their files as they are encoded, beside the rows, whatever they came in."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Image

from hydralight.data.roles import ColumnNames

ROWS = 32  # whose files are read at a time, where a table names them


def column_of(role: str, columns: ColumnNames, rows: Dataset) -> str:
    """Return the column that has the images."""
    name = str(columns.get(role) or role)
    return name if name in rows.column_names else role


def with_files(rows: Dataset, role: str) -> Iterator[Dataset]:
    """Yield the rows, some at a time, with the files that a table names read into them."""
    images = rows.select_columns([role]).with_format("arrow")[:][role].combine_chunks()
    if pa.compute.struct_field(images, "bytes").null_count == 0:
        yield rows
        return
    for start in range(0, len(rows), ROWS):
        some = rows.select(range(start, min(start + ROWS, len(rows))))
        read = [contained(image) for image in some[role][:]]
        features = Features({role: Image(decode=False)})
        table = pa.Table.from_pylist([{role: image} for image in read], features.arrow_schema)
        place = some.column_names.index(role)
        whole = some.with_format("arrow")[:]
        yield Dataset(whole.set_column(place, table.schema.field(0), table.column(0)))


def contained(image: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image with the content of its file, and the name of it."""
    path, content = image["path"] or "", image["bytes"]
    return {"bytes": Path(path).read_bytes() if content is None else content, "path": path}
