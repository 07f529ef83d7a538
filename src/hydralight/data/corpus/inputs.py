"""The files of a corpus, and the units that they are done in."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import xxhash

from hydralight.data.corpus.pieces import Piece, Unit
from hydralight.data.read.files import cut, files_of, is_local
from hydralight.data.read.formats import builder_of, suffix
from hydralight.data.stream.own import OwnRows
from hydralight.errors import UserError, told
from hydralight.packed import MAGIC, packing
from hydralight.stores.fetched import opened, parquet, takes_ranges
from hydralight.stores.listing import File, listed, named, scheme_of

if TYPE_CHECKING:
    from hydralight.data.corpus.shards import Home
    from hydralight.data.source import Source

UNIT_BYTES = 32_000_000  # of a unit that can be parted: some seconds of work, and a shard
PART_BYTES = 4_000_000  # the same of a stream, which reads several units side by side
ASKED = 8  # files that a store is asked about at once
STREAMED = ("json", "text", "csv", "parquet", "arrow", "webdataset")


@dataclass(frozen=True)
class Inputs:
    """The files of a corpus.

    Args:
        files: Their paths and URLs, in order.
        kind: The `datasets` builder that reads such files.
        options: Its options.
        remote: Those at URLs, as they were listed.
    """

    files: tuple[str, ...]
    kind: str
    options: Mapping[str, Any]
    remote: Mapping[str, File] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Any, reader: Mapping[str, Any]) -> "Inputs":
        """Find the files that a path or URL, a glob or a list of them names.

        Raises:
            UserError: there are none, or they are of no format that is read as it goes.
        """
        paths = [path] if isinstance(path, str) else list(path)
        files: list[str] = []
        remote: dict[str, File] = {}
        for one in paths:
            bare, part = cut(one)
            if part:
                raise UserError(
                    f"data.path={named(one)}: a corpus is prepared whole; leave out the slice."
                )
            if scheme_of(bare) is not None:
                found = listed(bare)
                remote |= {file.name: file for file in found}
                files += [file.name for file in found]
            elif os.path.isdir(os.path.expanduser(bare)):
                raise UserError(f"data.path={one} is a folder: name the files in it by a glob.")
            elif not is_local(one):
                raise UserError(
                    f"data.path={one}: a corpus is made of files; name those of the hub's set, "
                    f"as data.path='hf://datasets/{bare}/**/*.parquet'."
                )
            else:
                files += files_of(one)
        if all(suffix(file) == ".arrow" for file in files) and "format" not in reader:
            return cls(tuple(files), "arrow", dict(reader), remote)
        kind, options = builder_of(files, reader)
        if kind not in STREAMED or options.get("sample_by", "line") != "line":
            what = f"sample_by: {options['sample_by']}" if kind in STREAMED else f"{kind} files"
            raise UserError(
                "data.prepared and data.streaming read JSON lines, Parquet, csv, Arrow, tars and "
                f"text by the line, and not {what}: leave them out."
            )
        return cls(tuple(files), kind, options, remote)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(self._size_of, self.files))

    def _size_of(self, file: str) -> int:
        there = self.remote.get(file)
        return os.path.getsize(file) if there is None else there.size or 0

    def states(self) -> list[dict[str, Any]]:
        """Return what tells whether a file has changed: its name, size and time of change.

        Of one at a URL it is its version, when it was listed; who reads it looks at it again.
        """
        found: list[dict[str, Any]] = []
        for file in self.files:
            if (there := self.remote.get(file)) is not None:
                found.append({"file": file, "size": there.size, "version": there.version})
                continue
            with told(f"{file} cannot be read"):
                state = os.stat(file)
            name = "/".join(Path(file).absolute().parts[-2:])  # the corpus may be moved as a whole
            found.append({"file": name, "size": state.st_size, "time": state.st_mtime_ns})
        return found

    def units(self) -> list[Unit]:
        """Return all units, in the order of the corpus.

        They depend on nothing but the files. Small files come together in one; a file that is
        larger than `UNIT_BYTES` is parted where that can be told without reading it.
        """
        return self._grouped(self._pieces, UNIT_BYTES)

    def parts(self) -> list[Unit]:
        """Return the units of a stream, which are smaller; a file of Parquet is not opened yet.

        What is read of a file here is then seen to be what it is now.
        """
        return self._grouped(self._parts, PART_BYTES)

    def _grouped(self, pieces_of: Callable[[str], list[Piece]], most: int) -> list[Unit]:
        groups: list[list[tuple[Piece, Any]]] = [[]]
        sizes = [0]
        with ThreadPoolExecutor(ASKED if self.remote else 1) as pool:
            pieces = [*pool.map(pieces_of, self.files)]
        for parts, state in zip(pieces, self.states(), strict=True):
            for piece in parts:
                if groups[-1] and sizes[-1] + piece.size > most:
                    groups.append([])
                    sizes.append(0)
                groups[-1].append((piece, state))
                sizes[-1] += piece.size
        return [
            Unit(
                xxhash.xxh3_64_hexdigest(
                    repr([(p.start, p.stop, *state.values()) for p, state in group]).encode()
                ),
                tuple(piece for piece, _ in group),
            )
            for group in groups
        ]

    def _pieces(self, file: str) -> list[Piece]:
        size, there = self._size_of(file), self.remote.get(file)
        if self.kind == "parquet":
            with told(f"{file} cannot be read"):
                metadata = pq.read_metadata(file) if there is None else metadata_of(there)
            groups = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
            whole = max(1, sum(groups))
            return [
                Piece(file, start, stop, size * sum(groups[start:stop]) // whole, there)
                for start, stop in runs(groups, UNIT_BYTES)
            ]
        return self._of_lines(Piece(file, 0, None, size, there), UNIT_BYTES)

    def _parts(self, file: str) -> list[Piece]:
        there, time = self.remote.get(file), None
        if there is None:
            with told(f"{file} cannot be read"):
                time = os.stat(file).st_mtime_ns
        return self._of_lines(Piece(file, 0, None, self._size_of(file), there, time), PART_BYTES)

    def _of_lines(self, whole: Piece, most: int) -> list[Piece]:
        """Part a large file where it is one of lines that can be read from its middle."""
        size = whole.size
        if self.kind not in ("json", "text") or size <= most:
            return [whole]
        if not can_be_parted(whole.file, whole.remote):
            return [whole]
        starts = range(0, size, most)
        return [
            replace(whole, start=start, stop=min(start + most, size), size=min(most, size - start))
            for start in starts
        ]


def metadata_of(file: File) -> pq.FileMetaData:
    """Return the footer of a Parquet file at a URL."""
    with parquet(file) as found:
        return found.metadata


def can_be_parted(file: str, there: File | None) -> bool:
    """Whether a large file of lines can be read from its middle: it is not packed."""
    if there is None:
        return packing(Path(file)) is None
    if Path(urlsplit(file).path.lower()).suffix in MAGIC:
        return False  # without asking each of many
    if not takes_ranges(there):
        return False
    with opened(there, ahead=8) as stream:
        return packing(stream.read(8)) is None


def runs(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield where runs of neighbours begin and end whose sizes come to `most` at most, or one."""
    start, total = 0, 0
    for number, size in enumerate(sizes):
        if number > start and total + size > most:
            yield start, number
            start, total = number, 0
        total += size
    if sizes:
        yield start, len(sizes)


def inputs_of(
    source: "Source", home: "Home | None" = None, done: bool = False
) -> Inputs | OwnRows | None:
    """Return the files that train is made of; None where they are not needed any more.

    A stream may be of rows that the user's own source makes.

    Args:
        source: Where the rows are.
        home: Where they are prepared. None where they are read as they are.
        done: Whether that is done.

    Raises:
        UserError: there are none, or they are no files.
    """
    path = source.path.get("train") if isinstance(source.path, Mapping) else source.path
    if path is None and source.source is not None:
        if home is None:
            return OwnRows(source.source)
        raise UserError("data.source makes rows on the spot: data.prepared is for files.")
    if isinstance(path, Mapping):
        raise UserError(
            "data.prepared and data.streaming read no files that are aligned line by line: leave "
            "them out."
        )
    if path is None and not done:
        lack = f"{home} is not prepared, and " if home else ""
        raise UserError(f"{lack}data.path has no files for train.")
    try:
        found = None if path is None else Inputs.of(path, source.reader or {})
    except UserError:
        if done:
            return None
        raise
    own = Path(str(home)).absolute()
    if home and found and any(Path(file).absolute().parent == own for file in found.files):
        raise UserError(
            f"data.prepared={home} has the files of data.path in it: name a folder of its own."
        )
    return found
