"""Checkpoints are written where they are to be."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer

from hydralight.runs.sharded import assembled


class InPlace(TorchCheckpointIO):
    """Writes a local checkpoint into its own file.

    Lightning's own goes through memory and a file in the system's temporary folder, which a kill
    leaves there, and which need not have room for it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; one with an address goes as Lightning has it."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint; one of a sharded training, which is a folder, as a whole."""
        if Path(path).is_dir():
            return assembled(Path(path))
        return super().load_checkpoint(path, *args, **kwargs)


def write_in_place(trainer: Trainer) -> None:
    """Let a trainer write checkpoints so, unless the user or the strategy has another way."""
    strategy = trainer.strategy
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = InPlace()
