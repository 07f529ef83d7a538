"""How long a training is, and after which optimizer steps it evaluates, in Lightning's loops.

Lightning counts an int `val_check_interval` in batches and refuses one that is longer than an
epoch, takes whole epochs only, ends without an evaluation where `max_steps` falls between two, ends
in the middle of a step where it is told to stop there, and does nothing where it is resumed at
`max_steps`. A process that has no batch of an evaluation leaves it out, while the others wait for
it at the end. There is no public way to have it otherwise.
"""

import math
import time
from fractions import Fraction
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.loops.utilities import _is_max_limit_reached
from lightning.pytorch.trainer.states import RunningStage, TrainerFn

from hydralight.callbacks.lightning_seams import evaluate_now
from hydralight.devices import replica_of
from hydralight.runs.checkpoints import ENDLESS

EVERY = 1000  # steps between evaluations where an epoch has no end, unless said


def take_our_loops(trainer: Trainer, max_epochs: float) -> None:
    """Let a trainer that has just been built train by the loops of this file.

    Args:
        trainer: Built with `max_epochs` rounded up.
        max_epochs: Also a fraction; -1 has no end.
    """
    trainer.fit_loop = FitLoop(trainer, max_epochs)
    for name, stage in (
        ("validate", RunningStage.VALIDATING),
        ("test", RunningStage.TESTING),
    ):
        fn = TrainerFn(name)
        setattr(trainer, f"{name}_loop", EvaluationLoop(trainer, fn, stage, inference_mode=True))


class FitLoop(_FitLoop):
    """Trains fractions of epochs, ends where a step has ended, and ends with an evaluation."""

    epoch_loop: "EpochLoop"

    def __init__(self, trainer: Trainer, max_epochs: float) -> None:
        super().__init__(trainer, trainer.min_epochs, trainer.max_epochs)
        self.epoch_loop = EpochLoop(trainer, trainer.min_steps, trainer.max_steps)
        self.max_steps_said = trainer.max_steps
        self.limit_said: int | float = trainer.limit_train_batches
        self.fraction = None if max_epochs == int(max_epochs) else Fraction(str(max_epochs))

    def setup_data(self) -> None:
        """Make the training batches; their number says at which step a fraction of epochs ends.

        The schedule is made after it, by `estimated_stepping_batches`, which calls this method.
        """
        trainer: Any = self.trainer
        if isinstance(self.limit_said, int) and not trainer.fast_dev_run:
            # so many micro-batches over all devices, in whole steps, which are theirs alike
            own = trainer.accumulate_grad_batches
            step = own * replica_of(trainer)[1]
            trainer.limit_train_batches = -(-self.limit_said // step) * own
        interval = getattr(trainer, "val_check_interval", None)
        if isinstance(interval, int):  # of steps, which this method would take for batches
            trainer.val_check_interval = 1.0
        super().setup_data()
        if isinstance(interval, int):
            trainer.val_check_interval = interval
        if self.fraction is not None:
            steps = math.ceil(self.max_batches / trainer.accumulate_grad_batches)
            ends = [math.ceil(self.fraction * steps), self.max_steps_said]
            self.epoch_loop.max_steps = min(end for end in ends if end != -1)

    @property
    def skip(self) -> bool:
        """Whether there are no batches; a run that is resumed at its end goes through its end."""
        return self.max_batches == 0 or self.trainer.limit_train_batches == 0

    @property
    def _can_stop_early(self) -> bool:
        return super()._can_stop_early and not self.epoch_loop._should_accumulate()

    def on_run_end(self) -> None:
        """Evaluate the last step, unless that has been done, and let the callbacks end the run."""
        loop = self.epoch_loop
        if self.trainer.enable_validation and loop.val_loop.step != loop.global_step:
            evaluate_now(self.trainer, extra=True)
        # nothing is trained any more: what callbacks export now is what evaluations see
        evaluated = getattr(self.trainer.lightning_module, "evaluated", None)
        if evaluated is not None:
            evaluated.put()
        super().on_run_end()


class EpochLoop(_TrainingEpochLoop):
    """Evaluates at the ends of optimizer steps."""

    val_loop: "ValidationLoop"

    def __init__(self, trainer: Trainer, min_steps: int | None, max_steps: int) -> None:
        super().__init__(trainer, min_steps, max_steps)
        self.val_loop = ValidationLoop(trainer)

    def interval_ends(self) -> bool:
        """Return whether the batch that has just been ends an interval between evaluations.

        An int counts the optimizer steps of the run, a float is a part of an epoch's. An epoch that
        has no end is evaluated every `EVERY` steps.
        """
        trainer: Any = self.trainer
        if self._should_accumulate() or not self._should_check_val_epoch():
            return False
        if trainer._val_check_time_interval is not None:
            return time.monotonic() - trainer._last_val_time >= trainer._val_check_time_interval
        interval, step = trainer.val_check_interval, self.global_step
        if isinstance(interval, float):
            if trainer.num_training_batches >= ENDLESS:
                return step % EVERY == 0
            window = trainer.accumulate_grad_batches
            interval = max(1, int(math.ceil(trainer.num_training_batches / window) * interval))
            step = math.ceil(self.batch_progress.current.ready / window)
        return step % interval == 0

    def training_ends(self) -> bool:
        """Return whether training ends with the batch that has just been, as far as is known."""
        fit_loop: Any = self.trainer.fit_loop
        if self._should_accumulate():
            return False
        if _is_max_limit_reached(self.global_step, self.max_steps):
            return True
        if self.trainer.should_stop and fit_loop._can_stop_early:
            return True
        epochs = fit_loop.epoch_progress.current.processed + 1
        return self._num_ready_batches_reached() and _is_max_limit_reached(
            epochs, fit_loop.max_epochs
        )

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        return self.interval_ends() or (self.trainer.enable_validation and self.training_ends())

    def on_advance_end(self, data_fetcher: Any) -> None:
        """Evaluate where it is due."""
        self.val_loop.extra = not self.interval_ends()
        super().on_advance_end(data_fetcher)


class EvaluationLoop(_EvaluationLoop):
    """Goes through an evaluation on each process, also on one that has no batch of it."""

    @property
    def skip(self) -> bool:
        """Whether nothing is evaluated."""
        stage = "test" if self.trainer.testing else "val"
        limited = getattr(self.trainer, f"limit_{stage}_batches") == 0
        return super().skip and (self.trainer.world_size == 1 or limited or not self.max_batches)


class ValidationLoop(EvaluationLoop):
    """Knows of which step its last evaluation was (None: of none), and why there was one.

    `extra` is one that is there only because the run ends: a run that is extended has none there.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(
            trainer,
            TrainerFn.FITTING,
            RunningStage.VALIDATING,
            verbose=False,
            inference_mode=False,
        )
        self.step: int | None = None
        self.extra = False

    def increment_progress_to_evaluation_end(self) -> None:
        """Count nothing more: a resumed run has done its evaluation by `evaluate_now`."""

    def on_run_end(self) -> Any:
        """Note the step before the callbacks see the values."""
        if not self.trainer.sanity_checking:
            self.step = self.trainer.global_step
        return super().on_run_end()
