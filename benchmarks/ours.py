"""Our side: a recipe's config, composed and built as `train.py` does it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import execution_whitelist
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf

from benchmarks.hardware import on_gpu
from benchmarks.measure import peak_memory
from benchmarks.recorder import Recorder
from hydralight.building import (
    build,
    build_data,
    build_task,
    build_trainer,
    prepare,
    use_trained_model,
)
from hydralight.callbacks.predictions import Predictions
from hydralight.config.project import CONFIG_DIR
from hydralight.config.resolvers import register_resolvers
from hydralight.config.whitelist import WHITELIST
from hydralight.data.module import DataModule
from hydralight.tasks.task import Task

# what is neither training nor its log; Trainer is run without it too
ONLY_TRAINING = (
    "callbacks.samples=null",
    "callbacks.best_model=null",
    "callbacks.last_checkpoint=null",
    "callbacks.record=null",
    "callbacks.rich_progress=null",
    "+trainer.limit_val_batches=0",
)


class Recording(Callback):
    """Tells the recorder where steps end; the last of the callbacks, so that all are timed."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        model: Any = pl_module.model
        self.recorder.begin(model, int(trainer.estimated_stepping_batches))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note a step, by the last of its micro-batches."""
        if trainer.global_step > self.recorder.steps:
            self.recorder.step(batch)


def composed(overrides: Sequence[str], folder: Path) -> DictConfig:
    """Return the config that `train.py` would compose, with a folder as the run's directory."""
    register_resolvers()
    folder.mkdir(parents=True, exist_ok=True)  # as Hydra does
    device = "auto" if on_gpu() else "cpu"
    with initialize_config_dir(str(CONFIG_DIR), job_name="train"):
        cfg = compose(
            "train",
            [*overrides, f"paths.output_dir={folder}", f"trainer.accelerator={device}"],
            return_hydra_config=True,
        )
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg


def built(overrides: Sequence[str], folder: Path) -> tuple[Task, DataModule, Trainer]:
    """Build the task, its data and the trainer."""
    cfg = composed(overrides, folder)
    with execution_whitelist(WHITELIST):
        prepare(cfg)
        return build(cfg)


def train(
    overrides: Sequence[str], folder: Path, recorder: Recorder | None = None
) -> tuple[Task, DataModule, Trainer]:
    """Train without evaluation, checkpoints and samples, timed by the recorder."""
    task, data, trainer = built([*overrides, *ONLY_TRAINING], folder)
    if recorder is not None:
        trainer.callbacks.append(Recording(recorder))  # type: ignore[attr-defined]
    with execution_whitelist(WHITELIST):
        trainer.fit(task, datamodule=data)
    return task, data, trainer


def files(**splits: Path) -> str:
    """Return the override that names the files of the splits."""
    named = ",".join(f"{split}: '{path}'" for split, path in splits.items())
    return f"data.path={{{named}}}"


class EvaluationClock(Callback):
    """Times an evaluation, metrics included, and notes the peak of memory on its way.

    Args:
        peak_after: Examples after which the peak is noted.
    """

    def __init__(self, peak_after: int = 0) -> None:
        self.left = peak_after
        self.peak = 0.0  # MiB
        self.seconds = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self.seconds = -time.perf_counter()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Count the batch's examples."""
        self.left -= len(batch["row"])
        if self.left <= 0 and not self.peak:
            self.peak = peak_memory()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End."""
        self.seconds += time.perf_counter()


def evaluate(
    overrides: Sequence[str], checkpoint: Path, folder: Path, peak_after: int = 0
) -> tuple[EvaluationClock, list[dict[str, Any]]]:
    """Evaluate a checkpoint on the validation split as `eval.py` does.

    Returns:
        The clock, and the predictions that were written.
    """
    cfg = evaluation_config(overrides, checkpoint, folder)
    clock = EvaluationClock(peak_after)
    predictions = folder / "predictions.jsonl"
    with execution_whitelist(WHITELIST):
        task, data = build_task(cfg), build_data(cfg)
        trainer = build_trainer(cfg, [Predictions(predictions), clock], logger=False)
        trainer.validate(task, datamodule=data, verbose=False)
    with predictions.open(encoding="utf-8") as file:
        return clock, [json.loads(line) for line in file]


def evaluation_config(overrides: Sequence[str], checkpoint: Path, folder: Path) -> DictConfig:
    """Return the config that `eval.py` would make for a checkpoint."""
    cfg = composed([*overrides, f"checkpoint={checkpoint}"], folder)
    with execution_whitelist(WHITELIST):
        prepare(cfg)
        use_trained_model(cfg, folder)
    return cfg


def validation_rows(overrides: Sequence[str], checkpoint: Path, folder: Path) -> Dataset:
    """Return the encoded validation split of such an evaluation, for Trainer's side."""
    cfg = evaluation_config(overrides, checkpoint, folder)
    with execution_whitelist(WHITELIST):
        return build_data(cfg).encoded("validation")
