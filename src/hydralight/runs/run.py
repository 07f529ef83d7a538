"""A run directory: how it is found, what it holds, and its metrics."""

import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from hydralight.errors import UserError
from hydralight.runs.files import restore_folder, write_text

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Run:
    """What a run directory holds.

    Args:
        path: The directory.

    Raises:
        UserError: there is no run in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = existing_run(str(path))

    @cached_property
    def config(self) -> DictConfig:
        """The fully resolved config."""
        config = OmegaConf.load(self.path / "config.yaml")
        assert isinstance(config, DictConfig)
        return config

    @property
    def metrics(self) -> dict[str, Any]:
        """`last`, `best` and `test`, as in `metrics.json`."""
        return read_metrics(self.path)

    @property
    def history(self) -> "pd.DataFrame":
        """Every logged row, as in `metrics.csv`."""
        import pandas as pd

        return pd.read_csv(self.path / "metrics.csv")

    @cached_property
    def model(self) -> "PreTrainedModel":
        """The best model, in evaluation mode, of the class it was saved from."""
        import transformers

        config = transformers.AutoConfig.from_pretrained(self.model_dir)
        return getattr(transformers, config.architectures[0]).from_pretrained(self.model_dir)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model_dir)

    @cached_property
    def processor(self) -> Any:
        """The tokenizer, or the image processor."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.model_dir)

    @property
    def model_dir(self) -> Path:
        """The exported model's folder."""
        return model_folder(self.path)

    def predictions(self, split: str = "test") -> list[dict[str, Any]]:
        """Return what an evaluation of that split wrote."""
        path = self.path / "predictions" / f"{split}.jsonl"
        if not path.is_file():
            raise UserError(f"{path} does not exist: run eval.py run={self.path} split={split}.")
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def existing_run(value: str) -> Path:
    """Return the absolute path of a run directory, or raise a `UserError`."""
    path = Path(value).expanduser().resolve()
    if not path.is_dir():
        raise UserError(f"there is no run at {value}.")
    if not (path / ".hydra" / "config.yaml").is_file():
        raise UserError(f"{value} is no run directory: it has no .hydra/config.yaml.")
    return path


def latest_run(command: str, log_dir: Path) -> Path:
    """Return the newest run that can be resumed (`train`) or read (`eval`, `predict`)."""
    folder = log_dir / "train" / "runs"
    needed, pattern = "model/config.json", "model/config.json"
    if command == "train":  # a run that was killed in its first checkpoint may have no last.ckpt
        needed, pattern = "checkpoints/last.ckpt", "checkpoints/*.ckpt"
    for path in sorted(folder.glob("*/"), reverse=True):
        if (path / ".hydra" / "config.yaml").is_file() and any(path.glob(pattern)):
            return path.resolve()
    raise UserError(f"there is no run with {needed} in {folder}.")


def model_folder(run_dir: Path) -> Path:
    """Return a run's exported model, or raise a `UserError`."""
    folder = run_dir / "model"
    restore_folder(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{run_dir} has no model yet: it stopped before its first evaluation.")
    return folder


def experiment_of(run_dir: Path) -> str:
    """Return the name of the recipe that a run was composed from, or "null"."""
    path = run_dir / ".hydra" / "hydra.yaml"
    own = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
    return OmegaConf.select(own, "hydra.runtime.choices.experiment") or "null"


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """Return `metrics.json`, or an empty dict."""
    path = run_dir / "metrics.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def update_metrics(run_dir: Path, **values: Any) -> None:
    """Set top-level entries of `metrics.json`."""
    content = {**read_metrics(run_dir), **values}
    write_text(run_dir / "metrics.json", json.dumps(content, indent=2) + "\n")


def remove_if_unused(run_dir: Path) -> None:
    """Remove the directory of a run that failed before it came to anything."""
    begun = ["metrics.csv", "checkpoints", "model", "predictions", "samples"]
    begun.append("output.log")  # of a trial, whose end is reported
    if not any((run_dir / name).exists() for name in begun) and (run_dir / ".hydra").is_dir():
        shutil.rmtree(run_dir, ignore_errors=True)
