"""The run directory: where runs are, what is written about them, and how they are read."""

import json
import re
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from hydralight.config import CONFIG_DIR, UserError

REDACTED = "<redacted>"  # in the place of a secret

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


# ---------------------------------------------------------------- finding a run


def named_on_command_line(command: str, argv: list[str]) -> Path | None:
    """Return the run that `resume=` or `run=` names, and put its full path into `argv`.

    `latest` is resolved here, once, so that processes which repeat the command line agree.
    """
    key = "resume" if command == "train" else "run"
    for index, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        if index and name.lstrip("+") == key and value not in ("", "null"):
            value = value.strip("\"'")
            path = latest_run(command, argv) if value == "latest" else existing_run(value)
            argv[index] = f"{key}={path}"
            return path
    return None


def named_sweep(argv: Sequence[str]) -> Path | None:
    """Return the sweep that `sweep=` names.

    Raises:
        UserError: there is none.
    """
    for argument in argv[1:]:
        name, _, value = argument.partition("=")
        if name == "sweep" and value not in ("", "null"):
            path = Path(value.strip("\"'")).expanduser().absolute()
            if not (path / "sweep.json").is_file():
                raise UserError(f"there is no sweep at {value}: it has no sweep.json.")
            return path
    return None


def arguments_in_sweep(sweep_dir: Path, arguments: Sequence[str]) -> list[str]:
    """Return the arguments that go on with a sweep: what began it, and what is typed now."""
    begun = json.loads((sweep_dir / "sweep.json").read_text())
    typed = [a for a in arguments if not a.startswith(("sweep=", "-m", "--multirun"))]
    anew = {_key(argument) for argument in typed} | {"hydra.sweep.dir", "hydra.mode"}
    kept = [argument for argument in begun if _key(argument) not in anew]
    for argument in kept:
        if REDACTED in argument:
            key = _key(argument)
            raise UserError(f"{key} was redacted in the sweep's record: give it again as {key}=….")
    quoted = str(sweep_dir).replace("'", "\\'")
    return ["--multirun", *kept, *typed, f"hydra.sweep.dir='{quoted}'"]


def _key(argument: str) -> str:
    return argument.partition("=")[0].lstrip("+~")


def existing_run(value: str) -> Path:
    """Return the absolute path of a run directory, or raise a `UserError`."""
    path = Path(value).expanduser().resolve()
    if not path.is_dir():
        raise UserError(f"there is no run at {value}.")
    if not (path / ".hydra" / "config.yaml").is_file():
        raise UserError(f"{value} is no run directory: it has no .hydra/config.yaml.")
    return path


def latest_run(command: str, argv: Sequence[str]) -> Path:
    """Return the newest run that can be resumed (`train`) or read (`eval`, `predict`)."""
    folder = Path(log_dir(argv)) / "train" / "runs"
    needed = "checkpoints/last.ckpt" if command == "train" else "model/config.json"
    for path in sorted(folder.glob("*/"), reverse=True):
        if (path / ".hydra" / "config.yaml").is_file() and (path / needed).is_file():
            return path.resolve()
    raise UserError(f"there is no run with {needed} in {folder}.")


def log_dir(argv: Sequence[str]) -> str:
    """Return `paths.log_dir` as typed, or as set in configs/local, or the default."""
    for argument in reversed(argv):
        if argument.startswith("paths.log_dir="):
            return argument.partition("=")[2]
    local = CONFIG_DIR / "local" / "default.yaml"
    own = OmegaConf.load(local) if local.is_file() else OmegaConf.create()
    return str(OmegaConf.select(own, "paths.log_dir", default="logs"))


def arguments_in_run(command: str, run_dir: Path, arguments: Sequence[str]) -> list[str]:
    """Return Hydra's arguments for a command on a run's own config, in the run's directory."""
    quoted = str(run_dir).replace("'", "\\'")
    own = [
        f"hydra.run.dir='{quoted}'",
        "hydra.output_subdir=null",
        f"hydra.job.name={command}",
        f"hydra.searchpath=['file://{CONFIG_DIR}']",
        "hydra/job_logging=hydralight",
        f"+hydra.runtime.choices.experiment={experiment_of(run_dir)}",
    ]
    added = ("run=", "split=", "input=", "output=")  # keys that a training config does not have
    typed = [f"++{quoted_text(a)}" if a.startswith(added) else a for a in arguments]
    before = earlier_overrides(run_dir)
    # a relaunched rank comes with arguments that have been through here already
    return [a for a in [*own, *before] if a not in typed] + typed


def experiment_of(run_dir: Path) -> str:
    """Return the name of the recipe that a run was composed from, or "null"."""
    path = run_dir / ".hydra" / "hydra.yaml"
    own = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
    return OmegaConf.select(own, "hydra.runtime.choices.experiment") or "null"


def quoted_text(argument: str) -> str:
    """Quote the value of `input=`, which is anybody's text and need not be an override's."""
    name, _, value = argument.partition("=")
    if name.lstrip("+") != "input" or (value[:1] + value[-1:] in ("''", '""') and len(value) > 1):
        return argument
    value = value.replace("${", "\\${")  # no interpolation
    # backslashes before a quote, and at the end, would escape it
    value = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"{name}='{value}'"


def earlier_overrides(run_dir: Path) -> list[str]:
    """Return what earlier resumes of a run have changed in its config."""
    path = run_dir / "resume.json"
    return json.loads(path.read_text()) if path.is_file() else []


def model_folder(run_dir: Path) -> Path:
    """Return a run's exported model, or raise a `UserError`."""
    folder = run_dir / "model"
    restore_folder(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{run_dir} has no model yet: it stopped before its first evaluation.")
    return folder


# ---------------------------------------------------------------- writing about a run


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
    begun = ["metrics.json", "metrics.csv", "checkpoints", "model", "predictions", "samples"]
    begun.append("output.log")  # of a trial, whose end is reported
    if not any((run_dir / name).exists() for name in begun) and (run_dir / ".hydra").is_dir():
        shutil.rmtree(run_dir, ignore_errors=True)


# ---------------------------------------------------------------- files that are whole or not there


def write_text(path: Path, text: str) -> None:
    """Write a file that appears only when it is whole."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def fresh_folder(path: Path) -> Path:
    """Make an empty folder, in the place of what was there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def replace_folder(new: Path, old: Path) -> None:
    """Put a complete folder in the place of another; `restore_folder` mends an interruption."""
    previous = old.with_name(f"{old.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if old.exists():
        old.rename(previous)
    new.rename(old)
    shutil.rmtree(previous, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Take back the previous folder where a replacement was interrupted between its two steps."""
    previous = path.with_name(f"{path.name}.previous")
    if previous.exists() and not path.exists():
        previous.rename(path)
