"""What trains a task: its optimizer, its schedule, and the weights that are evaluated."""

import math
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer

from hydralight import adalora
from hydralight.errors import UserError, did_you_mean
from hydralight.optim.averaged import averages
from hydralight.optim.build import build
from hydralight.optim.schedules import counted
from hydralight.tasks.data import TaskData
from hydralight.tasks.fits import check_training


def configured(task: Any, steps: int | None) -> OptimizerLRScheduler:
    """Build the optimizer of a task and its schedule, as Lightning takes them.

    Args:
        task: With its model.
        steps: Length of the schedule; the trainer's own unless said.

    Raises:
        UserError: they do not go together, with the task, or with what is resumed.
    """
    trainer, recipe, scheduler = task.trainer, task.scheduler, None
    optimizer = build(task.optimizer, task.model, scaler=trainer.precision == "16-mixed")
    check_averages(optimizer, trainer.callbacks)
    adalora.follow(optimizer, task.model, trainer, steps)
    if recipe is not None:
        total = steps or trainer.estimated_stepping_batches
        if total == float("inf"):
            raise UserError("the schedule needs an end: set trainer.max_epochs or max_steps.")
        recipe = counted(recipe, lambda: tokens_per_step(task.datamodule, trainer))
        scheduler = recipe(optimizer, int(total))
        check_monitored(scheduler, task)
    loaded, task._loaded = task._loaded, None
    if loaded is not None:
        check_training(loaded, task, optimizer, scheduler)
    if scheduler is None:
        return optimizer
    config: Any = {"scheduler": scheduler, "interval": "step"}
    if hasattr(scheduler, "monitor"):  # the task itself takes its steps
        config |= {"interval": "epoch", "reduce_on_plateau": False}
    return {"optimizer": optimizer, "lr_scheduler": config}


def optimized(trainer: Trainer) -> tuple[Optimizer, Any]:
    """Return the optimizer of a training, and its schedule or None."""
    schedule = next((one.scheduler for one in trainer.lr_scheduler_configs), None)
    return trainer.optimizers[0], schedule


def check_averages(optimizer: Any, callbacks: Sequence[Callback]) -> None:
    """Refuse callbacks that average the weights of an optimizer that has an average of its own."""
    if averages(optimizer) and any(isinstance(one, WeightAveraging) for one in callbacks):
        raise UserError(
            f"{type(optimizer).__name__} averages weights itself: leave callbacks=ema out."
        )


def check_monitored(scheduler: Any, task: Any) -> None:
    """Check that there is the metric that a schedule goes by.

    Raises:
        UserError: no evaluation logs it.
    """
    monitor = getattr(scheduler, "monitor", None)
    if monitor is None:
        return
    if not task.trainer.limit_val_batches:
        raise UserError(
            f"the schedule goes by {monitor}, and nothing is evaluated: choose scheduler=linear, "
            "or leave trainer.limit_val_batches out."
        )
    names, others = task.evaluated_names()
    if monitor not in names and not others:
        raise UserError(
            f"scheduler.monitor={monitor} is not among the metrics of this data: "
            f"{', '.join(sorted(names))}{did_you_mean(monitor, names)}"
        )


def rate_of(optimizer: Optimizer) -> dict[str, Any]:
    """Return the learning rate that a step logs; nothing of an optimizer that makes its own."""
    rate = optimizer.param_groups[0]["lr"]
    return {} if rate is None else {"lr": rate}


def follow_evaluation(trainer: Trainer) -> None:
    """Let a schedule that goes by evaluations take the step of one that has just been."""
    if trainer.state.fn != "fit" or trainer.sanity_checking:
        return
    for config in trainer.lr_scheduler_configs:
        scheduler: Any = config.scheduler
        if hasattr(scheduler, "monitor"):
            scheduler.step(float(trainer.callback_metrics[scheduler.monitor]))


def tokens_per_step(data: TaskData, trainer: Trainer) -> float | None:
    """Return the mean number of tokens in an optimizer step, without padding; None without any."""
    rows = data.encoded("train")
    if "length" not in getattr(rows, "column_names", ()):
        return None
    lengths = rows.with_format("numpy")["length"][:]
    steps = math.ceil(len(data.train_dataloader()) / trainer.accumulate_grad_batches)
    return float(lengths.sum()) / steps
