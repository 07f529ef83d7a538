"""What a resumed run needs beyond Lightning's checkpoint to go on with the same bits."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.callbacks.lightning_seams import (
    begin_the_next_epoch,
    evaluate_now,
    interval_ends,
)
from hydralight.config.ranges import Seed
from hydralight.errors import UserError
from hydralight.loggers import ExactLog


class ExactResume(Callback):
    """Saves and restores the random states of each rank, and redoes an interrupted evaluation.

    Args:
        seed: Of the run; 0 is a seed.
    """

    def __init__(self, seed: Seed) -> None:
        self.seed = seed
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return something: a resume without a callback that has a state is refused."""
        return {"seed": self.seed}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put each rank's random states into the checkpoint, and whether an evaluation follows.

        One that follows only because the run ends is no part of a run that is extended.
        """
        states: list[Any] = [None] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(states, random_states())
        else:
            states = [random_states()]
        checkpoint["exact_resume"] = {
            "random_states": states,
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
        if self._restored.get("logged") and not any(
            isinstance(one, ExactLog) for one in trainer.loggers
        ):
            raise UserError(
                "the run keeps metrics.csv, and no logger does now: it would lack rows; resume it "
                "with its logger=csv."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random states; or, in a fresh run, give each rank its own stream."""
        if self._restored is None:
            if trainer.global_rank:
                torch.manual_seed(self.seed + trainer.global_rank)
            return
        restored, self._restored = self._restored, None
        set_random_states(restored["random_states"][trainer.global_rank])
        logs = [one for one in trainer.loggers if isinstance(one, ExactLog)]
        known = restored.get("logged", [])  # other loggers may have been chosen
        for index, log in enumerate(logs):
            logged = known[index] if len(known) == len(logs) else None
            log.cut_after(trainer.global_step, logged)
        begin_the_next_epoch(trainer)
        if restored["evaluation_is_due"]:
            evaluate_now(trainer)


def random_states() -> dict[str, Any]:
    """Return this process's random states as plain numbers and tensors."""
    state: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, gauss = state
    version, internal, gauss_next = random.getstate()
    states: dict[str, Any] = {
        "python": [version, list(internal), gauss_next],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Set what `random_states` returned."""
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])
