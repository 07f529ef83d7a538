"""Logs what a training step has to say."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.callbacks.lightning_seams import datamodule_of, logging_is_due


class StepLog(Callback):
    """Logs the task's `step_metrics` (loss, learning rate, gradient norm) by optimizer steps.

    The loss is the mean over all the targets of the step, on all devices. Of a mixture, the shares
    and the passes of its sources are logged too; of a stream, the pass that it is in as
    `data_epoch`. Rows are written before the step's checkpoint, so that a resumed run's log has no
    gap.
    """

    def __init__(self) -> None:
        self._step = 0  # the last one whose end was seen

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from a resumed run's step."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log every `log_every_n_steps`, and the first step."""
        step, before = trainer.global_step, self._step
        self._step = step
        if step == before or not (logging_is_due(trainer) or step == 1):
            return
        metrics = {name: float(value) for name, value in pl_module.step_metrics.items()}  # type: ignore[union-attr, operator]
        if (taken := getattr(datamodule_of(trainer), "taken", None)) is not None:
            metrics |= taken.figures(trainer)
        for logger in trainer.loggers:
            logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, step=step)
