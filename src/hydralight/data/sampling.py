"""The order of the data: a pure function of (seed, epoch, position)."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
from torch.utils.data import Dataset, Sampler


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields one rank's batches of an epoch, from any position on; each iteration is an epoch.

    A batch is a list of pairs: the epoch, and the row's index. What is random per example draws
    from both, wherever the row is read.

    The epoch's global batches (`batch_size * world_size` rows) do not depend on the number of
    ranks for a given global size: rank r takes every `world_size`-th row of each. No row is lost
    or doubled; the last global batch may be short, and then every rank's share is short. (With
    one row a rank, a shuffled epoch leaves out a rest that is smaller than the number of ranks.)

    Args:
        num_rows: Rows of the data set.
        batch_size: Rows of a batch on one rank.
        seed: Of the shuffle; epoch e draws from (seed, e).
        shuffle: Off for evaluation.
        lengths: Of each row; where given, a shuffled epoch's steps are of rows of like lengths, and
            an evaluation goes from long to short.
        batches_per_step: Global batches that an optimizer step accumulates: those of like lengths.
        rank: This process.
        world_size: All processes.
        epoch: The epoch of the first iteration.
        position: Batches of that epoch to leave out, because training has had them.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        lengths: np.ndarray | None = None,
        batches_per_step: int = 1,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        position: int = 0,
    ) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.lengths = lengths
        self.rows_per_step = batch_size * world_size * batches_per_step
        self.rank = rank
        self.world_size = world_size
        self.epoch = epoch
        self.position = position

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank, whatever the position."""
        bounds = self._bounds()
        # with fewer rows than ranks, the last step of an evaluation is empty on some
        return len(bounds) - 1 - (bounds[-1] - bounds[-2] <= self.rank)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the batches that are left of the current epoch, and turn to the next."""
        epoch, position = self.epoch, self.position
        self.epoch, self.position = epoch + 1, 0
        order, bounds = self.global_batches(epoch)
        for start, stop in zip(bounds[position:-1], bounds[position + 1 :], strict=True):
            if stop - start > self.rank:
                share = order[start:stop][self.rank :: self.world_size]
                yield [(epoch, index) for index in share.tolist()]

    def global_batches(self, epoch: int) -> tuple[np.ndarray, Sequence[int]]:
        """Return the row indices of an epoch, in order, and where its global batches begin."""
        return self.order(epoch), self._bounds()

    def order(self, epoch: int) -> np.ndarray:
        """Return the row indices of an epoch, in order."""
        if not self.shuffle:
            rows = np.arange(self.num_rows)
            return rows if self.lengths is None else rows[np.argsort(-self.lengths, kind="stable")]
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.num_rows)
        if self.lengths is None:
            return order
        return grouped_by_length(order, self.lengths, self.rows_per_step, rng)

    def _bounds(self) -> list[int]:
        """Where the global batches begin and end in the epoch's order."""
        step = self.batch_size * self.world_size
        bounds = [*range(0, self.num_rows, step), self.num_rows]
        left = bounds[-1] - bounds[-2] if len(bounds) > 1 else 0
        if left < self.world_size and len(bounds) > 2:
            if self.batch_size > 1:
                # some rank would have no row in the last step: it borrows from the step before
                bounds[-2] -= self.world_size - left
            elif self.shuffle:
                # with one row a rank there is none to borrow; another epoch brings these rows
                bounds.pop(-2)
                bounds[-1] = self.num_rows - left
        return bounds


class TokenBudgetSampler(EpochBatchSampler):
    """Yields batches of as many rows as fit into a budget of tokens, padding included.

    Rows are sorted by length and divided into sections of some batches each; within its section a
    row may come into any batch, and the batches are shuffled, but that the longest comes first, so
    that memory fails early. Rows of one length are shuffled before they are divided. As the sorted
    lengths are the same in every epoch, so is the number of batches, which schedules count on.

    Args:
        lengths: Of each row, in tokens; or of its parts, each padded by itself (rows, parts).
        max_tokens: Of a batch on one rank: its rows times the longest of them, or of their parts.
        seed: Of the shuffle.
        rank: This process.
        world_size: All processes.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        max_tokens: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        parts = lengths.reshape(len(lengths), -1)
        totals = parts.sum(axis=1)
        super().__init__(
            len(totals), 1, seed=seed, lengths=totals, rank=rank, world_size=world_size
        )
        order = np.argsort(-totals, kind="stable")
        parts, totals = parts[order], totals[order]
        if totals[0] > max_tokens:
            raise ValueError(f"a row of {totals[0]} tokens, and a budget of {max_tokens}")
        whole = int(totals.sum()) // (max_tokens * world_size)
        per_section = max(whole // 50, min(8, max(2, whole // 16)))  # more mix more, and pad more
        self.sections = [0]
        self.bounds = [0]
        while (start := self.sections[-1]) < self.num_rows:
            most = max_tokens // max(1, int(totals[start])) * world_size * per_section
            width = widest(parts, totals, start, start + most + world_size)
            rows = max(1, max_tokens // max(1, width)) * world_size
            stop = start + rows * per_section
            if self.num_rows - stop < world_size:  # else some rank would have none of the rest
                stop = self.num_rows
            number = -(-(stop - start) // rows)
            if rows == world_size:  # one row a rank: the rest is left to another epoch
                number = (stop - start) // rows
                stop = start + number * rows
            sizes = [len(batch) for batch in np.array_split(np.arange(start, stop), number)]
            self.bounds += [start + size for size in itertools.accumulate(sizes)]
            self.sections.append(stop)
            if self.num_rows - stop < world_size:
                break
        self.sections[-1] = self.num_rows

    def global_batches(self, epoch: int) -> tuple[np.ndarray, Sequence[int]]:
        """Return the row indices of an epoch, in order, and where its global batches begin."""
        assert self.lengths is not None
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.num_rows)
        order = order[np.argsort(-self.lengths[order], kind="stable")]
        for start, stop in itertools.pairwise(self.sections):
            rng.shuffle(order[start:stop])
        batches = [order[start:stop] for start, stop in itertools.pairwise(self.bounds)]
        shuffled = rng.permutation(len(batches)).tolist()
        longest = int(np.maximum.reduceat(self.lengths[order], self.bounds[:-1]).argmax())
        shuffled.remove(longest)
        batches = [batches[number] for number in [longest, *shuffled]]
        return np.concatenate(batches), [0, *itertools.accumulate(map(len, batches))]

    def _bounds(self) -> list[int]:
        return self.bounds


def widest(parts: np.ndarray, totals: np.ndarray, start: int, stop: int) -> int:
    """Return the tokens of a row that is padded to the longest of a section, part by part.

    As rows of one length change places, those that are as long as its first or last count too.

    Args:
        parts: Lengths of the rows' parts (rows, parts), from long to short.
        totals: Their sums.
        start: First row of the section.
        stop: Behind the last.
    """
    first = np.searchsorted(-totals, -totals[start], side="left")
    last = np.searchsorted(-totals, -totals[min(stop, len(totals)) - 1], side="right")
    return int(parts[first:last].max(axis=0).sum())


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
        batch_size: Rows of a batch, over all devices and micro-batches: as the same rows make an
            optimizer step, however it is split, so do they train the same.
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


class EpochRows(Dataset[dict[str, Any]]):
    """Encoded rows for a loader, each with its `index` and the `epoch` it is drawn in.

    Args:
        rows: The encoded data set.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """Return one row, by epoch and index."""
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Return a batch's rows, read together."""
        rows = self.rows.__getitems__([index for _, index in places])
        return [
            {**row, "index": index, "epoch": epoch}
            for row, (epoch, index) in zip(rows, places, strict=True)
        ]
