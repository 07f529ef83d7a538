"""Steps of rows from several sources: a pure function of (seed, step, position)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, Protocol

import numpy as np

from hydralight.data.corpus.permutation import Permutation
from hydralight.data.draws import Draws, Schedule
from hydralight.errors import UserError

RUN = 50  # steps whose rows are drawn together, to be grouped by length


class Endless(Protocol):
    """The rows of a source, pass after pass without an end."""

    def at(self, positions: np.ndarray) -> np.ndarray | list[tuple[int, int]]:
        """Return the pass and the row (positions, 2) at ascending positions, which begin at 0."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Rows of several sources in micro-batches, which make steps of a fixed number of them.

    How many rows of a step are of which source is fixed (`Draws`), and which of them come first is
    a permutation by (seed, step). The n-th draw from a source is the n-th place of its passes,
    which go on from one epoch of the mixture to the next: no row of a source comes again before
    all others of it have. All steps are whole.

    Args:
        sources: The first is the data itself, the others the sets that are mixed in.
        sizes: Rows of each, by name.
        weights: Of each set: the probability of drawing from it at optimizer steps.
        batch_size: Rows of a micro-batch.
        seed: Of the permutations.
        shuffle: Off where the same steps come again in each epoch.
        lengths: Of all rows, source after source; where given, a step's rows are of like lengths.
            The shares are then those of `RUN` steps.
        batches_per_step: Micro-batches of an optimizer step, over all devices.
        stopping_strategy: An epoch has as many steps as go before the first source is used up, or
            as it takes to use up each of them, counted from the first step of the run.
    """

    sources: Sequence[Endless]
    sizes: Mapping[str, int]
    weights: Sequence[Schedule]
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    lengths: np.ndarray | None = None
    batches_per_step: int = 1
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = "first_exhausted"

    @property
    def rows_per_step(self) -> int:
        """Rows of a step."""
        return self.batch_size * self.batches_per_step

    @cached_property
    def draws(self) -> Draws:
        """How often each source has been drawn from before a step."""
        return Draws(self.weights, self.rows_per_step)

    @cached_property
    def steps(self) -> int:
        """Steps of an epoch.

        Raises:
            UserError: a source is never used up.
        """
        if self.stopping_strategy == "first_exhausted":
            return max(1, self.draws.steps_within([*self.sizes.values()]))
        found = self.draws.steps_for_all([*self.sizes.values()])
        if found is None:
            raise UserError(
                "data.stopping_strategy=all_exhausted: a set whose weight ends at 0 is never used "
                "up; take first_exhausted."
            )
        return found

    def __len__(self) -> int:
        """Micro-batches of an epoch."""
        return self.steps * self.batches_per_step

    def batches(self, epoch: int) -> "Epoch":
        """Return the micro-batches of an epoch, each of pairs of a source's pass and a row."""
        return Epoch(self, epoch * self.steps if self.shuffle else 0)

    def drawn(self, epoch: int, number: int) -> dict[str, int]:
        """Return the draws from each source before a micro-batch of an epoch, by its name."""
        draws = self.draws.before(epoch * self.steps + number // self.batches_per_step)
        return dict(zip(self.sizes, draws, strict=True))

    def figures(self, epoch: int, number: int) -> dict[str, float]:
        """Return what is logged before a micro-batch: of each source its share, and its passes."""
        drawn = self.drawn(epoch, number)
        total = max(1, sum(drawn.values()))
        shares = {f"mix/{name}": draws / total for name, draws in drawn.items()}
        passes = {f"mix/{name}_epochs": draws / self.sizes[name] for name, draws in drawn.items()}
        return shares | passes

    @cached_property
    def starts(self) -> list[int]:
        """The number of each source's first row among all rows."""
        return np.cumsum([0, *self.sizes.values()])[:-1].tolist()

    @cached_property
    def step(self) -> Callable[[int], np.ndarray]:
        """Returns the rows of a step (rows, 2), of the endless sequence of steps."""
        length = RUN if self.lengths is not None and self.shuffle else 1
        run = lru_cache(maxsize=2)(lambda number: self._run(number, length))
        return lambda step: run(step // length)[step % length]

    def _run(self, number: int, length: int) -> np.ndarray:
        """Return the rows of some steps that are drawn together (steps, rows, 2)."""
        before = self.draws.before(number * length)
        after = self.draws.before((number + 1) * length)
        parts = []
        for source, start, *places in zip(self.sources, self.starts, before, after, strict=True):
            found = np.reshape(source.at(np.arange(*places)), (-1, 2)).astype(np.int64)
            parts.append(found + np.array([0, start]))
        pairs = np.concatenate(parts)
        if self.shuffle:
            pairs = pairs[Permutation(len(pairs), self.seed, number)(np.arange(len(pairs)))]
        if length > 1 and self.lengths is not None:
            pairs = pairs[np.argsort(-self.lengths[pairs[:, 1]], kind="stable")]
            steps = pairs.reshape(length, -1, 2)
            return steps[Permutation(length, self.seed, number, 1)(np.arange(length))]
        return pairs.reshape(length, -1, 2)


class Epoch(Sequence[np.ndarray]):
    """The micro-batches of one epoch, each of which is made when it is asked for.

    Args:
        plan: What they are made by.
        first: The number of the epoch's first step among all.
    """

    def __init__(self, plan: Mixture, first: int) -> None:
        self.plan, self.first = plan, first

    def __len__(self) -> int:
        """Micro-batches of the epoch."""
        return len(self.plan)

    def __getitem__(self, number: int) -> np.ndarray:  # type: ignore[override]
        """Return the pairs of a pass and a row of a micro-batch."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        step, place = divmod(number, self.plan.batches_per_step)
        size = self.plan.batch_size
        return self.plan.step(self.first + step)[place * size : (place + 1) * size]
