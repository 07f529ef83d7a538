"""`train.py`, which kills itself, its workers and its ranks at a moment that is chosen.

python tests/killed.py <moment> <n> <overrides>: at the n-th time that this moment comes.
`tests/soaked.py` does the same in processes that share their imports.
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

from hydralight import training
from hydralight.callbacks import best_model, record, samples
from hydralight.data.corpus import corpus, work
from hydralight.data.corpus.cache import Cache
from hydralight.data.corpus.shards import Files
from hydralight.data.stream import chunks
from hydralight.loggers import CSVLogger
from hydralight.runs import checkpoints, environment, run
from hydralight.tasks.task import Task

ROOT = Path(__file__).parents[1]
SAVE, EXPORT = Trainer.save_checkpoint, PreTrainedModel.save_pretrained


def kill() -> None:
    os.killpg(0, signal.SIGKILL)


def half_written(trainer: Trainer, path: Path, *args: Any) -> None:
    SAVE(trainer, path, *args)
    for file in path.glob("*.safetensors") if path.is_dir() else [path]:
        os.truncate(file, file.stat().st_size // 2)
    kill()


def exported(model: PreTrainedModel, folder: Path, **kwargs: Any) -> None:
    EXPORT(model, folder, **kwargs)
    kill()


def between_renames(new: Path, old: Path) -> None:
    if old.exists():
        old.rename(old.with_name(f"{old.name}.previous"))
    kill()


def half_named(files: Files) -> None:
    for partial, shard in list(zip(files.partials, files.shards, strict=True))[:1]:
        partial.replace(files.folder / shard.file)
    kill()


def half_fetched(cache: Cache, shard: Any, partial: Path) -> None:
    partial.write_bytes(b"\0" * (shard.bytes // 2))
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
    # the three files of .hydra, config.yaml, environment.json
    "records": (environment, "write_text", lambda *args: kill()),
    "log": (CSVLogger, "log_metrics", lambda *args, **kwargs: kill()),
    "metrics": (run, "write_text", lambda *args: kill()),
    "samples": (samples, "write_json_lines", lambda *args: kill()),
    "model's name": (best_model, "replace_folder", between_renames),
    # of corpora: a unit's shards have names and no record, or not all have names; the index; a
    # shard that is fetched
    "unit": (work, "write_record", lambda *args, **kwargs: kill()),
    "shards": (Files, "finish", half_named),
    "index": (corpus, "write_record", lambda *args, **kwargs: kill()),
    "fetch": (Cache, "_copy", half_fetched),
    # of streams: what a window has of a unit has been encoded, and has no record
    "chunk": (chunks, "write_record", lambda *args, **kwargs: kill()),
    # once a run, at its end
    "last evaluation": (Task, "validation_step", lambda *args: kill()),
    "curves": (record, "draw_curves", lambda *args: kill()),
    "finished": (training, "update_metrics", lambda *args, **kwargs: kill()),
    "test": (Task, "test_step", lambda *args: kill()),
}


def counts(moment: str, args: tuple[Any, ...]) -> bool:
    """Whether a call is one of the moment's."""
    return moment != "last evaluation" or args[0].trainer.fit_loop.epoch_loop.training_ends()


def kill_at(moment: str, number: int, told: Callable[[], object] | None = None) -> None:
    """Let the process be killed at a moment; or only tell of it, where others kill."""
    owner, name, instead = MOMENTS[moment]
    original, calls = getattr(owner, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += counts(moment, args)
        if calls[0] == number and counts(moment, args):
            if told is None:
                return instead(*args, **kwargs)
            told()
        return original(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    kill_at(sys.argv[1], int(sys.argv[2]))
    sys.argv = [str(ROOT / "train.py"), *sys.argv[3:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
