"""What a resumed run needs beyond Lightning's checkpoint to go on with the same bits."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.callbacks.lightning_seams import (
    begin_the_next_epoch,
    evaluate_now,
    interval_ends,
    share_progress,
)
from hydralight.devices import replica_of
from hydralight.errors import UserError, count
from hydralight.loggers import ExactLog
from hydralight.optim.schedules import take_up


class ExactResume(Callback):
    """Goes on with the same counts on any number of devices, and redoes an interrupted evaluation.

    What is random needs no saved states (`tasks/randomness.py`).
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return something: a resume without a callback that has a state is refused."""
        return {"is_kept": True}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put into the checkpoint whether an evaluation follows, what was logged, and by whom.

        An evaluation that follows only because the run ends is no part of a run that is extended.
        """
        checkpoint["exact_resume"] = {
            "world_size": replica_of(trainer)[1],
            "computed_by": computed_by(trainer),
            "evaluation_is_due": interval_ends(trainer),
            "logged": [one.logged() for one in trainer.loggers if isinstance(one, ExactLog)],
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep them until training starts; what comes before draws from the streams."""
        if "exact_resume" not in checkpoint:
            raise UserError("the checkpoint has no exact_resume: nothing can go on from it.")
        self._restored = checkpoint["exact_resume"]
        before, now = self._restored.get("computed_by"), computed_by(trainer)
        if getattr(pl_module, "same_bits", False) and before not in (None, now):
            raise UserError(
                f"trainer.same_bits=true: the run was trained by {before}, and this is {now}, "
                f"whose bits are others: resume there{or_by(before)}, or with "
                "trainer.same_bits=false."
            )
        share_progress(checkpoint, self._restored["world_size"], replica_of(trainer)[1])
        if self._restored.get("logged") and not any(
            isinstance(one, ExactLog) for one in trainer.loggers
        ):
            raise UserError(
                "the run keeps metrics.csv, and no logger does now: it would lack rows; resume it "
                "with its logger=csv."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cut what was logged after the checkpoint, and evaluate where that was interrupted."""
        if self._restored is None:
            return
        restored, self._restored = self._restored, None
        logs = [one for one in trainer.loggers if isinstance(one, ExactLog)]
        known = restored.get("logged", [])  # other loggers may have been chosen
        for index, log in enumerate(logs):
            logged = known[index] if len(known) == len(logs) else None
            log.cut_after(trainer.global_step, logged)
        for config in trainer.lr_scheduler_configs:
            take_up(config.scheduler)
        begin_the_next_epoch(trainer)
        if restored["evaluation_is_due"]:
            evaluate_now(trainer)


def computed_by(trainer: Trainer) -> str:
    """Return what the bits of a result depend on, beside the versions: the device, or threads."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{count(torch.get_num_threads(), 'thread')} a process on the {device.type}"


def or_by(before: str) -> str:
    """Return how to compute with as many threads as before."""
    threads = before.partition(" thread")[0]
    return f", set OMP_NUM_THREADS={threads}" if threads.isdecimal() else ""
