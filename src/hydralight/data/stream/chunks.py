"""What a window has of one unit: its next rows, read, checked and encoded to a file."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from hydralight.cached import told_if_full
from hydralight.data.corpus.pieces import Piece, Unit
from hydralight.data.corpus.reading import beginning, groups_of
from hydralight.data.corpus.shards import Done, write_record
from hydralight.data.stream import own
from hydralight.errors import UserError
from hydralight.stores.fetched import Changed
from hydralight.stores.listing import unchanged

if TYPE_CHECKING:
    from hydralight.data.corpus.work import Work


class Some(NamedTuple):
    """Some rows of a unit.

    Args:
        piece: Where they are from.
        seen: Rows of the piece before them.
        table: The rows.
        row_bytes: Of a row of the table that they were read with, on average.
    """

    piece: Piece
    seen: int
    table: pa.Table
    row_bytes: int


class Reader:
    """The rows of a unit from one of them on, some at a time.

    Where what it returns is cut does not depend on where it began.

    Args:
        unit: What is read.
        kind: The `datasets` builder that reads its files.
        options: Its options.
        skip: Rows that are passed over. Row groups of Parquet are not read for it.
    """

    def __init__(self, unit: Unit, kind: str, options: Mapping[str, Any], skip: int = 0) -> None:
        self.unit, self.kind, self.options = unit, kind, options
        self.taken = skip
        self._tables = self._read(skip)
        self._left: Some | None = None
        self._piece = 0

    def take(self, size: int) -> Iterator[Some]:
        """Yield rows of so many bytes together, about, or fewer where the unit ends.

        Raises:
            UserError: a file is damaged, or has changed, or a row cannot be read.
        """
        check_unchanged(self.unit.pieces[self._piece])
        while size > 0 and not self.ended:
            assert self._left is not None
            piece, seen, table, row_bytes = self._left
            rows = min(len(table), -(-size // row_bytes))
            size -= rows * row_bytes
            self.taken += rows
            self._left = Some(piece, seen + rows, table.slice(rows), row_bytes)
            yield Some(piece, seen, table.slice(0, rows), row_bytes)

    @property
    def ended(self) -> bool:
        """Whether there are no more rows."""
        if self._left is None or len(self._left.table) == 0:
            self._left = next(self._tables, None)
        return self._left is None

    def _read(self, skip: int) -> Iterator[Some]:
        if self.kind == own.KIND:
            for table in own.tables(self.options["source"], skip):
                yield Some(self.unit.pieces[0], skip, table, max(1, table.nbytes // len(table)))
                skip += len(table)
            return
        for number, whole in enumerate(self.unit.pieces):
            self._piece, seen = number, 0
            groups = groups_of(whole) if self.kind == "parquet" else [(whole, None)]
            for piece, known in groups:
                if known is not None and known <= skip:
                    skip -= known
                    seen += known
                    continue
                for table, _ in beginning(piece, self.kind, self.options):
                    passed = min(skip, len(table))
                    skip -= passed
                    if passed < len(table):
                        row_bytes = max(1, table.nbytes // len(table))
                        yield Some(whole, seen + passed, table.slice(passed), row_bytes)
                    seen += len(table)
            check_unchanged(whole)


def check_unchanged(piece: Piece) -> None:
    """See that a file is what it was when the stream began.

    Raises:
        UserError: it is gone, or has changed; it is named.
    """
    if piece.file == own.NAME:
        return
    if piece.remote is not None:
        if not unchanged(piece.remote):
            raise Changed(piece.remote)
        return
    try:
        found = os.stat(piece.file)
    except OSError as error:
        raise UserError(f"{piece.file} cannot be read ({error.strerror}).") from error
    if piece.time is not None and piece.time != found.st_mtime_ns:
        raise UserError(
            f"{piece.file} has changed while it was read: begin another run on what it is now."
        )


@dataclass(frozen=True)
class Encode:
    """Writes what a window has of a unit to a folder: the encoded rows, and then their record.

    The units of its last windows stay open, and are read on where these ended.

    Args:
        units: All of the stream.
        work: What becomes of their rows.
        folder: Where files are written.
    """

    units: Sequence[Unit]
    work: "Work"
    folder: Path
    readers: dict[int, tuple[int, Reader]] = field(default_factory=dict)  # by place

    def __call__(self, number: int, place: int, unit: int, skip: int, size: int) -> None:
        """Encode some rows, unless that has been done.

        Args:
            number: Of the window.
            place: Of the unit in it.
            unit: Its number.
            skip: Its rows that windows before have had.
            size: Bytes to read, about.

        Raises:
            UserError: a row cannot be read or used; or the disk is full.
        """
        name = name_of(number, place)
        counts: Counter[str] = Counter()
        open_unit, reader = self.readers.pop(place, (-1, None))
        if reader is None or (open_unit, reader.taken) != (unit, skip):
            reader = Reader(self.units[unit], self.work.kind, self.work.options, skip)
        training, writer = self.work.unjoined, self.work.writer(self.folder, name)
        try:
            with told_if_full(self.folder):
                for piece, seen, table, _ in reader.take(size):
                    _, found = self.work.of_table(table, piece, seen, 0, counts)
                    if found is None:
                        continue
                    kept = ~self.work.apart(found.hashes)
                    if not kept.any():
                        continue
                    rows = found.prepared
                    rows = rows if kept.all() else rows.select(np.flatnonzero(kept))
                    columns = training.encoded(rows, piece, "train", counts)
                    if columns["length"]:
                        writer.add(columns)
                ended = reader.ended
                done = Done(writer.finish(), [], dict(counts))
                record = self.folder / f"{name}.json"
                write_record(record, done, read=reader.taken - skip, ended=ended)
        except BaseException:
            writer.drop()
            raise
        if not ended:
            self.readers[place] = unit, reader


def name_of(number: int, place: int) -> str:
    """Return what the files of a window's unit are called."""
    return f"{number:08}-{place:03}"
