"""Hydralight: Hydra composes the experiment, Lightning runs it, Hugging Face brings the rest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydralight.runs import Run

__all__ = ["Run", "train"]


def train(overrides: Sequence[str] = ()) -> "Run":
    """Train as `python train.py <overrides>` does, in this process, and return the run.

    Raises:
        hydralight.config.UserError: what the command line would say in one sentence.
    """
    from hydralight.cli import start
    from hydralight.runs import Run

    return Run(start("train", overrides))


def __getattr__(name: str) -> Any:
    if name == "Run":  # imported when it is asked for: the scripts start quickly
        from hydralight.runs import Run

        return Run
    raise AttributeError(name)
