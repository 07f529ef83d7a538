"""The preflight: build everything that a run needs, evaluate one batch, train nothing."""

import math

from lightning.pytorch import Trainer
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from hydralight.building import build_all, build_data, build_task, build_trainer
from hydralight.config.limits import ends
from hydralight.data.module import DataModule
from hydralight.tasks.evaluation import check_monitors
from hydralight.tasks.task import Task


def preflight(cfg: DictConfig) -> None:
    """Read and encode the data, build the model, evaluate a batch, and print what there is.

    Raises:
        UserError: what training would have stumbled over.
    """
    callbacks, _ = build_all(cfg.callbacks), build_all(cfg.logger)
    task, data = build_task(cfg), build_data(cfg)
    limited = DictConfig({**cfg, "trainer": {**cfg.trainer, "limit_val_batches": 1}})
    trainer = build_trainer(limited, [], logger=False)
    trainer.validate(task, datamodule=data, verbose=False)
    check_monitors(callbacks, task)
    data.encoded("train")
    if cfg.test:
        data.encoded("test")
    task.configure_optimizers(num_training_steps=1)
    if trainer.is_global_zero:
        print_summary(cfg, task, data, trainer)


def print_summary(cfg: DictConfig, task: Task, data: DataModule, trainer: Trainer) -> None:
    """Print model, data and steps as a table."""
    assert task.model is not None
    parameters = list(task.model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    data.encoded("train")
    batches = len(data.train_dataloader())
    steps = math.ceil(batches / trainer.accumulate_grad_batches)
    table = Table("", "checked; nothing was trained", title="Preflight", title_justify="left")
    table.add_row("model", f"{type(task.model).__name__}, {sum(p.numel() for p in parameters):,}")
    table.add_row("trained parameters", f"{trainable:,}")
    if isinstance(data.processor, PreTrainedTokenizerBase):
        table.add_row("vocabulary", f"{len(data.processor):,}")
    if data.label_names:
        table.add_row("labels", ", ".join(data.label_names))
    for split in ("train", *data.validation_sets):
        too_long = data.too_long_counts.get(split, 0)
        table.add_row(
            f"{split} examples", f"{len(data.encoded(split)):,} ({too_long:,} were too long)"
        )
    table.add_row("optimizer steps an epoch", f"{steps:,}")
    ended = [said for said, _, _ in ends(cfg.trainer, 0, 0, batches)]
    table.add_row("the run ends at", " or ".join(ended) or "no step: it has no end")
    table.add_row("devices", f"{trainer.world_size} by {type(trainer.accelerator).__name__}")
    table.add_row("precision", str(trainer.precision))
    table.add_row("metrics", ", ".join(sorted(trainer.callback_metrics)))
    Console().print(table)
