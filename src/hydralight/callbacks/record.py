"""Keeps `metrics.json` and `curves.png` up to date."""

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.callbacks.best_model import BestModel
from hydralight.callbacks.step_log import StepLog
from hydralight.curves import draw_curves
from hydralight.runs.run import update_metrics

log = logging.getLogger(__name__)


class Record(Callback):
    """Writes the last and the best metrics after each evaluation, and the pictures at the end.

    Args:
        dirpath: The run's directory.
    """

    def __init__(self, dirpath: str) -> None:
        self.dirpath = Path(dirpath)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that the run is on."""
        if trainer.is_global_zero:
            update_metrics(self.dirpath, status="running")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is about to be trained."""
        parameters = sum(p.numel() for p in pl_module.parameters())
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        log.info(
            "%s of %s parameters, %s training examples, %s optimizer steps, precision %s",
            type(pl_module.model).__name__,
            f"{parameters:,}",
            f"{len(datamodule.encoded('train')):,}",
            f"{trainer.estimated_stepping_batches:,}",
            trainer.precision,
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `last` and `best`."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them once more, with the last training loss, and draw the curves."""
        self.write(trainer)
        if trainer.is_global_zero:
            draw_curves(self.dirpath)

    def write(self, trainer: Trainer) -> None:
        """Write `last` and `best`."""
        if not trainer.is_global_zero:
            return
        last = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("val/")}
        record: dict[str, dict[str, float]] = {
            "last": {"step": trainer.global_step, "epoch": trainer.current_epoch, **last}
        }
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, StepLog):
                record["last"].update(callback.last)
            if isinstance(callback, BestModel) and callback.best_step is not None:
                record["best"] = {"step": callback.best_step, **callback.best_metrics}
        update_metrics(self.dirpath, **record)
