"""What a run or a sweep has recorded of itself, and what of it is taken up: it may be anybody's."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from hydralight.errors import UserError
from hydralight.runs.files import refuse_links
from hydralight.runs.overrides import EVALUATING, key_of, parsed, with_own_configs
from hydralight.runs.reading import Damaged, read_json
from hydralight.runs.run import own_config
from hydralight.runs.secrets import REDACTED

# What a record of a run or a sweep may not say, and what of it is said anew each time.
OF_THE_PROGRAM = ("hydra", "trust", "resume", "sweep", *EVALUATING)
PLACES = ("hydra.run", "hydra.sweep", "hydra.mode", "paths.log_dir")


def config_of(run_dir: Path) -> DictConfig:
    """Return a run's own unresolved config, without what is no experiment's.

    It is handed to Hydra as it stands. As a file in Hydra's search path it could choose further
    configs, of its own folder too, and configure Hydra itself.

    Raises:
        UserError: it tries to.
    """
    path = run_dir / ".hydra" / "config.yaml"
    config = own_config(run_dir)
    for key in ("hydra", "defaults"):
        if key in config:
            raise UserError(f"{path} has '{key}', which is not taken from a run: take it out.")
    for key in EVALUATING:
        config.pop(key, None)
    if not isinstance(config._get_node("paths"), DictConfig):
        config.paths = {}
    config.paths.output_dir = "${hydra:runtime.output_dir}"
    config.trust, config.resume, config.sweep = [], None, None
    return config


def earlier_overrides(run_dir: Path) -> list[str]:
    """Return what earlier resumes of a run have changed in its config.

    Raises:
        UserError: it holds more than overrides of an experiment.
    """
    path = run_dir / "resume.json"
    return [a for a in recorded(path) if _is_an_experiments(a, path)] if path.is_file() else []


def recorded(path: Path) -> list[str]:
    """Return the overrides that a file holds, which is anybody's."""
    advice = "restore it from a copy, or delete it and type again what it said"
    texts = read_json(path, list, advice)
    if not all(isinstance(text, str) for text in texts):
        raise Damaged(f"{path} is damaged (it should list texts): {advice}.")
    return texts


def _is_an_experiments(argument: str, path: Path) -> bool:
    """Whether a recorded override is one of an experiment; False where it can be left out.

    Raises:
        UserError: it would say more: a flag, a key of the program, or nothing that can be read.
    """
    override = parsed(argument)
    if override is None:
        raise UserError(f"{path}: '{argument}' is no override: take it out.")
    key = override.key_or_group.replace("/", ".")
    if any(key == own or key.startswith(f"{own}.") for own in PLACES):
        return False
    if override.key_or_group == "hydra.searchpath" and argument in with_own_configs([]):
        return False
    if override.key_or_group == "hydra.searchpath":
        raise UserError(
            f"{path}: it was begun with further folders of configs, which are taken only from what "
            f"is typed: type --config-dir=…, or {argument}"
        )
    if _root(key) == "hydra" and override.package is None and _chooses_launcher(override):
        return True
    roots = {_root(key), _root(override.package or "")}
    if roots & set(OF_THE_PROGRAM) or key in ("paths", "paths.output_dir"):
        raise UserError(
            f"{path} sets {override.key_or_group}, which is taken only from what is typed: take "
            f"it out there, and type {argument} if you want it."
        )
    return True


def _chooses_launcher(override: Override) -> bool:
    """Whether an override names an installed launcher, or sets a number or a switch of it."""
    if override.is_delete():
        return False
    value = override.value()
    if override.key_or_group == "hydra/launcher":
        return isinstance(value, str) and value.isidentifier()
    plain = value is None or isinstance(value, bool | int | float)
    return override.key_or_group.startswith("hydra.launcher.") and plain


def _root(key: str) -> str:
    return key.split(".")[0]


def begun_with(sweep_dir: Path, arguments: Sequence[str]) -> list[str]:
    """Return of what began a sweep what is not typed anew.

    Raises:
        UserError: it holds more than overrides of an experiment, or a secret that is hidden now.
    """
    refuse_links(sweep_dir)
    path = sweep_dir / "sweep.json"
    anew = {key_of(argument) for argument in arguments} - {None}
    left = [argument for argument in recorded(path) if key_of(argument) not in anew]
    kept = [argument for argument in left if _is_an_experiments(argument, path)]
    for argument in kept:
        if REDACTED in argument:
            key = argument.split("=")[0]
            raise UserError(f"{key} was redacted in the sweep's record: give it again as {key}=….")
    return kept
