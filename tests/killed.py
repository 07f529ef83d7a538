"""`train.py`, which kills itself, its workers and its ranks at a moment that is chosen.

python tests/killed.py <moment> <n> <overrides>: at the n-th time that this moment comes.
"""

import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops import _TrainingEpochLoop
from transformers import PreTrainedModel

from hydralight.runs import checkpoints
from hydralight.tasks.task import Task

ROOT = Path(__file__).parents[1]
SAVE, EXPORT = Trainer.save_checkpoint, PreTrainedModel.save_pretrained


def kill() -> None:
    os.killpg(0, signal.SIGKILL)


def half_written(trainer: Trainer, path: Path, *args: Any) -> None:
    SAVE(trainer, path, *args)
    os.truncate(path, path.stat().st_size // 2)
    kill()


def exported(model: PreTrainedModel, folder: Path, **kwargs: Any) -> None:
    EXPORT(model, folder, **kwargs)
    kill()


# a moment: whose method is called then, and what is done instead of it
MOMENTS: dict[str, tuple[Any, str, Callable[..., None]]] = {
    "batch": (Task, "training_step", lambda *args: kill()),
    "checkpoint": (Trainer, "save_checkpoint", half_written),
    # twice a checkpoint: before it has its name, and between the names last.ckpt and last.json
    "checkpoint's record": (checkpoints, "write_text", lambda *args: kill()),
    "checkpoint's name": (os, "link", lambda *args: kill()),
    "old checkpoints": (checkpoints, "remove_old", lambda *args: kill()),
    "validation": (Task, "validation_step", lambda *args: kill()),
    "export": (PreTrainedModel, "save_pretrained", exported),
    "between epochs": (_TrainingEpochLoop, "reset", lambda *args: kill()),
}


def kill_at(moment: str, number: int) -> None:
    owner, name, instead = MOMENTS[moment]
    original, calls = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return (instead if calls[0] == number else original)(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    kill_at(sys.argv[1], int(sys.argv[2]))
    sys.argv = [str(ROOT / "train.py"), *sys.argv[3:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
