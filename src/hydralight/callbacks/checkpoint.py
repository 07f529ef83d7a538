"""Full checkpoints, for resume."""

import os
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from hydralight.callbacks.schedule import evaluation_is_due
from hydralight.errors import UserError, first_line


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` at the end of a training batch that ended an optimizer step.

    That is the only place from which Lightning resumes exactly. A checkpoint stands before the
    evaluation of its step, which a resumed run does again.

    Args:
        dirpath: Folder of the checkpoints.
        every_n_train_steps: Optimizer steps between checkpoints; unless said, one is written
            before each evaluation and at the end of each epoch.
        save_total_limit: How many to keep (None: all), as `step-<n>.ckpt` where more than one.
    """

    def __init__(
        self, dirpath: str, every_n_train_steps: int | None = None, save_total_limit: int | None = 1
    ) -> None:
        self.dirpath = Path(dirpath)
        self.every_n_train_steps = every_n_train_steps
        self.save_total_limit = save_total_limit
        if save_total_limit is not None and save_total_limit < 1:
            raise UserError("callbacks.last_checkpoint.save_total_limit should be 1 or more.")
        self._saved_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from a resumed run's step."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint where one is due."""
        step = trainer.global_step
        if step == self._saved_step or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        last = bool(trainer.is_last_batch) or step == trainer.max_steps
        if self.every_n_train_steps:
            due = last or step % self.every_n_train_steps == 0
        else:
            due = last or evaluation_is_due(trainer)
        if due:
            self.save_now(trainer)

    def save_now(self, trainer: Trainer) -> None:
        """Write a checkpoint of this step, unless there is one."""
        if self._saved_step != trainer.global_step:
            self._saved_step = trainer.global_step
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt` (under another name first), and remove the oldest of the others."""
        path = self.dirpath / f"step-{trainer.global_step:08d}.ckpt"
        partial = path.with_suffix(".partial")
        try:
            trainer.save_checkpoint(partial)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter
            partial.unlink(missing_ok=True)
            raise UserError(
                f"the checkpoint of step {trainer.global_step} cannot be written "
                f"({first_line(error)}); the one before is intact: make room, and resume the run."
            ) from error
        if not trainer.is_global_zero:
            return
        partial.replace(path)
        link = self.dirpath / "last.ckpt.partial"
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, link)
        link.replace(self.dirpath / "last.ckpt")
        if self.save_total_limit == 1:
            path.unlink()
        if self.save_total_limit is not None:
            for old in sorted(self.dirpath.glob("step-*.ckpt"))[: -self.save_total_limit]:
                old.unlink()
