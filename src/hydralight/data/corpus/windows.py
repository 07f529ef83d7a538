"""The order of a corpus in shards: a pure function of (seed, epoch, position), without a table."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from hydralight.data.corpus.permutation import Permutation
from hydralight.data.order import Order, in_passes

Ahead = Callable[[Sequence[int]], None]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Rows in micro-batches, as `Order` makes them; only shuffled window by window.

    The shards are permuted anew in each epoch. So many of them, one after the other, are a window,
    whose rows are permuted among each other. What is read at a time is therefore a few shards,
    and what a position costs does not depend on how many rows there are.

    Args:
        sizes: Rows of each shard.
        batch_size: Rows of a micro-batch.
        seed: Of the shuffle.
        shuffle: Off where the rows come in the order of the shards.
        batches_per_step: Micro-batches of an optimizer step, over all devices.
        window_shards: Shards of a window.
        ahead: Called with the shards of a window, and of the one behind it, where it begins.
    """

    sizes: tuple[int, ...]
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    batches_per_step: int = 1
    window_shards: int = 8
    ahead: Ahead | None = None

    @cached_property
    def starts(self) -> np.ndarray:
        """The first row of each shard, and behind the last one the number of rows."""
        return np.cumsum([0, *self.sizes])

    @property
    def num_rows(self) -> int:
        """Rows of all shards."""
        return int(self.starts[-1])

    @cached_property
    def _bounds(self) -> "Bounds":
        return Bounds(self.num_rows, self.batch_size, self.batches_per_step)

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return len(self._bounds)

    def batches(self, epoch: int) -> "Epoch":
        """Return the micro-batches of an epoch, each of which is made when it is asked for."""
        return Epoch(self, self._bounds, epoch)

    @cached_property
    def _pass(self) -> Callable[[int], "Epoch"]:
        return lru_cache(maxsize=2)(self.batches)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return epoch and row (positions, 2) at ascending positions of all epochs in a row."""
        return in_passes(
            positions, self.num_rows, lambda epoch, places: self._pass(epoch).rows(places)
        )


class Bounds(Sequence[tuple[int, int]]):
    """Where the micro-batches of an epoch begin and end, which `Order` decides.

    All steps before the last two are whole, so that they need no list.

    Args:
        num_rows: Rows of an epoch.
        batch_size: Rows of a micro-batch.
        batches_per_step: Micro-batches of an optimizer step.
    """

    def __init__(self, num_rows: int, batch_size: int, batches_per_step: int) -> None:
        step = batch_size * batches_per_step
        whole = max(0, num_rows // step - 1)  # the last whole step may lend rows to the rest
        tail = Order(
            num_rows=num_rows - whole * step,
            batch_size=batch_size,
            batches_per_step=batches_per_step,
        )
        self._size = batch_size
        self._whole = whole * batches_per_step
        self._tail = [*itertools.accumulate(tail.batch_sizes(), initial=whole * step)]

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return self._whole + len(self._tail) - 1

    def __getitem__(self, number: int) -> tuple[int, int]:  # type: ignore[override]
        """Return the first position of a micro-batch, and the one behind its last."""
        if number < self._whole:
            return number * self._size, (number + 1) * self._size
        return self._tail[number - self._whole], self._tail[number - self._whole + 1]


class Epoch(Sequence[np.ndarray]):
    """The micro-batches of one epoch.

    Args:
        plan: What they are made by.
        bounds: Where they begin and end.
        epoch: Its number.
    """

    def __init__(self, plan: Windows, bounds: Bounds, epoch: int) -> None:
        self.plan, self.bounds, self.epoch = plan, bounds, epoch
        number = len(plan.sizes)
        shards = np.arange(number)
        self.shards = Permutation(number, plan.seed, epoch)(shards) if plan.shuffle else shards
        self._sizes = np.asarray(plan.sizes)
        self._ends = np.cumsum(self._sizes[self.shards])  # positions behind each shard
        last = np.append(np.arange(plan.window_shards, number, plan.window_shards), number) - 1
        self._window_ends = self._ends[last]
        self._announced = -1
        self._permutation = lru_cache(maxsize=2)(self._permutation_of)

    def __len__(self) -> int:
        """Micro-batches of the epoch."""
        return len(self.bounds)

    def __getitem__(self, number: int) -> np.ndarray:  # type: ignore[override]
        """Return the rows of a micro-batch, counted over all shards."""
        return self.rows(np.arange(*self.bounds[number]))

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows at ascending positions of the epoch."""
        windows = np.searchsorted(self._window_ends, positions, side="right")
        parts = []
        for window in np.unique(windows).tolist():
            self._announce(window)
            inside = positions[windows == window]
            first = 0 if window == 0 else self._window_ends[window - 1]
            parts.append(first + self._permutation(window)(inside - first))
        places = np.concatenate(parts) if parts else positions
        numbers = np.searchsorted(self._ends, places, side="right")
        shards = self.shards[numbers]
        before = self._ends[numbers] - self._sizes[shards]
        return self.plan.starts[shards] + places - before

    def _permutation_of(self, window: int) -> Callable[[np.ndarray], np.ndarray]:
        first = 0 if window == 0 else self._window_ends[window - 1]
        number = int(self._window_ends[window] - first)
        seeds = self.plan.seed, self.epoch, window
        return Permutation(number, *seeds) if self.plan.shuffle else lambda places: places

    def _announce(self, window: int) -> None:
        if self.plan.ahead is not None and window != self._announced:
            self._announced = window
            size = self.plan.window_shards
            self.plan.ahead(self.shards[window * size : (window + 2) * size].tolist())

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the micro-batches."""
        return (self[number] for number in range(len(self)))
