"""Keeps `metrics.json` and `curves.png` up to date."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.callbacks.lightning_seams import datamodule_of
from hydralight.curves import draw_curves
from hydralight.runs.run import update_metrics
from hydralight.shards import class_name

log = logging.getLogger(__name__)


class Record(Callback):
    """Writes the state and the last metrics of a run, and the pictures at the end.

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
        model = class_name(pl_module.model)
        log.info("%s of %s parameters, precision %s", model, f"{parameters:,}", trainer.precision)
        data = datamodule_of(trainer)
        examples = "streamed" if data.corpus.streaming else f"{len(data.encoded('train')):,}"
        steps = f"{trainer.estimated_stepping_batches:,}"
        log.info("%s training examples, %s optimizer steps", examples, steps)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `last`."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it once more, with the last training loss, and draw the curves."""
        self.write(trainer, pl_module)
        if trainer.is_global_zero:
            draw_curves(self.dirpath)

    def write(self, trainer: Trainer, pl_module: Any) -> None:
        """Write `last`: the values of the last evaluation and of the last optimizer step.

        `epoch` is the number of epochs that have been done.
        """
        if not trainer.is_global_zero:
            return
        last = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("val/")}
        last |= {name: float(value) for name, value in pl_module.step_metrics.items()}
        data = datamodule_of(trainer).state_dict()
        epochs = data["consumed"] // max(1, data["batches_per_epoch"])
        place = {"step": trainer.global_step, "epoch": epochs}
        update_metrics(self.dirpath, last={**place, **last})
