"""The order of the data: a pure function of (seed, epoch, position)."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True, kw_only=True)
class Order:
    """Rows in batches of a fixed size.

    A global batch is what all ranks read together. No row is lost or doubled; the last global
    batch may be short, and then every rank's share is. (With one row a rank, a shuffled epoch
    leaves out a rest that is smaller than the number of ranks.)

    Args:
        num_rows: Rows of the data set.
        batch_size: Rows of a batch on one rank.
        seed: Of the shuffle; epoch e draws from (seed, e).
        shuffle: Off for evaluation.
        lengths: Of each row; where given, a shuffled epoch's steps are of rows of like lengths.
        world_size: Ranks.
        batches_per_step: Batches of one rank that an optimizer step accumulates.
    """

    num_rows: int
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    lengths: np.ndarray | None = None
    world_size: int = 1
    batches_per_step: int = 1

    def rows(self, epoch: int) -> np.ndarray:
        """Return the row indices of an epoch, in order."""
        if not self.shuffle:
            return np.arange(self.num_rows)
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.num_rows)
        if self.lengths is None:
            return order
        step = self.batch_size * self.world_size * self.batches_per_step
        return grouped_by_length(order, self.lengths, step, rng)

    def bounds(self) -> list[int]:
        """Return where the global batches begin and end in the epoch's order."""
        step = self.batch_size * self.world_size
        bounds = [*range(0, self.num_rows, step), self.num_rows]
        left = bounds[-1] - bounds[-2] if len(bounds) > 1 else 0
        if left < self.world_size and len(bounds) > 2:
            if self.batch_size > 1:
                # some rank would have no row in the last batch: it borrows from the one before
                bounds[-2] -= self.world_size - left
            elif self.shuffle:
                # with one row a rank there is none to borrow; another epoch brings these rows
                bounds.pop(-2)
                bounds[-1] = self.num_rows - left
        return bounds

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the global batches of an epoch."""
        rows, bounds = self.rows(epoch), self.bounds()
        return [rows[start:stop] for start, stop in itertools.pairwise(bounds)]


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
        accumulate_grad_batches: Batches of one process in an optimizer step.
    """

    rank: int = 0
    world_size: int = 1
    accumulate_grad_batches: int = 1


class Plan(Protocol):
    """What decides which rows come together in an epoch."""

    def bounds(self) -> Sequence[int]:
        """Return where global batches begin and end; the same in every epoch but for the order."""

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the row indices of each global batch of an epoch."""


class Batches(Sampler[list[tuple[int, int]]]):
    """Yields one rank's batches of an epoch; each iteration is an epoch.

    A batch is a list of pairs: the epoch, and the row's index. What is random per example draws
    from both, wherever the row is read.

    Args:
        plan: The global batches of each epoch.
        place: Which share of them is this process's.
        epoch: The epoch of the first iteration.
        position: Batches of that epoch to leave out, because training has had them.
    """

    def __init__(
        self, plan: Plan, place: Place | None = None, epoch: int = 0, position: int = 0
    ) -> None:
        self.plan = plan
        self.place = place or Place()
        self.epoch = epoch
        self.position = position

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank, whatever the position."""
        bounds = self.plan.bounds()
        # with fewer rows than ranks, the last batch of an evaluation is empty on some
        return len(bounds) - 1 - (bounds[-1] - bounds[-2] <= self.place.rank)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches that are left of the current epoch, and turn to the next."""
        epoch, position = self.epoch, self.position
        self.epoch, self.position = epoch + 1, 0
        batches, size = self.plan.batches(epoch), self.place.accumulate_grad_batches
        first = position // size * size  # the step in which the position is
        for start in range(first, len(batches), size):
            step = batches[start : start + size]
            own = shares(step, self.place.rank, self.place.world_size)
            for share in own[max(0, position - start) :]:
                if len(share):
                    yield [(epoch, index) for index in share.tolist()]


def shares(step: Sequence[np.ndarray], rank: int, world_size: int) -> list[np.ndarray]:
    """Return one rank's micro-batches of an optimizer step: a contiguous run of the step's rows.

    A whole step is cut into as many runs as there are ranks, and each run into micro-batches, so
    that the micro-batches are the same ones, however many ranks share them. Where global batches
    differ in size (a last, short one; a budget of tokens), each of them is cut by itself.

    Args:
        step: The global batches of the step.
        rank: This process.
        world_size: All processes.
    """
    sizes = {len(batch) for batch in step}
    if len(sizes) > 1 or next(iter(sizes)) % world_size:
        return [np.array_split(batch, world_size)[rank] for batch in step]
    run = np.split(np.concatenate(step), world_size)[rank]
    return np.split(run, len(step))
