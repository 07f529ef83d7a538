"""How far a training has come in its data: what a checkpoint knows, and what is logged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

from hydralight.data.mixture import Mixture
from hydralight.data.order import Batches, Place, Repeated
from hydralight.data.same import check_number


@dataclass
class Taken:
    """The training batches that this process has had, over all epochs.

    Args:
        consumed: Those before it began.
        per_epoch: Those of an epoch then; 0 where there was none.
        batches: What they are taken from.
    """

    consumed: int = 0
    per_epoch: int = 0
    batches: Batches | None = None

    def begin(self, batches: Batches, limit: int | float) -> Batches:
        """Return batches that begin where training has come to.

        Args:
            batches: All of them.
            limit: How many of them are an epoch, or which part.

        Raises:
            UserError: an epoch had more or fewer.
        """
        number = len(batches)
        number = int(number * limit) if isinstance(limit, float) else min(limit, number)
        if self.consumed:
            check_number(self.per_epoch, number)
        batches.epoch, batches.position = divmod(self.consumed, max(1, number))
        self.batches = batches
        return batches

    def so_far(self, trainer: Trainer | None) -> tuple[int, int]:
        """Return the batches so far, and those of an epoch."""
        if trainer is None:
            return self.consumed, self.per_epoch
        progress = trainer.fit_loop.epoch_loop.batch_progress
        return progress.total.ready, int(trainer.num_training_batches)

    def state(self, trainer: Trainer | None, place: Place) -> dict[str, int]:
        """Return the batches of all processes so far, those of an epoch and those of a step."""
        consumed, per_epoch = self.so_far(trainer)
        return {
            "consumed": consumed * place.world_size,
            "batches_per_epoch": per_epoch * place.world_size,
            "batches_per_step": place.batches_per_step,
            "accumulate_grad_batches": place.accumulate_grad_batches,
        }

    def go_on(self, state: Mapping[str, Any], place: Place) -> None:
        """Take up what `state` returned, on any number of processes."""
        self.consumed = state["consumed"] // place.world_size
        self.per_epoch = state["batches_per_epoch"] // place.world_size

    def mixture(self) -> Mixture | None:
        """Return how the rows of several sources are drawn; None where there is one source."""
        plan = None if self.batches is None else self.batches.plan
        plan = plan.plan if isinstance(plan, Repeated) else plan
        return plan if isinstance(plan, Mixture) else None

    def figures(self, trainer: Trainer | None) -> dict[str, float]:
        """Return what is logged of a mixture, by how far training has come."""
        mixture = self.mixture()
        if self.batches is None or mixture is None:
            return {}
        consumed, per_epoch = self.so_far(trainer)
        epoch, number = divmod(consumed, max(1, per_epoch))
        plan = self.batches.plan
        times = plan.times if isinstance(plan, Repeated) else 1
        return mixture.figures(epoch, number * self.batches.place.world_size // times)
