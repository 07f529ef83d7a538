"""The rows of a stream at positions of its endless sequence of passes, and in micro-batches."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from lightning.pytorch import Trainer
from torch.utils.data import Sampler

from hydralight.data.corpus.permutation import Permutation
from hydralight.data.order import Place
from hydralight.data.stream.windows import BITS, Cursor, Window
from hydralight.errors import UserError
from hydralight.runs.checkpoints import ENDLESS

if TYPE_CHECKING:
    from hydralight.data.batches import Batching

Row = tuple[int, int]  # the pass, and the index of a row


class Source(Protocol):
    """What makes windows."""

    def window(self, cursor: Cursor) -> Window:
        """Return a window, once it is there."""

    def release(self, number: int) -> None:
        """Say that no window before this one is read any more."""


@dataclass(frozen=True)
class Known:
    """A window whose rows have been counted.

    Args:
        cursor: Its beginning.
        start: The position of its first row.
        stop: The one behind its last.
        order: Its rows, shuffled.
    """

    cursor: Cursor
    start: int
    stop: int
    order: Permutation


@dataclass
class Passes:
    """Pass after pass of a stream, each window of which is shuffled by (seed, pass, window).

    Args:
        windows: Where windows come from.
        size_of: Returns how many rows a shard has.
        seed: Of the shuffle.
        cursor: The beginning of the first window that is needed.
        start: The position of its first row.
    """

    windows: Source
    size_of: Callable[[Any], int]
    seed: int
    cursor: Cursor
    start: int = 0
    _known: deque[Known] = field(default_factory=deque)
    _empty: int = 0  # windows without a row, one after the other
    _first_of_pass: int = 0

    def at(self, positions: np.ndarray) -> list[Row]:
        """Return the rows at ascending positions, of which none is before what was released.

        What comes into memory does not depend on the positions: the windows that were begun are
        known by their beginning and their number of rows.

        Args:
            positions: Counted over all passes.

        Returns:
            The pass of each, and its index, by which the encoded row is found.

        Raises:
            UserError: a window cannot be made, or a whole pass has no rows.
        """
        found: list[Row] = []
        while len(positions):
            window = self._window_at(int(positions[0]))
            inside = positions[positions < window.stop]
            places = window.order(inside - window.start)
            indices = (window.cursor.number << BITS) + places
            found += [(window.cursor.epoch, index) for index in indices.tolist()]
            positions = positions[len(inside) :]
        return found

    def _window_at(self, position: int) -> Known:
        for window in reversed(self._known):
            if window.start <= position < window.stop:
                return window
        while True:
            window = self._next()
            if position < window.stop:
                return window

    def _next(self) -> Known:
        made = self.windows.window(self.cursor)
        number = sum(map(self.size_of, made.shards))
        order = Permutation(max(1, number), self.seed, self.cursor.epoch, self.cursor.number)
        window = Known(self.cursor, self.start, self.start + number, order)
        ends = made.after.epoch > self.cursor.epoch
        self._empty = 0 if number else self._empty + 1
        if ends and self._empty > self.cursor.number - self._first_of_pass:
            raise UserError("no row of the stream is left to train on: see what is left out of it.")
        if ends:
            self._first_of_pass = made.after.number
        self.cursor, self.start = made.after, window.stop
        if number:
            self._known.append(window)
        return window

    def release(self, position: int) -> None:
        """Forget the windows that end before a position; none of their rows is read any more."""
        while self._known and self._known[0].stop <= position:
            self._known.popleft()
        if self._known:
            self.windows.release(self._known[0].cursor.number)

    def beginning(self, position: int) -> tuple[Cursor, int]:
        """Return the beginning of the window that a position lies in, and its first position."""
        for window in self._known:
            if window.start <= position < window.stop:
                return window.cursor, window.start
        return self.cursor, self.start


class Endless(Sampler[list[Row]]):
    """Yields one rank's micro-batches of an endless sequence of rows, as `Batches` does of epochs.

    An iteration has no end; or as many micro-batches as are said to be an epoch, and the next one
    goes on behind them.

    Args:
        passes: The rows by their positions.
        batch_size: Rows of a micro-batch.
        place: Which share of them is this process's.
        per_epoch: Micro-batches of this rank that are an epoch to the trainer.
        position: Micro-batches of this rank that training has had.
        in_flight: Micro-batches that are asked for before they are read, at most.
    """

    def __init__(
        self,
        passes: Any,
        batch_size: int,
        place: Place,
        per_epoch: int = ENDLESS,
        position: int = 0,
        in_flight: int = 0,
    ) -> None:
        self.passes, self.batch_size, self.place = passes, batch_size, place
        self.per_epoch = per_epoch
        self.epoch, self.position = divmod(position, per_epoch)
        self._begin = position
        self._asked: deque[int] = deque(maxlen=in_flight + 2 * place.accumulate_grad_batches + 2)

    def __len__(self) -> int:
        """Micro-batches of an epoch; far more than there will be, where an epoch has no end."""
        return ENDLESS

    def __iter__(self) -> Iterator[list[Row]]:
        """Yield the micro-batches that are left of the current epoch, and turn to the next."""
        epoch, position = self.epoch, self.position
        self.epoch, self.position = epoch + 1, 0
        for number in range(epoch * self.per_epoch + position, (epoch + 1) * self.per_epoch):
            self._asked.append(self._first(number))
            yield self._rows(number)
            if len(self._asked) == self._asked.maxlen:
                self.passes.release(self._asked[0])

    def of_epoch(self, epoch: int, start: int, stop: int) -> Iterator[list[Row]]:
        """Yield some of this rank's micro-batches of an epoch, from one position up to another."""
        first = epoch * self.per_epoch
        behind = max(0, self._begin - first - start)  # what came before is not known here
        for number in range(first + start, min(first + stop, first + self.per_epoch)):
            yield self._rows(number + behind)

    def _rows(self, number: int) -> list[Row]:
        start = self._first(number)
        return self.passes.at(np.arange(start, start + self.batch_size))

    def _first(self, number: int) -> int:
        """Return the position of the first row of this rank's micro-batch of that number."""
        step, inside = divmod(number, self.place.accumulate_grad_batches)
        run = self.place.rank * self.place.accumulate_grad_batches
        return (step * self.place.batches_per_step + run + inside) * self.batch_size

    def beginning(self, consumed: int) -> Any:
        """Return where to begin once this rank has had so many micro-batches."""
        step = consumed // self.place.accumulate_grad_batches
        return self.passes.beginning(step * self.place.batches_per_step * self.batch_size)


def endless(
    passes: Any, batching: "Batching", place: Place, trainer: Trainer | None, consumed: int
) -> Endless:
    """Return batches of an endless sequence of rows.

    Args:
        passes: The rows by their positions.
        batching: How they come together.
        place: This process.
        trainer: Where there is one.
        consumed: Micro-batches that this process has had.
    """
    limit = 1.0 if trainer is None else trainer.limit_train_batches
    return Endless(
        passes,
        batching.batch_size,
        place,
        limit if isinstance(limit, int) else ENDLESS,
        consumed,
        2 * batching.num_workers,
    )
