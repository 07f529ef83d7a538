"""What a run does when it is asked to go."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.callbacks.checkpoint import LastCheckpoint

log = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM  # 143, as a shell would report it; schedulers requeue on it


class Preemption(Callback):
    """On SIGTERM, ends the optimizer step, writes a full checkpoint, and exits with 143.

    During an evaluation it exits at once: the checkpoint before it is there, and a resumed run
    evaluates again.
    """

    def __init__(self) -> None:
        self.requested = False
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over from Lightning's handler, which ends the run in the middle of a step."""
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._request)

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave where an optimizer step has ended, all processes at the same."""
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if trainer.strategy.reduce_boolean_decision(self.requested, all=False):
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, LastCheckpoint):
                    callback.save_now(trainer)
            self._leave(step)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any
    ) -> None:
        """Leave an evaluation."""
        if self.requested and trainer.world_size == 1 and trainer.state.fn == "fit":
            self._leave(trainer.global_step)

    def _leave(self, step: int) -> None:
        log.warning("asked to end (SIGTERM): left after step %d, with a checkpoint", step)
        raise SystemExit(EXIT_CODE)
