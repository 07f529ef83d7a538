"""The order of the data: a pure function of (seed, epoch, position)."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol, Self

import numpy as np
from torch.utils.data import Sampler

from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Order:
    """Rows in micro-batches of a fixed size, which make steps of a fixed number of them.

    It knows of no devices: whoever shares the micro-batches of a step, they are the same ones. No
    row is lost or doubled. The last step of an epoch may be short, and then all its micro-batches
    are. (With one row a micro-batch, an epoch leaves out a rest that is smaller than their number.)

    Args:
        num_rows: Rows of the data set.
        batch_size: Rows of a micro-batch.
        seed: Of the shuffle; epoch e draws from (seed, e).
        shuffle: Off for evaluation.
        lengths: Of each row; where given, a shuffled epoch's steps are of rows of like lengths.
        batches_per_step: Micro-batches of an optimizer step, over all devices; 1 in evaluation.
    """

    num_rows: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    lengths: np.ndarray | None = None
    batches_per_step: int = 1

    def rows(self, epoch: int) -> np.ndarray:
        """Return the row indices of an epoch, in order."""
        if not self.shuffle:
            return np.arange(self.num_rows)
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.num_rows)
        if self.lengths is None:
            return order
        step = self.batch_size * self.batches_per_step
        return grouped_by_length(order, self.lengths, step, rng)

    def batch_sizes(self) -> list[int]:
        """Return the rows of each micro-batch of an epoch."""
        step = self.batch_size * self.batches_per_step
        whole, left = divmod(self.num_rows, step)
        steps = [step] * whole + [left] * (left > 0)
        lack = self.batches_per_step - left
        if left and lack > 0 and whole:
            if self.batch_size > 1:  # the last step borrows from the one before
                steps[-2:] = [step - lack, left + lack]
            else:  # there is none to borrow; another epoch brings these rows
                steps.pop()
        return [size for rows in steps for size in shared(rows, self.batches_per_step)]

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return len(self.batch_sizes())

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the micro-batches of an epoch."""
        rows = self.rows(epoch)
        bounds = itertools.accumulate(self.batch_sizes(), initial=0)
        return [rows[start:stop] for start, stop in itertools.pairwise(bounds)]

    @cached_property
    def _pass(self) -> Callable[[int], np.ndarray]:
        return lru_cache(maxsize=2)(self.rows)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return epoch and row (positions, 2) at positions of all epochs, one after the other."""
        return in_passes(positions, self.num_rows, lambda epoch, places: self._pass(epoch)[places])


def in_passes(
    positions: np.ndarray, num_rows: int, rows: Callable[[int, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return pass and row (positions, 2) at ascending positions of passes one after the other.

    Args:
        positions: From 0, without an end.
        num_rows: Of a pass.
        rows: Returns the rows at places of a pass.
    """
    passes, places = np.divmod(positions, num_rows)
    found = [rows(one, places[passes == one]) for one in np.unique(passes).tolist()]
    return np.stack([passes, np.concatenate(found) if found else positions], axis=1)


def shared(rows: int, number: int) -> list[int]:
    """Return sizes of so many parts, as equal as can be, the larger first; none is empty."""
    size, more = divmod(rows, number)
    return [size + 1] * more + [size] * (number - more if size else 0)


@dataclass(frozen=True, kw_only=True)
class LongestFirst(Order):
    """Rows in the order of their sizes, for evaluation: the last part of a size counts most.

    As generation lasts until the longest target has ended, targets go before sources.

    Args:
        sizes: Of each row, part by part (rows, parts).
    """

    sizes: np.ndarray
    shuffle: bool = False

    def rows(self, epoch: int) -> np.ndarray:
        """Return the row indices from long to short; equal ones in the source's order."""
        return np.lexsort(-self.sizes.T)


def grouped_by_length(
    order: np.ndarray, lengths: np.ndarray, batch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Return a shuffled order, rearranged so that each batch has rows of like lengths.

    As HF's `LengthGroupedSampler`, it sorts within groups of 50 batches, and at least four groups,
    so that who comes with whom changes from epoch to epoch; unlike there, the batches are shuffled
    then. The batch with the longest row comes first, so that memory fails early; the short one
    stays last.

    Args:
        order: Row indices, shuffled.
        lengths: Of each row, by index.
        batch_size: Rows of an optimizer step: as the same rows make a step, however it is split
            over devices and micro-batches, so do they train the same.
        rng: What shuffles the batches.
    """
    per_group = min(50, max(1, len(order) // (4 * batch_size)))
    groups = np.arange(len(order)) // (per_group * batch_size)
    # by group, and in it from long to short; what is equally long stays shuffled
    order = order[np.lexsort((-lengths[order], groups))]
    whole = len(order) // batch_size * batch_size
    batches = order[:whole].reshape(-1, batch_size)
    batches = batches[rng.permutation(len(batches))]
    if len(batches):
        longest = lengths[batches[:, 0]].argmax()
        batches[[0, longest]] = batches[[longest, 0]]
    return np.concatenate([batches.ravel(), order[whole:]])


@dataclass(frozen=True)
class Place:
    """Which part of the work is this process's.

    Args:
        rank: This process.
        world_size: All processes.
        accumulate_grad_batches: Micro-batches of one process in an optimizer step.
        in_step: Whether all processes have to take as many batches, as where they share a model.
    """

    rank: int = 0
    world_size: int = 1
    accumulate_grad_batches: int = 1
    in_step: bool = False

    @property
    def batches_per_step(self) -> int:
        """Micro-batches of an optimizer step, over all processes."""
        return self.world_size * self.accumulate_grad_batches


class Plan(Protocol):
    """What decides which rows come together in an epoch."""

    def __len__(self) -> int:
        """Micro-batches of an epoch; the same in every epoch."""

    def batches(self, epoch: int) -> Sequence[np.ndarray]:
        """Return the row indices of each micro-batch of an epoch.

        Where a row can come twice in an epoch: which pass through the rows it is, and its index
        (rows, 2).
        """


@dataclass(frozen=True)
class Repeated:
    """A plan whose steps come several times, one after the other.

    Args:
        plan: The plan.
        times: How often each step comes.
        batches_per_step: Micro-batches of a step, over all devices.
    """

    plan: Plan
    times: int
    batches_per_step: int = 1

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return self.times * len(self.plan)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the row indices of each micro-batch of an epoch."""
        whole, size = list(self.plan.batches(epoch)), self.batches_per_step
        steps = [whole[start : start + size] for start in range(0, len(whole), size)]
        return [batch for step in steps for _ in range(self.times) for batch in step]


class Batches(Sampler[list[tuple[int, int]]]):
    """Yields one rank's micro-batches of an epoch; each iteration is an epoch.

    Of the micro-batches of a step, a rank has a contiguous run, and each rank has as many. In an
    evaluation, where a step is a micro-batch for each rank, the last ranks may have one less; or,
    where all have to go in step, one of the first rank's again.

    A micro-batch is a list of pairs: the epoch (or the pass, where a plan says it), and the row's
    index. What is random per example draws from both, wherever the row is read.

    Args:
        plan: The micro-batches of each epoch.
        place: Which share of them is this process's.
        epoch: The epoch of the first iteration.
        position: Micro-batches of this rank in that epoch to leave out, because training has had
            them.
    """

    def __init__(
        self, plan: Plan, place: Place | None = None, epoch: int = 0, position: int = 0
    ) -> None:
        self.plan = plan
        self.place = place or Place()
        self.epoch = epoch
        self.position = position
        self._kept: tuple[int, Sequence[np.ndarray]] = (-1, ())  # of an epoch

    def __len__(self) -> int:
        """Micro-batches of a whole epoch on this rank, whatever the position."""
        return self._whole_steps * self._run + len(self._rest)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the micro-batches that are left of the current epoch, and turn to the next."""
        epoch, position = self.epoch, self.position
        self.epoch, self.position = epoch + 1, 0
        yield from self.of_epoch(epoch, position)

    def of_epoch(
        self, epoch: int, start: int, stop: int | None = None
    ) -> Iterator[list[tuple[int, int]]]:
        """Yield some of this rank's micro-batches of an epoch, from one position up to another."""
        if self._kept[0] != epoch:
            self._kept = epoch, self.plan.batches(epoch)
        for number in range(len(self))[start:stop]:
            rows = self._kept[1][self._own(number)].tolist()
            yield [tuple(row) if isinstance(row, list) else (epoch, row) for row in rows]

    def behind(self, consumed: int, limit: int | float, before: int) -> Self:
        """Begin behind what training has had.

        Args:
            consumed: Micro-batches of this rank, in all epochs.
            limit: So many of an epoch are taken, as an int; or a part of it.
            before: How many of an epoch were taken by those.

        Raises:
            UserError: they are more or fewer now.
        """
        number = len(self)
        taken = int(number * limit) if isinstance(limit, float) else min(limit, number)
        if consumed:
            check_number(before, taken)
        self.epoch, self.position = divmod(consumed, max(1, taken))
        return self

    @property
    def _run(self) -> int:
        """Micro-batches of this rank in a whole step."""
        return self.place.accumulate_grad_batches

    @property
    def _whole_steps(self) -> int:
        return len(self.plan) // self.place.batches_per_step

    @property
    def _rest(self) -> range:
        """The micro-batches of this rank in the step that is not whole, as numbers of all."""
        step = range(self._whole_steps * self.place.batches_per_step, len(self.plan))
        run = -(-len(step) // self.place.world_size)
        own = step[self.place.rank * run : (self.place.rank + 1) * run]
        return own or step[: self.place.in_step]

    def _own(self, number: int) -> int:
        """Return which of all micro-batches this rank's of that number is."""
        step, place = divmod(number, self._run)
        if step < self._whole_steps:
            return step * self.place.batches_per_step + self.place.rank * self._run + place
        return self._rest[number - self._whole_steps * self._run]

    def is_repeated(self, number: int) -> bool:
        """Whether the batch of this number, in an evaluation, is another rank's."""
        return number * self.place.world_size + self.place.rank >= len(self.plan)


def check_number(before: int, now: int) -> None:
    """Compare the batches of an epoch with what they were.

    Raises:
        UserError: they are more or fewer.
    """
    if now != before:
        raise UserError(
            f"the run had {before} batches an epoch, and now there are {now}: resume with the same "
            "training data."
        )
