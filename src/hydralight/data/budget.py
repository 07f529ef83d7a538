"""Batches of as many rows as fit into a budget of tokens."""

import itertools

import numpy as np

from hydralight.data.order import shared


class Budget:
    """Micro-batches that hold at most so many tokens, padding included.

    Rows are sorted by length and divided into sections of some micro-batches each; within its
    section a row may come into any of them, and they are shuffled, except that the longest comes
    first, so that memory fails early. Rows of one length are shuffled before they are divided. As
    the sorted lengths are the same in every epoch, so is the number of micro-batches, which
    schedules count on. Some are halved, so that all steps have as many; where none can be, a rest
    is left to another epoch.

    Args:
        sizes: Tokens of each row, part by part, each padded by itself (rows, parts).
        max_tokens: Of a micro-batch: its rows times the longest of them, or of their parts.
        seed: Of the shuffle.
        batches_per_step: Micro-batches of an optimizer step, over all devices.
    """

    def __init__(
        self, sizes: np.ndarray, max_tokens: int, *, seed: int = 0, batches_per_step: int = 1
    ) -> None:
        parts = sizes.reshape(len(sizes), -1)
        self.totals = parts.sum(axis=1)
        self.seed = seed
        order = np.argsort(-self.totals, kind="stable")
        parts, totals = parts[order], self.totals[order]
        num_rows = len(totals)
        if totals[0] > max_tokens:
            raise ValueError(f"a row of {totals[0]} tokens, and a budget of {max_tokens}")
        whole = int(totals.sum()) // max_tokens
        per_section = max(whole // 50, min(8, max(2, whole // 16)))  # more mix more, and pad more
        self.sections = [0]
        cut: list[int] = []  # rows of each micro-batch
        while (start := self.sections[-1]) < num_rows:
            most = max_tokens // max(1, int(totals[start])) * per_section
            width = widest(parts, totals, start, start + most + 1)
            rows = max(1, max_tokens // max(1, width))
            stop = min(start + rows * per_section, num_rows)
            cut += shared(stop - start, -(-(stop - start) // rows))
            self.sections.append(stop)
        while len(cut) % batches_per_step and (most := max(cut)) > 1:
            place = cut.index(most)
            cut[place : place + 1] = shared(most, 2)
        self._bounds = [*itertools.accumulate(cut, initial=0)]
        self._number = len(cut) // batches_per_step * batches_per_step or len(cut)

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return self._number

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the micro-batches of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.totals))
        order = order[np.argsort(-self.totals[order], kind="stable")]
        for start, stop in itertools.pairwise(self.sections):
            rng.shuffle(order[start:stop])
        batches = [order[start:stop] for start, stop in itertools.pairwise(self._bounds)]
        shuffled = rng.permutation(len(batches)).tolist()
        longest = int(np.maximum.reduceat(self.totals[order], self._bounds[:-1]).argmax())
        shuffled.remove(longest)
        return [batches[number] for number in [longest, *shuffled]][: self._number]


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
