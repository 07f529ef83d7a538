"""What a resumed run needs beyond Lightning's checkpoint to go on with the same bits."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.callbacks.lightning_seams import (
    begin_the_next_epoch,
    evaluate_now,
    interval_ends,
    share_progress,
)
from hydralight.errors import UserError
from hydralight.loggers import ExactLog
from hydralight.sharding import replica_of


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
        begin_the_next_epoch(trainer)
        if restored["evaluation_is_due"]:
            evaluate_now(trainer)
