"""Batches of as many rows as fit into a budget of tokens."""

import itertools

import numpy as np


class Budget:
    """Global batches that hold at most so many tokens on each rank, padding included.

    Rows are sorted by length and divided into sections of some batches each; within its section a
    row may come into any batch, and the batches are shuffled, except that the longest comes first,
    so that memory fails early. Rows of one length are shuffled before they are divided. As the
    sorted lengths are the same in every epoch, so is the number of batches, which schedules count
    on.

    Args:
        sizes: Tokens of each row, part by part, each padded by itself (rows, parts).
        max_tokens: Of a batch on one rank: its rows times the longest of them, or of their parts.
        seed: Of the shuffle.
        world_size: Ranks.
    """

    def __init__(
        self, sizes: np.ndarray, max_tokens: int, *, seed: int = 0, world_size: int = 1
    ) -> None:
        parts = sizes.reshape(len(sizes), -1)
        self.totals = parts.sum(axis=1)
        self.seed = seed
        order = np.argsort(-self.totals, kind="stable")
        parts, totals = parts[order], self.totals[order]
        num_rows = len(totals)
        if totals[0] > max_tokens:
            raise ValueError(f"a row of {totals[0]} tokens, and a budget of {max_tokens}")
        whole = int(totals.sum()) // (max_tokens * world_size)
        per_section = max(whole // 50, min(8, max(2, whole // 16)))  # more mix more, and pad more
        self.sections = [0]
        self._bounds = [0]
        while (start := self.sections[-1]) < num_rows:
            most = max_tokens // max(1, int(totals[start])) * world_size * per_section
            width = widest(parts, totals, start, start + most + world_size)
            rows = max(1, max_tokens // max(1, width)) * world_size
            stop = start + rows * per_section
            if num_rows - stop < world_size:  # else some rank would have none of the rest
                stop = num_rows
            number = -(-(stop - start) // rows)
            if rows == world_size:  # one row a rank: the rest is left to another epoch
                number = (stop - start) // rows
                stop = start + number * rows
            cut = [len(batch) for batch in np.array_split(np.arange(start, stop), number)]
            self._bounds += [start + size for size in itertools.accumulate(cut)]
            self.sections.append(stop)
            if num_rows - stop < world_size:
                break
        self.sections[-1] = num_rows

    def bounds(self) -> list[int]:
        """Return where the global batches begin and end among the sorted rows."""
        return self._bounds

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the global batches of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.totals))
        order = order[np.argsort(-self.totals[order], kind="stable")]
        for start, stop in itertools.pairwise(self.sections):
            rng.shuffle(order[start:stop])
        batches = [order[start:stop] for start, stop in itertools.pairwise(self._bounds)]
        shuffled = rng.permutation(len(batches)).tolist()
        longest = int(np.maximum.reduceat(self.totals[order], self._bounds[:-1]).argmax())
        shuffled.remove(longest)
        return [batches[number] for number in [longest, *shuffled]]


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
