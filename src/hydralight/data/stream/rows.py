"""The encoded rows of a stream, as far as a loader and a task know a data set."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydralight.data.corpus.rows import Local, ShardedRows
from hydralight.data.corpus.shards import Shard, read_record
from hydralight.data.stream.windows import BITS

OPEN = 4  # windows at a time


class StreamedRows(ShardedRows):
    """Rows of any window by their index; all that is asked of the whole is said of the first.

    Args:
        shards: Of the first window, which is looked at before training.
        number: Of that window.
        folder: Where they are.
        block_size: Tokens of a row, where shards hold nothing but tokens.
        vocabulary: How many tokens there are.
        longest: Tokens of a row, at most.
        said: What tells the stream from others.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        number: int,
        folder: Path,
        block_size: int | None,
        vocabulary: int,
        longest: int,
        said: str,
    ) -> None:
        super().__init__(shards, Local(folder), block_size, vocabulary)
        self.how = block_size, vocabulary
        self.first = number
        self.folder: Path | None = None  # of the windows, once training begins
        self._most, self.said = longest, said
        self._windows: OrderedDict[int, ShardedRows] = OrderedDict()

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows, in the order that they are asked for."""
        found: dict[int, dict[str, Any]] = {}
        for number in dict.fromkeys(index >> BITS for index in indices):
            own = [index for index in indices if index >> BITS == number]
            inside = [index & ((1 << BITS) - 1) for index in own]
            if number in (0, self.first):  # none before the first one has any rows
                rows = super().__getitems__(inside)
            else:
                rows = self._window(number).__getitems__(inside)
            found.update(zip(own, rows, strict=True))
        return [dict(found[index]) for index in indices]

    def read_from(self, folder: Path) -> None:
        """Take windows from a folder, and none that was opened in another one before."""
        self.folder = folder
        self._windows.clear()

    def _window(self, number: int) -> ShardedRows:
        assert self.folder is not None
        if number not in self._windows:
            self._windows[number] = ShardedRows(
                shards_in(self.folder, number), Local(self.folder), *self.how
            )
            if len(self._windows) > OPEN:
                self._windows.popitem(last=False)
        return self._windows[number]

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to another process, which opens windows by itself."""
        return {**super().__getstate__(), "_windows": OrderedDict()}

    @property
    def longest(self) -> int:
        """Tokens of a row, at most."""
        return self._most

    def identity(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Return what tells this stream from others."""
        named = None if labels is None else list(labels)
        return {"rows": None, "labels": named, "content": self.said}


def shards_in(folder: Path, number: int) -> tuple[Shard, ...]:
    """Return the shards of a window, all of which is there."""
    records = [read_record(path) for path in sorted(folder.glob(f"{number:08}-*.json"))]
    return tuple(Shard(**shard) for record in records if record for shard in record["train"])
