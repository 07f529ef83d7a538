"""What a run does when it is asked to go."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.callbacks.checkpoint_request import asked_of

log = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM  # 143, as a shell would report it; schedulers requeue on it


class Preemption(Callback):
    """On SIGTERM or SIGUSR1, ends the step, asks for a full checkpoint, and exits with 143.

    It leaves in the first hook after that checkpoint, whichever it is. During an evaluation it
    exits at once: the checkpoint before it is there, and a resumed run evaluates again.
    """

    def __init__(self) -> None:
        self.requested = False
        self._signal = signal.SIGTERM
        self._step = 0  # the last one whose end was seen
        self._leaving = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over from Lightning's handler, which ends the run in the middle of a step."""
        self._step = trainer.global_step
        self._listen()

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for asked in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(asked, self._request)

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested, self._signal = True, signal.Signals(signum)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Decide where an optimizer step has ended, all processes alike."""
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if trainer.strategy.reduce_boolean_decision(self.requested, all=False):
            asked_of(trainer).step = step
            self._leaving = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leave after the checkpoint, where the next batch would begin."""
        self._leave_if_decided(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave after the checkpoint, where an evaluation would begin."""
        self._leave_if_decided(trainer)
        if trainer.state.fn == "fit":  # a resumed run's first may come before its on_train_start
            self._listen()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave after the checkpoint, where an epoch has no evaluation at its end."""
        self._leave_if_decided(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any
    ) -> None:
        """Leave an evaluation."""
        if self.requested and trainer.world_size == 1 and trainer.state.fn == "fit":
            self._leave(trainer)

    def _leave_if_decided(self, trainer: Trainer) -> None:
        if self._leaving:
            self._leave(trainer)

    def _leave(self, trainer: Trainer) -> None:
        step, saved = trainer.global_step, asked_of(trainer).saved
        if saved is None:
            kept = ", without a checkpoint"
        elif saved == step:
            kept = ", with a checkpoint"
        else:
            kept = f"; the last checkpoint is of step {saved}"
        if trainer.is_global_zero:
            log.warning("asked to end (%s): left after step %d%s", self._signal.name, step, kept)
        raise SystemExit(EXIT_CODE)
