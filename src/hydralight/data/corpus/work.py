"""From the rows of a unit to its shards: read, checked, left out or kept, encoded, written."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from datasets import Dataset

from hydralight.cached import told_if_full
from hydralight.data.columns import rename_roles
from hydralight.data.corpus.filters import NUMBER, Filters
from hydralight.data.corpus.pictures import column_of, contained
from hydralight.data.corpus.pieces import Piece, Unit
from hydralight.data.corpus.reading import batches, rows_before
from hydralight.data.corpus.shards import (
    Done,
    RowWriter,
    TokenWriter,
    Writer,
    keep_record,
    record_in,
)
from hydralight.data.read.images import located
from hydralight.data.roles import ColumnNames, NoRows, Where
from hydralight.data.shape import Columns, Purpose, Shape
from hydralight.errors import UserError
from hydralight.tokenizers import check_words

if TYPE_CHECKING:
    from hydralight.data.corpus.shards import Home

IMAGES = 32  # rows of images that are in memory at a time
Step = Callable[[int], None]


class Rows(NamedTuple):
    """Some rows that are kept.

    Args:
        prepared: By role, and with their number in the piece.
        hashes: Of their texts, 128 bits each as two integers (rows, 2).
        done: Bytes of the piece that have been read.
    """

    prepared: Dataset
    hashes: np.ndarray
    done: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """What becomes of each unit; it goes to the processes that do them.

    Args:
        shape: What an example is, with its labels.
        processor: The tokenizer or image processor.
        columns: By role.
        kind: The `datasets` builder that reads the files.
        options: Its options.
        folder: Where files are that tables name.
        filters: What is left out.
        too_long: What becomes of examples that are too long.
        validation: Part of the rows that are validated on, by the hashes of their texts.
        hashes: Whether texts are looked at, to be hashed or measured.
    """

    shape: Shape
    processor: Any
    columns: ColumnNames
    kind: str
    options: Mapping[str, Any]
    folder: str
    filters: Filters
    too_long: Literal["truncate", "drop", "refuse"]
    validation: float = 0.0
    hashes: bool = True

    # ------------------------------------------------------------ reading

    def rows(self, piece: Piece, counts: Counter[str]) -> Iterator[Rows]:
        """Yield the rows of a piece that are neither empty nor filtered out, some at a time.

        Raises:
            UserError: a row cannot be read or used; its file and number are named.
        """
        seen = 0
        for table, done in batches(piece, self.kind, self.options):
            size = IMAGES if self.shape.file_roles else max(1, len(table))
            for start in range(0, len(table), size):
                part = table.slice(start, size)
                number, found = self.of_table(part, piece, seen, done, counts)
                seen += number
                if found is not None:
                    yield found

    def of_table(
        self, table: pa.Table, piece: Piece, seen: int, done: int, counts: Counter[str]
    ) -> tuple[int, Rows | None]:
        """Return how many rows a table of a file has, and those that are kept, if any.

        Args:
            table: As it was read.
            piece: What it was read from.
            seen: Rows of the piece before it.
            done: Bytes of the piece that have been read.
            counts: Where rows are counted.

        Raises:
            UserError: as `rows`.
        """
        where = Where(piece.file, self.columns)
        roles = [*self.shape.roles, NUMBER]
        rows = Dataset(table, fingerprint=NUMBER)  # else all of it is hashed
        if self.shape.unfold is not None:
            rows = self.shape.unfold(rows)
        number = len(rows)
        counts["read"] += number
        numbers = pa.array(range(seen, seen + number))
        rows = Dataset(rows.data.table.append_column(NUMBER, numbers), fingerprint=NUMBER)
        rows = self.filters.of_file(rows, counts, piece)
        if len(rows) == 0:
            return number, None
        for role in self.shape.file_roles:
            rows = located(rows, column_of(role, self.columns, rows), self.folder)
        with self._numbered(piece, rows[NUMBER][:]):
            named = rename_roles(rows, roles, where, self.shape.optional_roles)
            try:
                prepared = self.shape.prepare(named, where)
            except NoRows:
                prepared = named.select([])
        counts["empty"] += len(rows) - len(prepared)
        hashes = np.zeros((len(prepared), 2), dtype=np.uint64)
        if self.hashes and len(prepared) and self.shape.file_roles:
            images = map(contained, prepared[self.shape.file_roles[0]][:])
            hashes = np.array([halves(image["bytes"]) for image in images], dtype=np.uint64)
        elif self.hashes and len(prepared):
            texts = self._texts(prepared)
            kept = self.filters.of_texts([len(text) for text in texts], counts)
            hashes = np.array([halves(text) for text in texts], dtype=np.uint64)[kept]
            prepared = prepared if kept.all() else prepared.select(np.flatnonzero(kept))
        return number, Rows(prepared, hashes, done) if len(prepared) else None

    def _texts(self, rows: Dataset) -> list[str]:
        """Return what tells each row from others: its texts, except those to be predicted."""
        inputs = [role for role in self.shape.text_roles if role not in self.shape.targets]
        columns = [rows[role][:] for role in inputs if role in rows.column_names]
        return [
            "\0".join("" if value is None else self.shape.text_of(value) for value in values)
            for values in zip(*columns, strict=True)
        ]

    def apart(self, hashes: np.ndarray) -> np.ndarray:
        """Return which rows are validated on, by the hashes of their texts (rows, 2)."""
        return hashes[:, 0] < np.uint64(self.validation * (2**64 - 1))

    @property
    def unjoined(self) -> "Work":
        """What becomes of rows that are trained on: of texts that are joined, tokens alone."""
        shape = self.shape.unjoined(self.processor)
        return self if shape is None else replace(self, shape=shape)

    def writer(self, folder: Path, name: str) -> Writer:
        """Return what writes rows that are trained on: tokens alone, where texts are joined."""
        if self.shape.unjoined(self.processor) is None:
            return RowWriter(folder, name)
        return TokenWriter(folder, name, len(self.processor))

    def _numbered(self, piece: Piece, numbers: Sequence[int]) -> "Numbered":
        return Numbered(piece, self.kind, numbers)

    # ------------------------------------------------------------ encoding

    def encoded(
        self, rows: Dataset, piece: Piece, purpose: Purpose, counts: Counter[str]
    ) -> Columns:
        """Encode some prepared rows; what is too long is dealt with, and counted.

        Raises:
            UserError: a row cannot be used, or is too long and `too_long` is `refuse`.
        """
        columns: Columns = rows[:]
        numbers = columns.pop(NUMBER)
        with self._numbered(piece, []):
            for role in self.shape.text_roles:
                for number, value in zip(numbers, columns.get(role, ()), strict=False):
                    for text in [value] if isinstance(value, str) else value or ():
                        check_words(text, number)
            found = self.shape.encode(columns, numbers, self.processor, purpose)
            too_long = found.pop("too_long", [False] * len(found["length"]))
            if any(too_long) and self.too_long == "refuse":
                number = found.get("row", numbers)[too_long.index(True)]
                raise UserError(
                    f"row {number + 1} is longer than the limit: raise it, or set "
                    "data.too_long to truncate or drop."
                )
        roles = () if purpose == "train" else self.shape.roles
        kept = set(roles if self.shape.kept is None else self.shape.kept) & columns.keys()
        for role in self.shape.file_roles:
            columns[role] = [contained(image) for image in columns[role]]
            kept.add(role)
        found.pop("row", None)
        found |= {role: columns[role] for role in sorted(kept)}
        if any(too_long):
            counts["truncated" if self.too_long == "truncate" else "too many tokens"] += sum(
                too_long
            )
            if self.too_long == "drop":
                fits = [not long for long in too_long]
                found = {name: list(compress(values, fits)) for name, values in found.items()}
        return found


class Numbered:
    """Tells a row that a message names by its number in the file, and names the file.

    Args:
        piece: Where the rows are from.
        kind: Of the file.
        numbers: Of the rows in the piece, where the message counts those at hand; else none.
    """

    def __init__(self, piece: Piece, kind: str, numbers: Sequence[int]) -> None:
        self.piece, self.kind, self.numbers = piece, kind, numbers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, UserError) or isinstance(error, NoRows):
            return
        before = rows_before(self.piece, self.kind)

        def number(found: re.Match[str]) -> str:
            place = int(found[1]) - 1
            return f"row {before + 1 + (self.numbers[place] if self.numbers else place)}"

        said = re.sub(r"\brow (\d+)", number, str(error), count=1)
        raise UserError(
            said if self.piece.file in said else f"{self.piece.file}, {said}"
        ) from error


def halves(content: str | bytes) -> tuple[int, int]:
    """Return 128 bits of hash as two integers."""
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    return divmod(xxhash.xxh3_128_intdigest(content), 2**64)


def do(unit: Unit, work: Work, folder: Path, left_out: np.ndarray | None, step: Step) -> Done:
    """Do a unit: write its shards to a folder, and return which there are.

    Args:
        unit: What is read.
        work: What becomes of it.
        folder: Of the corpus, or for a while.
        left_out: Which of its rows are duplicates of others, in the order of `Work.rows`.
        step: Called with a number of bytes that have been done, now and then.

    Raises:
        UserError: a row cannot be read or used, or the disk is full.
    """
    counts: Counter[str] = Counter()
    training = work.unjoined
    trained = work.writer(folder, f"train/{unit.name}")
    validated: Writer = RowWriter(folder, f"validation/{unit.name}")
    seen = 0
    try:
        with told_if_full(folder):
            for piece in unit.pieces:
                before = 0
                for rows, hashes, done in work.rows(piece, counts):
                    kept = np.ones(len(rows), dtype=bool)
                    if left_out is not None:
                        kept = ~left_out[seen : seen + len(rows)]
                        counts["duplicates"] += int((~kept).sum())
                    seen += len(rows)
                    apart = work.apart(hashes)
                    for part, used, purpose, writer in (
                        (kept & ~apart, training, "train", trained),
                        (kept & apart, work, "evaluate", validated),
                    ):
                        if part.any():
                            some = rows if part.all() else rows.select(np.flatnonzero(part))
                            columns = used.encoded(some, piece, purpose, counts)  # type: ignore[arg-type]
                            counts["validation" if purpose == "evaluate" else "train"] += len(some)
                            if columns["length"]:
                                writer.add(columns)
                    step(done - before)
                    before = done
                step(piece.size - before)
            return Done(trained.finish(), validated.finish(), dict(counts))
    except BaseException:
        trained.drop()
        validated.drop()
        raise


@dataclass(frozen=True)
class Encode:
    """Encodes a unit.

    Args:
        work: What becomes of its rows.
        home: Of the corpus.
    """

    work: Work
    home: "Home"

    def __call__(self, unit: Unit, step: Callable[[int], None]) -> None:
        """Do a unit: its shards come first, and then the record that says that it is done."""
        left_out = None if unit.left_out is None else np.load(unit.left_out)
        with self.home.writing(unit.name) as folder:
            done = do(unit, self.work, folder, left_out, step)
            self.home.keep(folder, done.files)
            keep_record(self.home, unit.record, done)

    def is_done(self, unit: Unit) -> bool:
        """Whether its record and its shards are there."""
        record = record_in(self.home.read(unit.record))
        return record is not None and all(map(self.home.has, Done.of(record).files))

    def done_among(self, units: Sequence[Unit]) -> set[str]:
        """Return the names of the units that are done."""
        files = self.home.names("units", "train", "validation")
        there = [unit for unit in units if unit.record in files]
        records = map(record_in, self.home.read_all(unit.record for unit in there))
        return {
            unit.name
            for unit, record in zip(there, records, strict=True)
            if record is not None and files.issuperset(Done.of(record).files)
        }
