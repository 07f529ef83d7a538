"""Hydralight: Hydra composes the experiment, Lightning runs it, Hugging Face brings the rest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydralight.runs import Run

__all__ = ["Run", "train"]


def train(overrides: Sequence[str] = ()) -> "Run | None":
    """Train as `python train.py <overrides>` does, in this process, and return the run.

    With `check=true` and `debug=fdr` there is none to return.

    Raises:
        hydralight.config.UserError: what the command line would say in one sentence.
    """
    from hydralight.cli import start
    from hydralight.runs import Run

    path = start("train", overrides)
    return None if path is None else Run(path)


def __getattr__(name: str) -> Any:
    if name == "Run":  # imported when it is asked for: the scripts start quickly
        from hydralight.runs import Run

        return Run
    raise AttributeError(name)
