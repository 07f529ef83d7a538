"""Logs what a training step has to say."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StepLog(Callback):
    """Logs the task's `step_metrics` (loss, learning rate, gradient norm) by optimizer steps.

    The loss is the mean over all the targets of the step, on all devices. Rows are written
    before the step's checkpoint, so that a resumed run's log has no gap.
    """

    def __init__(self) -> None:
        self._logged_step = 0
        self.last: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what was logged last, for a run that has only an evaluation left."""
        return {"last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self.last = state_dict["last"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from a resumed run's step."""
        self._logged_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log every `log_every_n_steps`, and the first step."""
        step = trainer.global_step
        if step == self._logged_step:
            return
        self._logged_step = step
        if step % max(1, trainer.log_every_n_steps) and step != 1:  # type: ignore[attr-defined]
            return
        metrics = {name: float(value) for name, value in pl_module.step_metrics.items()}  # type: ignore[union-attr, operator]
        self.last = metrics
        pl_module.log("loss", metrics["train/loss"], prog_bar=True, logger=False)
        for logger in trainer.loggers:
            logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, step=step)
