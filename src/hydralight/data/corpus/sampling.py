"""A sample of a corpus: rows from all over it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hydralight.data.corpus.permutation import Permutation
from hydralight.data.corpus.pieces import Piece, Unit
from hydralight.data.corpus.reading import batches, beginning, groups_of
from hydralight.data.stream.own import OwnRows, first
from hydralight.errors import UserError

if TYPE_CHECKING:
    from hydralight.data.corpus.inputs import Inputs

ROWS, BYTES, UNITS = 10_000, 64_000_000, 64  # at most


def sample(inputs: "Inputs", most: int, streams: bool) -> Dataset:
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


def beginnings(
    units: Sequence[Unit], inputs: "Inputs | OwnRows", most: int | None = None
) -> Iterator[tuple[Piece, int, pa.Table]]:
    """Yield pieces all over the corpus, with rows of theirs, and how many come before these."""
    if isinstance(inputs, OwnRows):
        yield units[0].pieces[0], 0, first(inputs.source).data.table
        return
    most = most or ROWS
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
