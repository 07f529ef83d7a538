"""A trial as an experiment of its own, to be run again by its name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from hydralight.config.project import config_dirs
from hydralight.runs.files import write_text
from hydralight.runs.overrides import parsed
from hydralight.runs.run import experiment_of, typed_in
from hydralight.runs.secrets import REDACTED


def write_recipe(folder: Path, trial: Path) -> None:
    """Write `best.yaml`: the sweep's recipe with the trial's overrides, as an experiment.

    Left out are what was redacted and, of another program's trial, groups that we do not have and
    what Hydra cannot read.

    Args:
        folder: The sweep's directory.
        trial: The trial's.
    """
    experiment = experiment_of(trial)
    groups: list[Any] = []
    values = OmegaConf.create()
    for override in _kept(trial):
        group = override.key_or_group
        if not _is_group(group):
            OmegaConf.update(values, group, override.value(), force_add=True)
        elif _has_choice(group, override.value()):
            package = "" if override.package is None else f"@{override.package}"
            prefix = "" if override.is_add() else "override "
            groups.append({f"{prefix}/{group}{package}": override.value()})
    ours = _has_choice("experiment", experiment)
    defaults = [*([experiment] if ours else []), *groups, "_self_"]
    header = [
        "# @package _global_",
        "# python train.py experiment=best",
        f"# Trial {trial.name} of the sweep {folder.name}; copy this file to configs/experiment/.",
    ]
    body = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults}))
    rest = OmegaConf.to_yaml(values) if len(values) else ""
    write_text(folder / "best.yaml", "\n".join([*header, body + rest]))


def _kept(trial: Path) -> Iterator[Override]:
    """Yield what a trial's overrides set, except its recipe and its search."""
    for text in typed_in(trial):
        override = None if REDACTED in text else parsed(text)
        if override is None or override.is_delete() or override.is_sweep_override():
            continue
        if override.key_or_group.split(".")[0] not in ("experiment", "hparams_search"):
            yield override


def _is_group(key: str) -> bool:
    return any((folder / key).is_dir() for folder in config_dirs())


def _has_choice(group: str, choice: Any) -> bool:
    """Whether a group, in any folder of configs, has all that is chosen of it."""
    names = choice if isinstance(choice, list) else [choice]
    files = [[folder / group / f"{name}.yaml" for folder in config_dirs()] for name in names]
    return all(any(path.is_file() for path in places) for places in files)
