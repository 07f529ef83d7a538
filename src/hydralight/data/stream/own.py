"""Rows that a function of the user's own makes, with or without an end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
from datasets import Dataset
from datasets.fingerprint import Hasher

from hydralight.data.corpus.pieces import Piece, Unit
from hydralight.errors import UserError, told

KIND = "own"
NAME = "data.source"
ROWS = 100  # that are taken at once
LOOKED_AT = 1000  # rows of a sample


@dataclass(frozen=True)
class OwnRows:
    """What `data.source` makes, in the place of a stream's files.

    Args:
        source: Called without arguments, returns splits, of which train may have no end.
    """

    source: Callable[[], Any]

    kind = KIND
    files = (NAME,)
    size = 2**40  # it is not known; enough to start a process for it

    @property
    def options(self) -> dict[str, Any]:
        """What reads the rows."""
        return {"source": self.source}

    def states(self) -> list[dict[str, Any]]:
        """Return what tells this source from others."""
        return [{"file": NAME, "made by": Hasher.hash(self.source)}]

    def parts(self) -> list[Unit]:
        """Return all of it as one unit."""
        return [Unit(NAME, (Piece(NAME),))]

    units = parts


def splits_of(source: Callable[[], Any]) -> dict[str, Any]:
    """Call a source.

    Raises:
        UserError: it returns no splits, or none to train on.
    """
    with told(NAME):
        found = source()
    if not isinstance(found, Mapping) or "train" not in found:
        raise UserError("data.source should return splits: {train: rows, validation: rows}.")
    return dict(found)


def tables(source: Callable[[], Any], skip: int = 0) -> Iterator[pa.Table]:
    """Yield the rows to train on, some at a time.

    What is passed over is made once more, unless the rows have a `skip`, as streams of `datasets`
    have.

    Raises:
        UserError: there are no rows, or one is none.
    """
    rows = splits_of(source)["train"]
    if skip and hasattr(rows, "skip"):
        rows, skip = rows.skip(skip), 0
    with told(NAME):
        left = islice(iter(rows), skip, None)
        while some := list(islice(left, ROWS)):
            yield Dataset.from_list(some).data.table


def first(source: Callable[[], Any]) -> Dataset:
    """Return the first rows to train on.

    Raises:
        UserError: there are none.
    """
    found: Sequence[pa.Table] = [*islice(tables(source), LOOKED_AT // ROWS)]
    if not found:
        raise UserError("data.source: the split train has no rows.")
    return Dataset(pa.concat_tables(found, promote_options="permissive"))
