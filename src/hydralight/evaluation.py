"""Evaluate a run's best model, or any checkpoint with a recipe."""

import copy
import logging
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from hydralight import harness, models
from hydralight.building import (
    build_data,
    build_task,
    build_trainer,
    prepare,
    progress_bar,
    use_trained_model,
)
from hydralight.callbacks.lightning_seams import add_callback
from hydralight.callbacks.predictions import Predictions
from hydralight.data.module import DataModule
from hydralight.runs.as_json import as_json
from hydralight.runs.begin import check_no_training_is_here
from hydralight.runs.environment import record_start
from hydralight.runs.lock import InUse, locked
from hydralight.runs.overrides import typed_keys
from hydralight.runs.run import Run, update_metrics
from hydralight.sharding import built as build_model
from hydralight.shards import is_sharded
from hydralight.tasks.kto import KTO_LOSSES
from hydralight.tasks.preference_losses import WITH_REFERENCE
from hydralight.tasks.same_bits import fixed_threads
from hydralight.tasks.task import Task

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """Evaluate on one split, write predictions and metrics, and print and return the metrics.

    With `run`, the model is that run's, and a lone file given as `data.path` is evaluated whole.
    With `harness`, it is evaluated on tasks of others instead (`harness.py`).

    Raises:
        UserError: there is no model, no such split, or what training would raise.
    """
    composed = copy.deepcopy(cfg)
    prepare(cfg)
    own_run = bool(cfg.get("run"))
    tasks = harness.asked_for(cfg)
    split = asked_split(cfg, run_dir)
    if own_run:
        refer_to_the_start(cfg)
    use_trained_model(cfg, run_dir)
    if not own_run:
        check_no_training_is_here(run_dir)
    if tasks:
        if not own_run:
            record_start(run_dir, cfg, composed)
        return harness.judge(cfg, run_dir, tasks)
    name = split
    if own_run and new_data(cfg, run_dir):
        name = f"{split}-other"
        path = cfg.data.path
        path = path.get(split) if isinstance(path, DictConfig) else path
        if isinstance(path, str):
            name = f"{split}-{Path(path).name.split('.')[0]}"
            cfg.data.path = {split: path}
    task, data = build_task(cfg), build_data(cfg)
    data.validation_split = split
    data.only_columns = own_run
    predictions = Predictions(run_dir / "predictions" / f"{name}.jsonl")
    trainer = build_trainer(cfg, [predictions, *progress_bar(cfg)], logger=False)
    metrics = run_trainer(trainer, task, data, split)
    if trainer.is_global_zero:
        if not own_run:
            record_start(run_dir, cfg, composed)
        if name == "test" or not own_run:
            keep(run_dir, split, metrics)
        print(as_json(metrics, indent=2))
    return metrics


def refer_to_the_start(cfg: DictConfig) -> None:
    """Let a loss that has a reference refer to the model that the run began with."""
    if (
        cfg.task.get("loss_type") in (*WITH_REFERENCE, *KTO_LOSSES)
        and cfg.task.get("reference") is None
    ):
        cfg.task.reference = OmegaConf.to_container(cfg.model, resolve=True)


def asked_split(cfg: DictConfig, run_dir: Path) -> str:
    """Return the split that is to be evaluated: `test` where `data.path` has been given it alone.

    What `split` says goes before; else it is the validation split.
    """
    if "split" in typed_keys(None) and cfg.get("split"):
        return str(cfg.split)
    path = cfg.data.get("path")
    own = OmegaConf.select(Run(run_dir).config, "data.path") if cfg.get("run") else None
    before = own if isinstance(own, DictConfig) else {}
    given = path if isinstance(path, DictConfig) else {}
    new = [
        split for split in given if given[split] is not None and given[split] != before.get(split)
    ]
    if new != ["test"]:
        return "validation"
    log.info("split=test, as data.path names it alone")
    return "test"


def keep(run_dir: Path, split: str, metrics: dict[str, float]) -> None:
    """Write metrics to `metrics.json`, unless a training is at work, which writes it too."""
    try:
        with locked(run_dir):
            update_metrics(run_dir, **{split: metrics})
    except InUse as error:
        log.warning("%s Its metrics.json is left as it is; these metrics are not kept.", error)


def run_trainer(trainer: Trainer, task: Task, data: DataModule, split: str) -> dict[str, float]:
    """Run the trainer over a split, and return the metrics, named after it."""
    entry = trainer.test if split == "test" else trainer.validate
    with fixed_threads(trainer, task.same_bits):
        values: Any = entry(task, datamodule=data, verbose=False)
    prefix = "val" if split == "validation" else split
    return {f"{prefix}/{k.partition('/')[2]}": v for k, v in values[0].items() if "/" in k}


def test_best(trainer: Trainer, task: Task, data: DataModule, run_dir: Path) -> None:
    """Evaluate the best model of a run that has just been trained on the test split."""
    trainer.strategy.barrier("best_model")  # until the first process has written it
    recipe = models.Pretrained(checkpoint=str(run_dir / "model"))
    model: Any = build_model(trainer.strategy, partial(recipe, task.auto_class))
    task.model = model if is_sharded(model) else model.to(task.device)
    predictions = Predictions(run_dir / "predictions" / "test.jsonl")
    add_callback(trainer, predictions)
    metrics = run_trainer(trainer, task, data, "test")
    if trainer.is_global_zero:
        update_metrics(run_dir, test=metrics)
        print(as_json(metrics, indent=2))


def new_data(cfg: DictConfig, run_dir: Path) -> bool:
    """Whether other data than the run's own has been asked for."""
    return OmegaConf.select(Run(run_dir).config, "data.path") != cfg.data.get("path")
