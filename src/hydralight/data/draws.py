"""How often each source of a mixture is drawn from before a step: exact, and without a table."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import numpy as np

UNIT = 2**32  # shares are whole numbers of its parts, so that all sums are exact

Schedule = Mapping[int, float]  # weights at optimizer steps; linear between them, level outside


class Draws:
    """Draws of a mixture's sources, by optimizer steps of a fixed number of rows.

    The sets take their draws one after the other: each has its share of what those before it have
    left, summed over the steps and rounded, and the first source has the rest. So the draws of any
    step are whole numbers and come to its rows; and before any step, a source has been drawn from
    as often as its weights sum up to, except for half as many draws as there are sets, at most.

    Args:
        weights: Of each set, the probability of drawing from it at a step; the rest of 1 is the
            first source's.
        rows: Of a step.
    """

    def __init__(self, weights: Sequence[Schedule], rows: int) -> None:
        self.rows = rows
        self._last = max(max(one) for one in weights)  # from here on the weights are level
        steps = np.arange(self._last + 1)
        left, of_step = np.ones(len(steps)), np.full(self._last, rows)
        before, self._shares, self._carried = [], [], []
        for one in weights:
            weight = np.interp(steps, sorted(one), [one[step] for step in sorted(one)])
            share = np.rint(weight / left * UNIT).astype(np.int64)
            left = left - weight
            # whole draws and their parts are summed apart, as their products would not fit
            product = of_step * share[:-1]
            parts = np.cumsum(product % UNIT) + UNIT // 2
            drawn = np.cumsum(product // UNIT) + parts // UNIT
            of_step = of_step - np.diff(drawn, prepend=0)
            before.append(np.append(0, drawn))
            self._shares.append(int(share[-1]))
            self._carried.append(int(parts[-1]) % UNIT if len(parts) else UNIT // 2)
        first = rows * np.arange(self._last + 1) - np.sum(before, axis=0)
        self._before = np.stack([first, *before], axis=1)

    def before(self, step: int) -> list[int]:
        """Return the draws from each source before a step, the first source's first."""
        found = self._before[min(step, self._last)].tolist()
        rest = self.rows * max(0, step - self._last)
        for number, share in enumerate(self._shares, start=1):
            drawn = (self._carried[number - 1] + rest * share) // UNIT
            found[number] += drawn
            rest -= drawn
        found[0] += rest
        return found

    def steps_within(self, sizes: Sequence[int]) -> int:
        """Return in how many steps no source is drawn from more often than it has rows."""
        return _first(lambda step: any(map(int.__gt__, self.before(step), sizes))) - 1

    def steps_for_all(self, sizes: Sequence[int]) -> int | None:
        """Return after how many steps each source has been gone through; None where never."""
        drawn = self.before(self._last)[1:]
        for share, was, size in zip(self._shares, drawn, sizes[1:], strict=True):
            if share == 0 and was < size:
                return None
        return _first(lambda step: all(map(int.__ge__, self.before(step), sizes)))


def _first(holds: Callable[[int], bool]) -> int:
    """Return the first number from 0 that something holds for, and for all that follow."""
    most = 1
    while not holds(most):
        most *= 2
    return bisect_left(range(most + 1), True, key=holds)
