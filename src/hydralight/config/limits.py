"""The numbers of `trainer`: which of them are refused, and where they end a run."""

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from omegaconf import DictConfig

from hydralight.errors import UserError

Number = int | float
MAX_EPOCHS, MAX_STEPS = "trainer.max_epochs", "trainer.max_steps"


def _batches(value: Number) -> bool:
    return 0 <= value <= 1 or (1 < value < math.inf and value == int(value))


def _interval(value: Number) -> bool:
    return value >= 1 if isinstance(value, int) else 0 < value <= 1


BATCHES = "a number of batches, or a part of them in 0..1"
# what a number should be, as a test that NaN fails, and in words; null and texts are the trainer's
RANGES: dict[str, tuple[Callable[[Number], bool], str]] = {
    "max_epochs": (lambda v: v == -1 or 0 < v < math.inf, "above 0, or -1 for no end"),
    "max_steps": (lambda v: v >= -1, "0 or more, or -1 for no end"),
    "min_epochs": (lambda v: v >= 0, "0 or more"),
    "min_steps": (lambda v: v >= 0, "0 or more"),
    "accumulate_grad_batches": (lambda v: v >= 1, "1 or more"),
    "gradient_clip_val": (lambda v: v > 0, "above 0, or null for no clipping"),
    "val_check_interval": (_interval, "a number of steps from 1, or a part of an epoch in 0..1"),
    "check_val_every_n_epoch": (lambda v: v >= 1, "1 or more"),
    "log_every_n_steps": (lambda v: v >= 0, "0 or more"),
    "limit_train_batches": (lambda v: v > 0 and _batches(v), BATCHES),
    "limit_val_batches": (_batches, BATCHES),
    "limit_test_batches": (_batches, BATCHES),
    "limit_predict_batches": (_batches, BATCHES),
    "overfit_batches": (_batches, BATCHES),
}


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Check the numbers of `trainer`, whose types have been checked.

    Raises:
        UserError: one is out of its range.
    """
    for key, (fits, words) in RANGES.items():
        value = trainer.get(key)
        if isinstance(value, Number) and not fits(value):
            raise UserError(f"trainer.{key}={value} should be {words}.")


def settle_end(trainer: DictConfig, typed: set[str]) -> None:
    """Let `max_steps` alone decide on the end, unless `max_epochs` has been typed too.

    Recipes and defaults have a `max_epochs`, which nobody who types `max_steps` has in mind. Where
    both are typed, whichever comes first ends the run.

    Args:
        trainer: The group, which is changed.
        typed: Keys that were typed for this run.
    """
    if trainer.get("max_steps", -1) >= 0 and MAX_EPOCHS not in typed:
        trainer.max_epochs = -1


def ends(
    trainer: Mapping[str, Any], step: int, epochs: int, batches_per_epoch: int
) -> Iterator[tuple[str, int, int]]:
    """Yield each key that ends a run: how it is set, where the run is, and where its end is.

    Args:
        trainer: The group, settled.
        step: Optimizer steps that have been done.
        epochs: Epochs that have been done.
        batches_per_epoch: How many batches of a device an epoch has.
    """
    max_epochs, max_steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if max_epochs is not None and max_epochs >= 0:
        said = f"{MAX_EPOCHS}={max_epochs}"
        if max_epochs == int(max_epochs):
            yield said, epochs, int(max_epochs)
        else:
            steps = math.ceil(batches_per_epoch / trainer.get("accumulate_grad_batches", 1))
            yield said, step, math.ceil(Fraction(str(max_epochs)) * steps)
    if max_steps >= 0:
        yield f"{MAX_STEPS}={max_steps}", step, max_steps
