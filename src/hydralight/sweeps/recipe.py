"""A trial as an experiment of its own, to be run again by its name."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from hydralight.config.composition import OWN_KEYS
from hydralight.config.project import config_dirs
from hydralight.config.search_path import typed_again
from hydralight.runs.files import write_text
from hydralight.runs.overrides import parsed
from hydralight.runs.recorded import recorded
from hydralight.runs.run import choices_of, experiment_of, typed_in
from hydralight.runs.secrets import REDACTED
from hydralight.sweeps.record import read_record

SEARCH = ("hparams_search", "sweep")  # what is of a sweep, and not of a run


def write_recipe(folder: Path, trial: Path) -> None:
    """Write `best.yaml`: the sweep's recipe with the trial's overrides, as an experiment.

    What only the user may say, such as `paths.log_dir`, stands in the line that runs it. Left out
    are what was redacted and, of another program's trial, groups that we do not have and
    what Hydra cannot read.

    Args:
        folder: The sweep's directory.
        trial: The trial's.
    """
    # another program's choices are told by our folders: they may be none of ours
    chosen = choices_of(trial) if read_record(folder) is not None else {}
    experiment = experiment_of(trial)
    groups: list[Any] = []
    values = OmegaConf.create()
    typed = [*again_of(folder), "experiment=best"]
    for text, override in _kept(folder, trial):
        if _is_the_programs(override):
            typed += [] if override.key_or_group == "trust" else [text]  # which is for one run
            continue
        group = override.key_or_group
        named = group if override.package is None else f"{group}@{override.package}"
        if override.is_delete():
            if _is_group(group):
                groups.append({f"override /{group}": None})  # nothing else can be said in YAML
        elif named not in chosen and not _is_group(group):
            OmegaConf.update(values, group, override.value(), force_add=True)
        elif named in chosen or _has_choice(group, override.value()):
            prefix = "" if override.is_add() else "override "
            groups.append({f"{prefix}/{named}": override.value()})
    ours = "experiment" in chosen or _has_choice("experiment", experiment)
    defaults = [*([experiment] if ours and experiment != "null" else []), *groups, "_self_"]
    configs = "configs" if typed[0] == "experiment=best" else typed[0].partition("=")[2]
    header = [
        "# @package _global_",
        f"# python train.py {shlex.join(typed)}",
        f"# Trial {trial.name} of the sweep {folder.name}; "
        f"copy this file to {configs}/experiment/.",
    ]
    body = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults}))
    rest = OmegaConf.to_yaml(values) if len(values) else ""
    lines = [" ".join(said.split()) for said in header]  # a path may have any signs in it
    write_text(folder / "best.yaml", "\n".join([*lines, body + rest]))


def again_of(folder: Path) -> list[str]:
    """Return what has to be typed again for the folders of configs that a sweep was begun with."""
    begun = folder / "sweep.json"
    return typed_again(recorded(begun)) if begun.is_file() else []


def typed_for(folder: Path, trial: Path) -> list[str]:
    """Return the overrides that a single run repeats a trial with, as they can be typed.

    Args:
        folder: The sweep's directory.
        trial: The trial's.
    """
    own = [text for text, override in _overrides(folder, trial) if _root(override) not in SEARCH]
    return [*again_of(folder), *own]


def _kept(folder: Path, trial: Path) -> Iterator[tuple[str, Override]]:
    """Yield what is of a trial in a recipe, which has its own base."""
    for text, override in _overrides(folder, trial):
        if _root(override) not in ("experiment", *SEARCH):
            yield text, override


def _is_the_programs(override: Override) -> bool:
    """Whether an override is refused where a recipe has it."""
    key = override.key_or_group.replace("/", ".")
    return any(key == own or key.startswith(f"{own}.") for own in OWN_KEYS)


def _overrides(folder: Path, trial: Path) -> Iterator[tuple[str, Override]]:
    """Yield what a trial sets, as text and as Hydra reads it, except what was redacted.

    A trial's own file also has what the sweep has added to it, such as a group of W&B's. Of a sweep
    of ours it is therefore what was typed, with the trial's values of what was swept.
    """
    record, begun = read_record(folder), folder / "sweep.json"
    pairs = _parsed(typed_in(trial))
    if record is not None and begun.is_file():
        swept = [(t, o) for t, o in pairs if _key(o) in record.swept]
        fixed = [(t, o) for t, o in _parsed(recorded(begun)) if not _sweeps(o)]
        last = {_key(o): (t, o) for t, o in swept}  # a value may also have been typed for all
        pairs = [*((t, o) for t, o in fixed if _key(o) not in last), *last.values()]
    for text, override in pairs:
        if _root(override) != "hydra" and not _sweeps(override):
            yield text, override


def _parsed(texts: Iterable[Any]) -> list[tuple[str, Override]]:
    found = [(str(text), parsed(str(text))) for text in texts if REDACTED not in str(text)]
    return [(text, override) for text, override in found if override is not None]


def _sweeps(override: Override) -> bool:
    return bool(override.is_sweep_override())


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _root(override: Override) -> str:
    return re.split("[./]", override.key_or_group)[0]


def _is_group(key: str) -> bool:
    return any((folder / key).is_dir() for folder in config_dirs())


def _has_choice(group: str, choice: Any) -> bool:
    """Whether a group, in any folder of configs, has all that is chosen of it."""
    names = choice if isinstance(choice, list) else [choice]
    files = [[folder / group / f"{name}.yaml" for folder in config_dirs()] for name in names]
    return all(any(path.is_file() for path in places) for places in files)
