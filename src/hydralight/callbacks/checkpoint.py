"""Full checkpoints, for resume."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from hydralight.callbacks.checkpoint_request import asked_of
from hydralight.callbacks.lightning_seams import (
    datamodule_of,
    evaluation_is_due,
    is_dev_run,
    training_ends,
)
from hydralight.config.ranges import Positive
from hydralight.errors import UserError, first_line
from hydralight.runs.checkpoints import PARTIAL, Record, checkpoints_in, put_in_place, tidy
from hydralight.runs.checksums import checksum
from hydralight.runs.files import remove


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` at the end of a training batch that ended an optimizer step.

    That is the only place from which Lightning resumes exactly. A checkpoint stands before the
    evaluation of its step, which a resumed run does again. Other callbacks can ask for one
    (`checkpoint_request.py`).

    Args:
        dirpath: Folder of the checkpoints.
        every_n_train_steps: Optimizer steps between checkpoints; unless said, one is written
            before each evaluation and at the end of each epoch. The run's last step has one always.
        save_total_limit: How many to keep (None: all), as `step-<n>.ckpt` where more than one.

    Raises:
        UserError: while training, the disk is full.
    """

    def __init__(
        self,
        dirpath: str,
        every_n_train_steps: Positive | None = None,
        save_total_limit: Positive | None = 1,
    ) -> None:
        self.dirpath = Path(dirpath)
        self.every_n_train_steps = every_n_train_steps
        self.save_total_limit = save_total_limit
        self._step = 0  # the last one whose end was seen

    def state_dict(self) -> dict[str, Any]:
        """Return something: a resume without a callback that has a state is refused."""
        return {"step": self._step}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Know of the checkpoint that this run goes on from."""
        asked_of(trainer).saved = checkpoint["global_step"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from a resumed run's step, and put in order what a kill has left."""
        self._step = trainer.global_step
        if trainer.ckpt_path and trainer.is_global_zero:
            tidy(Path(trainer.ckpt_path), self.save_total_limit)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint where a step has ended and one is due, or asked for."""
        step, before = trainer.global_step, self._step
        self._step = step
        if step != before and not is_dev_run(trainer) and self.is_due(trainer, step):
            self.save(trainer)
            asked_of(trainer).saved = step

    def is_due(self, trainer: Trainer, step: int) -> bool:
        """Return whether a checkpoint is to be written at the end of this step."""
        if asked_of(trainer).step == step or trainer.is_last_batch or training_ends(trainer):
            return True
        if self.every_n_train_steps and step % self.every_n_train_steps == 0:
            return True
        # one goes before the first evaluation at least: no model without a run to go on with
        asked = not self.every_n_train_steps or asked_of(trainer).saved is None
        return asked and evaluation_is_due(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint under another name, record it, and put it in its place."""
        partial = self.dirpath / PARTIAL
        try:
            if trainer.is_global_zero:
                remove(partial)
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                put_in_place(self.dirpath, record_of(partial, trainer), self.save_total_limit)
        except (OSError, RuntimeError, UserError) as error:  # torch's writer raises the latter
            remove(partial)
            there = checkpoints_in(self.dirpath)
            then = "resume the run; the one before is intact" if there else "begin the run again"
            raise UserError(
                f"the checkpoint of step {trainer.global_step} cannot be written "
                f"({first_line(error)}): make room, and {then}."
            ) from error
        # a process that leaves now would have the first one killed by Lightning, in 5 seconds
        trainer.strategy.barrier("checkpoint")


def record_of(path: Path, trainer: Trainer) -> Record:
    """Return the record of a checkpoint that has just been written."""
    place = datamodule_of(trainer).state_dict()
    return Record(
        step=trainer.global_step,
        epoch=trainer.current_epoch,
        consumed=place["consumed"],
        batches_per_epoch=place["batches_per_epoch"],
        accumulate_grad_batches=trainer.accumulate_grad_batches,
        checksum=checksum(path),
    )
