"""The rows of a prepared corpus, read out of its shards as they are asked for."""

import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datasets import Dataset, Features, List, Value

from hydralight.data.corpus.shards import Shard, content_of, kind_of
from hydralight.data.parts import concatenated
from hydralight.errors import UserError
from hydralight.runs.checksums import checksum

OPEN = 64  # shards at a time


@dataclass(frozen=True)
class Local:
    """The files of a corpus in a folder of this machine.

    Args:
        folder: Of the corpus.
    """

    folder: Path

    def __call__(self, shard: Shard) -> Path:
        """Return where a shard is."""
        return self.folder / shard.file


class ShardedRows:
    """Encoded training rows, as far as a loader and a task know `datasets.Dataset`.

    A shard is opened (mapped into memory) when a row of it is asked for, and looked through for
    damage the first time.

    Args:
        shards: In the order of the corpus.
        path_of: Returns where a shard's file is on this machine.
        block_size: Tokens of a row, where shards hold nothing but tokens.
        vocabulary: How many tokens there are; then it decides on the bits of one.
        ahead: Called with the numbers of shards that are read next.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        path_of: Callable[[Shard], Path],
        block_size: int | None = None,
        vocabulary: int = 0,
        ahead: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        self.shards = tuple(shards)
        self.path_of = path_of
        self.block_size = block_size
        self.kind = kind_of(vocabulary)
        self.sizes = tuple(rows_in(shard, block_size) for shard in shards)
        self._ends = np.cumsum(self.sizes).tolist()
        self._columns: list[str] | None = None
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._verified: set[str] = set()
        self.ahead = ahead

    def __len__(self) -> int:
        """Rows of all shards."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows, in the order that they are asked for."""
        found: dict[int, dict[str, Any]] = {}
        places: dict[int, list[tuple[int, int]]] = {}
        for index in indices:
            number = bisect.bisect_right(self._ends, index)
            inside = index - (self._ends[number - 1] if number else 0)
            places.setdefault(number, []).append((index, inside))
        for number, pairs in places.items():
            rows = self._rows(number, [inside for _, inside in pairs])
            found.update(zip((index for index, _ in pairs), rows, strict=True))
        return [dict(found[index]) for index in indices]

    def _rows(self, number: int, inside: list[int]) -> list[dict[str, Any]]:
        shard = self._opened(number)
        if self.block_size is None:
            rows = shard.__getitems__(inside)
        else:
            size = self.block_size
            ids = [shard[place * size : (place + 1) * size].tolist() for place in inside]
            rows = [{"input_ids": row, "length": len(row)} for row in ids]
        if self._columns is None:
            return rows
        return [{name: row[name] for name in self._columns} for row in rows]

    def _opened(self, number: int) -> Any:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        shard = self.shards[number]
        try:
            opened = self._mapped(shard)
        except FileNotFoundError:  # removed from a cache meanwhile
            opened = self._mapped(shard)
        self._open[number] = opened
        if len(self._open) > OPEN:
            self._open.popitem(last=False)
        return opened

    def _mapped(self, shard: Shard) -> Any:
        path = self.path_of(shard)
        if shard.file not in self._verified:
            verify(path, shard)
            self._verified.add(shard.file)
        if self.block_size is None:
            return Dataset.from_file(str(path))
        return np.memmap(path, self.kind, "r")

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to another process, which opens shards by itself."""
        return {**vars(self), "_open": OrderedDict(), "ahead": None}

    # ------------------------------------------------------------ as a whole

    @property
    def features(self) -> Features:
        """The columns and their kinds."""
        if self.block_size is not None:
            return Features({"input_ids": List(Value("int32")), "length": Value("int64")})
        return self._opened(0).features

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return self._columns or list(self.features)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        longest = max((shard.longest for shard in self.shards), default=0)
        return longest if self.block_size is None else self.block_size

    def select_columns(self, names: Sequence[str]) -> "ShardedRows":
        """Return the same rows with some of their columns."""
        rows = object.__new__(ShardedRows)
        rows.__dict__.update(self.__getstate__(), _columns=list(names))
        return rows

    def iter(self, batch_size: int) -> Iterator[dict[str, list]]:
        """Yield the columns of some rows at a time, in their order."""
        for start in range(0, len(self), batch_size):
            rows = self.__getitems__(range(start, min(start + batch_size, len(self))))
            yield {name: [row[name] for row in rows] for name in rows[0]}

    def identity(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Return what tells these rows from others, as `rows_of` does for those of a data set."""
        content = xxhash.xxh3_128(content_of(self.shards).encode())
        content.update(str(self.block_size).encode())
        named = None if labels is None else list(labels)
        return {"rows": len(self), "labels": named, "content": content.hexdigest()}


def rows_in(shard: Shard, block_size: int | None) -> int:
    """Return how many rows a shard has: blocks of its tokens, where it holds nothing else."""
    if block_size is None:
        return shard.rows
    whole, rest = divmod(shard.tokens, block_size)
    return whole + (rest > 1)  # a token alone has nothing to predict it from


def longest_of(rows: Any) -> int:
    """Return the tokens of the longest of encoded rows, in shards or not."""
    if not isinstance(rows, Dataset):
        return rows.longest
    return int(rows.with_format("numpy")["length"][:].max())


def verify(path: Path, shard: Shard) -> None:
    """Look through a shard.

    Raises:
        UserError: it is not there, or not what was written.
    """
    try:
        intact = path.stat().st_size == shard.bytes and checksum(path) == shard.checksum
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    if not intact:
        raise UserError(
            f"{path} is damaged (its checksum is not that in the index): delete it, and prepare.py "
            "makes it again."
        )


def as_dataset(shards: Sequence[Shard], path_of: Callable[[Shard], Path]) -> Dataset:
    """Return the rows of shards, which are not many, as a data set.

    Raises:
        UserError: one is damaged.
    """
    parts = []
    for shard in shards:
        verify(path_of(shard), shard)
        parts.append(Dataset.from_file(str(path_of(shard))))
    return concatenated(parts)
