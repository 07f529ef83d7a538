"""Where the numbers of `trainer` end a run."""

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from omegaconf import DictConfig

MAX_EPOCHS, MAX_STEPS = "trainer.max_epochs", "trainer.max_steps"


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
    trainer: Mapping[str, Any], step: int, epochs: int, steps_per_epoch: int
) -> Iterator[tuple[str, int, int]]:
    """Yield each key that ends a run: how it is set, where the run is, and where its end is.

    Args:
        trainer: The group, settled.
        step: Optimizer steps that have been done.
        epochs: Epochs that have been done.
        steps_per_epoch: How many an epoch has.
    """
    max_epochs, max_steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if max_epochs is not None and max_epochs >= 0:
        said = f"{MAX_EPOCHS}={max_epochs}"
        if max_epochs == int(max_epochs):
            yield said, epochs, int(max_epochs)
        else:
            yield said, step, math.ceil(Fraction(str(max_epochs)) * steps_per_epoch)
    if max_steps >= 0:
        yield f"{MAX_STEPS}={max_steps}", step, max_steps


def last_step(trainer: Mapping[str, Any], steps_per_epoch: int) -> int:
    """Return after how many optimizer steps a run ends; those of an epoch if it has no end.

    Args:
        trainer: As in `ends`.
        steps_per_epoch: The same.
    """
    max_epochs, max_steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    found = [max_steps] if max_steps >= 0 else []
    if max_epochs is not None and max_epochs >= 0:
        found.append(math.ceil(Fraction(str(max_epochs)) * steps_per_epoch))
    return min(found, default=steps_per_epoch)
