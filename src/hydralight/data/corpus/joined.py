"""The rows of several prepared corpora, one after the other."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xxhash
from datasets import Features

from hydralight.data.corpus.rows import ShardedRows
from hydralight.errors import UserError


class Joined:
    """Encoded rows of a mixture, as far as a loader and a task know `datasets.Dataset`.

    Args:
        parts: The rows of the data itself and of each set, by name.
        numbers: How many row numbers each takes, as many as it has rows unless said; then the rows
            of the whole are those of the first.

    Raises:
        UserError: they have other columns.
    """

    def __init__(
        self, parts: Mapping[str, ShardedRows], numbers: Sequence[int] | None = None
    ) -> None:
        self.parts, self.numbers = dict(parts), numbers
        self._ends = np.cumsum(numbers or [len(part) for part in parts.values()])
        columns = {name: sorted(part.column_names) for name, part in parts.items()}
        first = next(iter(columns.values()))
        for name, own in columns.items():
            if own != first:
                raise UserError(
                    f"data.mix.{name} has {', '.join(own)} when it is encoded, and the training "
                    f"data {', '.join(first)}: name the same roles in data.mix.{name}.columns."
                )

    def __len__(self) -> int:
        """Rows of all parts."""
        return int(self._ends[-1]) if self.numbers is None else len(self._first)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows, in the order that they are asked for."""
        asked = np.asarray(indices, dtype=np.int64)
        numbers = np.searchsorted(self._ends, asked, side="right")
        found: dict[int, dict[str, Any]] = {}
        for number, part in enumerate(self.parts.values()):
            places = np.flatnonzero(numbers == number)
            inside = asked[places] - (self._ends[number - 1] if number else 0)
            found.update(zip(places.tolist(), part.__getitems__(inside.tolist()), strict=True))
        return [found[place] for place in range(len(indices))]

    @property
    def features(self) -> Features:
        """The columns and their kinds."""
        return self._first.features

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return self._first.column_names

    @property
    def _first(self) -> ShardedRows:
        return next(iter(self.parts.values()))

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(part.longest for part in self.parts.values())

    def select_columns(self, names: Sequence[str]) -> "Joined":
        """Return the same rows with some of their columns."""
        parts = {name: part.select_columns(names) for name, part in self.parts.items()}
        return Joined(parts, self.numbers)

    def iter(self, batch_size: int) -> Iterator[dict[str, list]]:
        """Yield the columns of some rows at a time, part by part."""
        for part in self.parts.values():
            yield from part.iter(batch_size)

    def identity(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Return what tells these rows from others, as `rows_of` does for those of a data set."""
        parts = [part.identity(None)["content"] for part in self.parts.values()]
        content = xxhash.xxh3_128_hexdigest("".join(parts).encode())
        named = None if labels is None else list(labels)
        return {"rows": len(self), "labels": named, "content": content}
