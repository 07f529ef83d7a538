"""A run directory: how it is found, what it holds, and its metrics."""

import csv
import io
import json
import logging
import re
import shutil
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from hydralight.errors import UserError, first_line, told
from hydralight.runs.checksums import is_adapter, verify
from hydralight.runs.files import steadily, write_text
from hydralight.runs.reading import read_json, read_or_set_aside, read_yaml
from hydralight.runs.rows import ANEW, Count, read_rows
from hydralight.runs.sealed import sealed_json
from hydralight.runs.weights import check_weights_are_there

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


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
        advice = "a resume of the run writes it again"
        return read_yaml(self.path / "config.yaml", DictConfig, advice)

    @property
    def metrics(self) -> dict[str, Any]:
        """`last`, `best` and `test`, as in `metrics.json`."""
        return read_metrics(self.path)

    @property
    def history(self) -> "pd.DataFrame":
        """Every logged row, as in `metrics.csv`."""
        return read_history(self.path)

    @cached_property
    def model(self) -> "PreTrainedModel":
        """The best model, in evaluation mode, of the class it was saved from."""
        return steadily(self.model_dir, _load)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model_dir, trust_remote_code=False)

    @cached_property
    def processor(self) -> Any:
        """The tokenizer, or the image processor."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.model_dir, trust_remote_code=False)

    @property
    def model_dir(self) -> Path:
        """The exported model's folder."""
        return model_folder(self.path)

    def predictions(self, split: str = "test") -> list[dict[str, Any]]:
        """Return what an evaluation of that split wrote."""
        path = self.path / "predictions" / f"{split}.jsonl"
        if not path.is_file():
            raise UserError(f"{path} does not exist: run eval.py run={self.path} split={split}.")
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise UserError(f"{path} is damaged ({first_line(error)}): {ANEW}.") from error


def existing_run(value: str) -> Path:
    """Return the absolute path of a run directory, or raise a `UserError`."""
    path = Path(value).expanduser().resolve()
    if not path.is_dir():
        raise UserError(f"there is no run at {value}.")
    if not (path / ".hydra" / "config.yaml").is_file():
        raise UserError(f"{value} is no run directory: it has no .hydra/config.yaml.")
    return path


def latest_run(log_dir: Path) -> Path:
    """Return the training that was begun last; a link to a run is none.

    It is for the command to say what it lacks: an older run would be another one.
    """
    folder = log_dir / "train" / "runs"
    runs = [
        path
        for path in folder.glob("*/")
        if not path.is_symlink() and (path / ".hydra" / "config.yaml").is_file()
    ]
    if not runs:
        raise UserError(f"there is no run in {folder}.")
    return max(runs, key=lambda path: (begun_at(path), path.name)).resolve()


def begun_at(run_dir: Path) -> float:
    """Return when a run was begun, in seconds since 1970: it says so, or else its files do."""
    path = run_dir / "environment.json"
    try:
        content = read_json(path, dict, "its files' time is taken") if path.is_file() else {}
        return datetime.fromisoformat(content["time"]).timestamp()
    except (UserError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, UserError):
            log.warning("%s", error)
        return (run_dir / ".hydra" / "config.yaml").stat().st_mtime


def _load(folder: Path) -> "PreTrainedModel":
    """Load a model of the class that it was saved from."""
    import transformers

    from hydralight.model_configs import check_kernels, read_config

    config = read_config(str(folder))
    check_kernels(str(folder), config)
    name = next(iter(config.architectures or ()), None)
    kind = getattr(transformers, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise UserError(
            f"{folder}: architectures in config.json is {name}, which is no model of "
            "transformers: load it with your own class from that folder."
        )
    if is_adapter(folder):
        from hydralight.models import Pretrained

        return Pretrained(checkpoint=str(folder))(kind).eval()
    with told(f"{folder} cannot be loaded"):
        return kind.from_pretrained(folder, config=config, trust_remote_code=False)


def model_folder(run_dir: Path) -> Path:
    """Return a run's exported model, whose files have been checked, or raise a `UserError`."""

    def checked(folder: Path) -> Path:
        if not (folder / "config.json").is_file() and not is_adapter(folder):
            check_weights_are_there(run_dir)
            raise UserError(f"{run_dir} has no model: it had no evaluation yet, or it was deleted.")
        verify(folder)
        return folder

    return steadily(run_dir / "model", checked)


def own_config(run_dir: Path) -> DictConfig:
    """Return the config that a run was composed from, its interpolations as they were."""
    advice = "restore it from a copy, as nothing else says what the run is"
    return read_yaml(run_dir / ".hydra" / "config.yaml", DictConfig, advice)


def choices_of(run_dir: Path) -> dict[str, Any]:
    """Return what a run was composed from: the choice of each group, as it stands, unresolved."""
    path = run_dir / ".hydra" / "hydra.yaml"
    advice = "restore it from a copy, or delete it (only the names of choices are read from it)"
    own = read_yaml(path, DictConfig, advice) if path.is_file() else OmegaConf.create()
    node = own.get("hydra") if isinstance(own, DictConfig) else None
    for key in ("runtime", "choices"):
        node = node._get_node(key) if isinstance(node, DictConfig) else None
    if not isinstance(node, DictConfig) or node._is_none():
        return {}
    return {str(key): getattr(node._get_node(key), "_value", lambda: None)() for key in node}


def experiment_of(run_dir: Path) -> str:
    """Return the name of the recipe that a run was composed from, or "null".

    Raises:
        UserError: it is no plain name.
    """
    name = choices_of(run_dir).get("experiment") or "null"
    if not re.fullmatch(r"\w[\w.+-]*(/\w[\w.+-]*)*", str(name)):
        path = run_dir / ".hydra" / "hydra.yaml"
        raise UserError(f"{path}: hydra.runtime.choices.experiment is no name of a recipe.")
    return str(name)


def typed_in(run_dir: Path) -> list[str]:
    """Return the overrides that a run was composed with; none where they are not recorded."""
    path = run_dir / ".hydra" / "overrides.yaml"
    return [str(text) for text in read_yaml(path, ListConfig, ANEW)] if path.is_file() else []


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """Return `metrics.json`, or an empty dict; a warning tells of one that is damaged."""
    return read_or_set_aside(run_dir / "metrics.json", _are_metrics, aside=False)


def _are_metrics(content: dict[str, Any]) -> bool:
    return all(isinstance(v, dict) for k, v in content.items() if k not in ("status", "logged"))


def read_history(run_dir: Path) -> "pd.DataFrame":
    """Return the rows of `metrics.csv`; a last one that is being written is left out.

    Raises:
        UserError: there are none, or the file is damaged. What a value was is known of a run that
            has finished.
    """
    import pandas as pd

    path = run_dir / "metrics.csv"
    if not path.is_file():
        raise UserError(f"{path} does not exist: nothing has been logged.")
    columns, rows = read_rows(path)
    known = read_metrics(run_dir).get("logged")
    if known is not None and known != str(Count(rows)):
        raise UserError(f"{path} is damaged (it holds a value that was not logged): {ANEW}.")
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    text.seek(0)
    try:
        return pd.read_csv(text)
    except ValueError as error:  # pandas' own are of this kind
        raise UserError(f"{path} is damaged ({first_line(error)}): {ANEW}.") from error


def update_metrics(run_dir: Path, **values: Any) -> None:
    """Set top-level entries of `metrics.json`; None removes one, and a damaged file goes aside."""
    path = run_dir / "metrics.json"
    content = {**read_or_set_aside(path, _are_metrics), **values}
    content = {name: value for name, value in content.items() if value is not None}
    write_text(path, sealed_json(content))


# What a process has written by the time it trains; the log is named by the command.
AT_THE_START = {".hydra", ".lock", "config.yaml", "environment.json", "tensorboard", "wandb"}
AT_THE_START |= {"train.log", "eval.log", "predict.log", "publish.log"}


def is_unused(run_dir: Path) -> bool:
    """Whether a run has not come to anything yet; not where anything else lies in its directory."""
    if not run_dir.is_dir():
        return False
    names = {path.name for path in run_dir.iterdir()} - AT_THE_START
    return not names or (names == {"metrics.json"} and read_metrics(run_dir).keys() <= {"status"})


def remove_if_unused(run_dir: Path) -> None:
    """Remove the directory of a run that failed before it came to anything."""
    if is_unused(run_dir):
        shutil.rmtree(run_dir, ignore_errors=True)
