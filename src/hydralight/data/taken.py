"""How far a training has come in its data: what a checkpoint knows, and what is logged."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer

from hydralight.data.mixture import Mixture
from hydralight.data.order import Batches, Place, Repeated

if TYPE_CHECKING:
    from hydralight.data.stream.mixed import Streams
    from hydralight.data.stream.streamed import Stream


@dataclass
class Taken:
    """The training batches that this process has had, over all epochs.

    Args:
        consumed: Those before it began.
        per_epoch: Those of an epoch then; 0 where there was none.
        batches: What they are taken from.
        stream: Where training rows are streamed.
    """

    consumed: int = 0
    per_epoch: int = 0
    batches: Batches | None = None
    stream: "Stream | Streams | None" = None

    def begin(self, batches: Batches, trainer: Trainer | None) -> Batches:
        """Return batches that begin where training has come to.

        Args:
            batches: All of them.
            trainer: Limits an epoch to some of them.

        Raises:
            UserError: an epoch had more or fewer.
        """
        limit = 1.0 if trainer is None else trainer.limit_train_batches
        self.batches = batches.behind(self.consumed, limit, self.per_epoch)
        return self.batches

    def so_far(self, trainer: Trainer | None) -> tuple[int, int]:
        """Return the batches so far, and those of an epoch."""
        if trainer is None:
            return self.consumed, self.per_epoch
        progress = trainer.fit_loop.epoch_loop.batch_progress
        return progress.total.ready, int(trainer.num_training_batches)

    def state(self, trainer: Trainer | None, place: Place) -> dict[str, Any]:
        """Return the batches of all processes so far, those of an epoch and those of a step."""
        consumed, per_epoch = self.so_far(trainer)
        return {
            "consumed": consumed * place.world_size,
            "batches_per_epoch": per_epoch * place.world_size,
            "batches_per_step": place.batches_per_step,
            "accumulate_grad_batches": place.accumulate_grad_batches,
            "stream": None if self.stream is None else self.stream.state(consumed),
        }

    def go_on(self, state: Mapping[str, Any], place: Place) -> None:
        """Take up what `state` returned, on any number of processes.

        Raises:
            UserError: the run was trained on another stream.
        """
        if self.stream is not None:
            self.stream.go_on(state.get("stream"))
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
        if self.stream is not None:
            return self.stream.figures(self.so_far(trainer)[0])
        if self.batches is None or mixture is None:
            return {}
        consumed, per_epoch = self.so_far(trainer)
        epoch, number = divmod(consumed, max(1, per_epoch))
        plan = self.batches.plan
        times = plan.times if isinstance(plan, Repeated) else 1
        return mixture.figures(epoch, number * self.batches.place.world_size // times)
