"""The files of a prepared corpus, and what they are written by.

A shard holds rows as an Arrow stream (as `datasets` writes them), or nothing but tokens, one after
the other, as little-endian integers of 16 bits, or 32 where the vocabulary is larger. `index.json`
names them in the order of the corpus, with their sizes and checksums.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

import numpy as np
from datasets import Features
from datasets.arrow_writer import ArrowWriter

from hydralight.errors import UserError, first_line
from hydralight.runs.checksums import checksum
from hydralight.runs.files import partial_of, told, write_text
from hydralight.runs.sealed import sealed_json, unsealed_json

if TYPE_CHECKING:
    from hydralight.data.corpus.home import Here, There

    Home: TypeAlias = Here | There

INDEX = "index.json"
FORMAT = 1
SHARD_BYTES = 64_000_000  # of a shard, about; a unit that has more makes several


@dataclass(frozen=True)
class Shard:
    """One file of a corpus.

    Args:
        file: Its name in the folder.
        rows: That it holds; documents, where it holds tokens.
        tokens: That it holds.
        longest: Tokens of the longest row.
        bytes: Its size.
        checksum: Of its content.
    """

    file: str
    rows: int
    tokens: int
    longest: int
    bytes: int
    checksum: str


@dataclass(frozen=True)
class Done:
    """What has become of a unit, or of all of them.

    Args:
        train: Shards to train on.
        validation: Shards to validate on.
        counts: Rows that were read, and those left out, by why.
    """

    train: list[Shard] = field(default_factory=list)
    validation: list[Shard] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """The names of all shards."""
        return [shard.file for shard in (*self.train, *self.validation)]

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Done":
        """Return what was read from a record."""
        shards = {k: [Shard(**one) for one in content[k]] for k in ("train", "validation")}
        return cls(**shards, counts=content["counts"])


def write_record(path: Path, done: Done, **more: Any) -> None:
    """Write what has been done; it is there whole or not at all, and carries its checksum."""
    write_text(path, sealed_json({**asdict(done), **more}))


def keep_record(home: "Home", name: str, done: Done, **more: Any) -> None:
    """Write the same to a corpus."""
    home.write(name, sealed_json({**asdict(done), **more}))


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a record; None where there is none, or it is damaged."""
    try:
        return record_in(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def record_in(text: str | None) -> dict[str, Any] | None:
    """Return the record in a text; None where there is none, or it is damaged."""
    try:
        return None if text is None else unsealed_json(text)
    except ValueError:
        return None


def read_index(home: "Home") -> dict[str, Any] | None:
    """Return the index of a prepared corpus; None where it has none yet.

    Raises:
        UserError: it is damaged, or another version's.
    """
    try:
        if (text := home.read(INDEX)) is None:
            return None
        content = unsealed_json(text)
        version = content["format"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{home}/{INDEX} is damaged ({first_line(error)}): delete it, and prepare.py makes it "
            "again."
        ) from error
    if version != FORMAT:
        raise UserError(f"{home} was prepared by another version: prepare another folder.")
    return content


# ---------------------------------------------------------------- writing


class Writer(Protocol):
    """What puts encoded rows into shards."""

    def add(self, columns: dict[str, list]) -> None:
        """Take some rows."""

    def finish(self) -> list[Shard]:
        """Give all files their names, and return what they are."""

    def drop(self) -> None:
        """Leave nothing behind."""


class Files:
    """The files of one writer, each of which has its name once all are whole.

    Args:
        folder: Of the corpus.
        name: What names begin with.
        suffix: What they end with.
    """

    def __init__(self, folder: Path, name: str, suffix: str) -> None:
        self.folder, self.name, self.suffix = folder, name, suffix
        self.partials: list[Path] = []
        self.rows = self.tokens = self.longest = 0  # of the last file
        self.shards: list[Shard] = []

    def begin(self) -> Path:
        """Return the path of another file."""
        path = self.folder / f"{self.name}-{len(self.partials):03}{self.suffix}"
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.partials.append(partial_of(path))
        self.rows = self.tokens = self.longest = 0
        return self.partials[-1]

    def count(self, lengths: Sequence[int]) -> None:
        """Count rows that have gone to the last file."""
        self.rows += len(lengths)
        self.tokens += sum(lengths)
        self.longest = max(self.longest, *lengths, 0)

    def end(self) -> None:
        """Note what the last file is, now that it is whole."""
        path = self.partials[-1]
        name = f"{self.name}-{len(self.shards):03}{self.suffix}"
        size = path.stat().st_size
        self.shards.append(Shard(name, self.rows, self.tokens, self.longest, size, checksum(path)))

    def finish(self) -> list[Shard]:
        """Give all files their names."""
        for partial, shard in zip(self.partials, self.shards, strict=True):
            partial.replace(self.folder / shard.file)
        return self.shards

    def drop(self) -> None:
        """Remove what has no name yet."""
        for path in self.partials:
            path.unlink(missing_ok=True)


class TokenWriter:
    """Puts the tokens of texts one after the other.

    Args:
        folder: Of the corpus.
        name: What names begin with.
        vocabulary: How many tokens there are; it decides on the bits of one.
    """

    def __init__(self, folder: Path, name: str, vocabulary: int) -> None:
        self.kind = kind_of(vocabulary)
        self.files = Files(folder, name, ".tokens")
        self._file: BinaryIO | None = None

    def add(self, columns: dict[str, list]) -> None:
        """Take the `input_ids` of some texts."""
        lists = columns["input_ids"]
        lengths = [len(ids) for ids in lists]
        if self._file is None:
            self._file = open(self.files.begin(), "xb")  # noqa: SIM115
        np.fromiter(chain.from_iterable(lists), self.kind, sum(lengths)).tofile(self._file)
        self.files.count(lengths)
        if self.files.tokens * self.kind.itemsize >= SHARD_BYTES:
            self._end()

    def _end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self.files.end()

    def finish(self) -> list[Shard]:
        """Give all files their names, and return what they are."""
        self._end()
        return self.files.finish()

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            self._file.close()
        self.files.drop()


class RowWriter:
    """Puts encoded rows into Arrow files.

    Args:
        folder: Of the corpus.
        name: What names begin with.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.files = Files(folder, name, ".arrow")
        self._writer: ArrowWriter | None = None
        self._features: Features | None = None

    def add(self, columns: dict[str, list]) -> None:
        """Take some rows."""
        if self._writer is None:
            path = str(self.files.begin())
            self._writer = ArrowWriter(path=path, features=self._features)
        self._writer.write_batch(columns)
        self._features = self._writer._features
        self.files.count(columns["length"])
        if self._writer.stream.tell() >= SHARD_BYTES:
            self._end()

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.finalize()
            self._writer.stream.close()
            self._writer = None
            self.files.end()

    def finish(self) -> list[Shard]:
        """Give all files their names, and return what they are."""
        self._end()
        return self.files.finish()

    def drop(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.stream.close()
        self.files.drop()


def kind_of(vocabulary: int) -> np.dtype:
    """Return the integers that tokens of a vocabulary are kept as."""
    return np.dtype("<u2" if vocabulary <= 2**16 else "<u4")


def content_of(shards: Sequence[Shard]) -> str:
    """Return what tells the content of shards, in their order, from that of others."""
    return json.dumps([shard.checksum for shard in shards])
