"""How rows come together in batches, as typed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import xxhash
from annotated_types import Interval

from hydralight.config.ranges import Positive, Seed
from hydralight.data.budget import Budget
from hydralight.data.corpus.rows import ShardedRows
from hydralight.data.corpus.windows import Ahead, Windows
from hydralight.data.mix import Mix
from hydralight.data.mixture import Mixture
from hydralight.data.order import Batches, LongestFirst, Order, Place, Plan, Repeated
from hydralight.data.shape import Shape
from hydralight.errors import UserError, count


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How rows come together in batches.

    Args:
        batch_size: Examples of a micro-batch, which a device takes at once.
        eval_batch_size: The same in evaluation and prediction; `batch_size` unless said.
        batches_per_step: Micro-batches of an optimizer step over all devices. It fixes what a step
            is on any number of devices, each of which accumulates its share of them. Unless said,
            `trainer.accumulate_grad_batches` for each device.
        max_tokens: Of a micro-batch, padding included: it takes as many examples of like lengths as
            fit, instead of `batch_size`.
        group_by_length: Whether a training batch is of examples of like lengths, which saves
            padding.
        pad_to_multiple_of: What the lengths of batches are rounded up to, such as 64 for few shapes
            under `task.torch_compile`; 8 in 16 bits unless said, for the sake of tensor cores.
        num_iterations: Optimizer steps of the same micro-batches, one after the other.
        window_shards: Shards of a prepared corpus whose rows are shuffled among each other.
        num_workers: Worker processes of each loader.
        seed: Of the training order.

    """

    batch_size: Positive = 8
    eval_batch_size: Positive | None = None
    batches_per_step: Positive | None = None
    max_tokens: Positive | None = None
    group_by_length: bool = False
    pad_to_multiple_of: Positive | None = None
    num_iterations: Positive = 1
    window_shards: Positive = 8
    num_workers: Annotated[int, Interval(ge=0, le=512)] = 0
    seed: Seed = 42

    def of(
        self,
        rows: Any,
        shape: Shape,
        place: Place,
        shuffle: bool,
        mix: Mix | None = None,
        parts: Mapping[str, Any] | None = None,
    ) -> Batches:
        """Return the batches of encoded training rows, in shards or not.

        Args:
            rows: The rows.
            shape: Says what they take of a budget.
            place: This process.
            shuffle: As in `training`.
            mix: How they are drawn, where they are of several sources.
            parts: The rows of each.

        Raises:
            UserError: as `training`; or tokens are to be counted where there are none.
        """
        if self.max_tokens is not None and shape.length_limit is None:
            raise UserError("data.max_tokens counts tokens, and these examples have none.")
        if mix is not None and parts:
            grouped = self.group_by_length
            sizes = shape.size(rows.with_format("numpy")).sum(axis=1) if grouped else None
            return self.mixture(mix, parts, place, shuffle, sizes)
        if isinstance(rows, ShardedRows):
            return self.in_windows(rows.sizes, place, shuffle, rows.ahead)
        return self.training(shape.size(rows.with_format("numpy")), place, shuffle)

    def training(self, sizes: np.ndarray, place: Place, shuffle: bool = True) -> Batches:
        """Return the training batches.

        Args:
            sizes: What each row takes of a budget, part by part (rows, parts).
            place: This process.
            shuffle: Off where the same few batches are trained on again and again.

        Raises:
            UserError: a row alone exceeds the budget, or there are fewer rows than processes.
        """
        number = place.batches_per_step
        check_shared(len(sizes), place)
        if self.max_tokens is not None and shuffle:
            longest = sizes.sum(axis=1).max()
            if longest > self.max_tokens:
                raise UserError(
                    f"data.max_tokens={self.max_tokens} has no room for a training example of "
                    f"{longest} tokens: raise it, or shorten the examples."
                )
            plan: Plan = Budget(sizes, self.max_tokens, seed=self.seed, batches_per_step=number)
        else:
            plan = Order(
                num_rows=len(sizes),
                batch_size=self.batch_size,
                seed=self.seed,
                shuffle=shuffle,
                lengths=sizes.sum(axis=1) if self.group_by_length and shuffle else None,
                batches_per_step=number,
            )
        if self.num_iterations > 1:
            plan = Repeated(plan, self.num_iterations, number)
        return Batches(plan, place)

    def in_windows(
        self, sizes: Sequence[int], place: Place, shuffle: bool = True, ahead: Ahead | None = None
    ) -> Batches:
        """Return the training batches of a corpus in shards.

        Args:
            sizes: Rows of each shard.
            place: This process.
            shuffle: As in `training`.
            ahead: As in `Windows`.

        Raises:
            UserError: batches are asked for that need the lengths of all rows.
        """
        self.check_windows()
        plan = Windows(
            sizes=tuple(sizes),
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            batches_per_step=place.batches_per_step,
            window_shards=self.window_shards,
            ahead=ahead,
        )
        check_shared(plan.num_rows, place)
        return Batches(plan, place)

    def mixture(
        self,
        mix: Mix,
        parts: Mapping[str, Any],
        place: Place,
        shuffle: bool = True,
        lengths: np.ndarray | None = None,
    ) -> Batches:
        """Return the training batches of several sources.

        Args:
            mix: How they are drawn.
            parts: The encoded rows of each, by name, in shards or not; first the data itself.
            place: This process.
            shuffle: As in `training`.
            lengths: Of all rows, where steps are to be of like lengths.

        Raises:
            UserError: batches are asked for that need the lengths of all rows.
        """
        self.check_mixture()
        sources: list[Order | Windows] = []
        for name, rows in parts.items():
            # orders of their own, also where sources have as many rows
            seed = xxhash.xxh32_intdigest(name.encode(), self.seed) if sources else self.seed
            order: dict[str, Any] = {"batch_size": self.batch_size, "seed": seed}
            if isinstance(rows, ShardedRows):
                self.check_windows()
                order |= {"window_shards": self.window_shards, "ahead": rows.ahead}
                sources.append(Windows(sizes=rows.sizes, shuffle=shuffle, **order))
            else:
                sources.append(Order(num_rows=len(rows), shuffle=shuffle, **order))
        sizes = {name: len(rows) for name, rows in parts.items()}
        plan: Plan = Mixture(
            sources=sources,
            sizes=sizes,
            weights=mix.weights(sizes),
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            lengths=lengths,
            batches_per_step=place.batches_per_step,
            stopping_strategy=mix.stopping_strategy,
        )
        if self.num_iterations > 1:
            plan = Repeated(plan, self.num_iterations, place.batches_per_step)
        return Batches(plan, place)

    def check_mixture(self) -> None:
        """Look whether rows of several sources can come in such batches.

        Raises:
            UserError: their number depends on the lengths of the rows.
        """
        if self.max_tokens is not None:
            raise UserError("data.max_tokens is not for a mixture: leave it out, or data.mix.")

    def check_windows(self) -> None:
        """Look whether a corpus in shards can come in such batches.

        Raises:
            UserError: they need the lengths of all rows, or come several times.
        """
        for name, is_used in (
            ("max_tokens", self.max_tokens is not None),
            ("num_iterations", self.num_iterations > 1),
        ):
            if is_used:
                raise UserError(
                    f"data.{name} is not for a prepared corpus or a stream: leave it out."
                )

    def evaluation(
        self, sizes: np.ndarray, place: Place, limit: int | float | None = 1.0
    ) -> Batches:
        """Return batches from long to short, or in the source's order where not all are taken.

        They are the same ones for any number of processes, some of which may have none.

        Args:
            sizes: As in training.
            place: This process.
            limit: So many batches over all processes, as an int; or a part of each process's,
                which the trainer takes.
        """
        size = self.eval_batch_size or self.batch_size
        number = min(len(sizes), limit * size) if isinstance(limit, int) else len(sizes)
        common: dict[str, Any] = {"num_rows": number, "batch_size": size}
        whole = isinstance(limit, float) and limit == 1.0
        plan = LongestFirst(sizes=sizes, **common) if whole else Order(shuffle=False, **common)
        return Batches(plan, replace(place, accumulate_grad_batches=1))

    def order_settings(self) -> dict[str, Any]:
        """Return what decides on the rows of a run's micro-batches."""
        names = ["seed", "group_by_length", "max_tokens", "batch_size"]
        names += ["num_iterations", "window_shards"]
        settings: dict[str, Any] = {f"data.{name}": getattr(self, name) for name in names}
        if self.max_tokens is not None:
            del settings["data.batch_size"]
        return settings


def check_shared(num_rows: int, place: Place) -> None:
    """Refuse fewer rows than the processes need to have as many batches each.

    Raises:
        UserError: there are.
    """
    if num_rows < place.batches_per_step and num_rows % place.world_size:
        raise UserError(
            f"{count(num_rows, 'training example')} cannot be shared by {place.world_size} "
            "devices: take fewer of them."
        )
