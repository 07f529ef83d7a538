"""Hydralight: Hydra composes the experiment, Lightning runs it, Hugging Face brings the rest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydralight.notebook import Run

__all__ = ["Run", "evaluate", "predict", "publish", "train"]


def train(overrides: Sequence[str] = ()) -> "Run | None":
    """Train as `python train.py <overrides>` does, in this process, and return the run.

    With `check=true` and `debug=fdr` there is none to return.

    Raises:
        hydralight.errors.UserError: what the command line would say in one sentence.
    """
    from hydralight.commands import start
    from hydralight.notebook import Run

    path = start("train", overrides)
    return None if path is None else Run(path)


def evaluate(overrides: Sequence[str]) -> dict[str, float]:
    """Evaluate as `python eval.py <overrides>` does, and return the metrics by name.

    Raises:
        hydralight.errors.UserError: what the command line would say in one sentence.
    """
    from hydralight.commands import call

    return call("eval", overrides)[1]


def predict(overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Predict as `python predict.py <overrides>` does, and return a dict a row.

    Raises:
        hydralight.errors.UserError: what the command line would say in one sentence.
    """
    from hydralight.commands import call

    return call("predict", overrides)[1]


def publish(overrides: Sequence[str]) -> str:
    """Publish as `python publish.py <overrides>` does, and return the address of the commit.

    Raises:
        hydralight.errors.UserError: what the command line would say in one sentence.
    """
    from hydralight.commands import call

    return str(call("publish", overrides)[1])


def __getattr__(name: str) -> Any:
    if name == "Run":  # imported when it is asked for: the scripts start quickly
        from hydralight.notebook import Run

        return Run
    raise AttributeError(name)
