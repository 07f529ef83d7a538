"""A sample of a corpus: rows from all over it, read once, and kept with what is prepared."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hydralight.data.corpus.permutation import Permutation
from hydralight.data.corpus.pieces import Piece, Unit
from hydralight.data.corpus.reading import batches, beginning, groups_of
from hydralight.data.corpus.shards import Shard
from hydralight.data.stream.own import OwnRows, first
from hydralight.errors import UserError
from hydralight.runs.checksums import checksum
from hydralight.runs.files import replacing

if TYPE_CHECKING:
    from hydralight.data.corpus.inputs import Inputs
    from hydralight.data.corpus.shards import Home

ROWS, BYTES, UNITS = 10_000, 64_000_000, 64  # at most


def sample(inputs: "Inputs", most: int = ROWS, streams: bool = False) -> Dataset:
    """Return some rows, from the beginnings of units all over the corpus."""
    units = inputs.parts() if streams else inputs.units()
    # a slice would keep all of a table in memory
    tables = [
        table.take(pa.array(range(len(table)))) for _, _, table in beginnings(units, inputs, most)
    ]
    if not tables:
        for _ in batches(units[0].pieces[0], inputs.kind, inputs.options):
            break  # what is wrong with the file is told
        raise UserError(f"{inputs.files[0]} has no rows.")
    return Dataset(pa.concat_tables(tables, promote_options="permissive"))


def kept_sample(path: Path) -> Dataset:
    """Return the sample in a file, in memory, so that no cache is written beside it."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        return Dataset(reader.read_all())


def keep_sample(home: "Home", rows: Dataset) -> Shard:
    """Keep a sample with a corpus, for those who read it later."""
    table = rows.data.table
    with home.writing("sample") as folder:
        path = folder / "sample/rows.arrow"
        with replacing(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        own = checksum(path)
        name = f"sample/{own.rpartition(':')[2]}.arrow"
        path.replace(folder / name)
        home.keep(folder, [name])
        return Shard(name, len(rows), 0, 0, (folder / name).stat().st_size, own)


def beginnings(
    units: Sequence[Unit], inputs: "Inputs | OwnRows", most: int = ROWS
) -> Iterator[tuple[Piece, int, pa.Table]]:
    """Yield pieces all over the corpus, with rows of theirs, and how many come before these."""
    if isinstance(inputs, OwnRows):
        yield units[0].pieces[0], 0, first(inputs.source).data.table
        return
    chosen = np.sort(Permutation(len(units), 0)(np.arange(len(units)))[:UNITS]).tolist()
    for number in chosen:
        rows, size = -(-most // len(chosen)), BYTES * max(1, most // ROWS) // len(chosen)
        for piece in units[number].pieces:
            if inputs.kind == "parquet" and piece.is_whole:  # else all of it may be fetched
                piece = next(iter(groups_of(piece)), (piece, 0))[0]
            seen = 0
            for table, _ in beginning(piece, inputs.kind, inputs.options):
                taken = min(rows, len(table))
                yield piece, seen, table.slice(0, taken)
                seen += taken
                size -= table.nbytes * taken // len(table)
                rows -= taken
                if rows <= 0 or size <= 0:
                    break
            if rows <= 0 or size <= 0:
                break
