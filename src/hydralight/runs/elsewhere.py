"""A run that goes on, or is evaluated, on the devices that another config of `trainer` names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydralight.config.project import config_dirs
from hydralight.errors import UserError, did_you_mean
from hydralight.runs.overrides import key_of, quoted, value_of
from hydralight.runs.run import own_config

GROUP = "trainer"
DEVICES: dict[str, Any] = {  # what a config of the group says of them, and what it leaves unsaid
    "accelerator": "auto",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
}


def on_other_devices(
    run_dir: Path, before: Sequence[str], arguments: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Write `trainer=fsdp` as the keys that say where a run is computed; the rest stays the run's.

    A whole group would bring its defaults too, in the place of what the run was begun with.

    Args:
        run_dir: The run whose config is taken.
        before: What earlier resumes have changed.
        arguments: What is typed.

    Returns:
        What is left of the earlier changes, and what is typed, so written.

    Raises:
        UserError: the group has no config of that name.
    """
    named = [a for a in arguments if key_of(a) == GROUP]
    name = value_of(GROUP, named)
    if not isinstance(name, str):
        return list(before), list(arguments)
    config = {**DEVICES, **_devices_of(name)}
    own = own_config(run_dir).get(GROUP)
    had = own.get("strategy") if isinstance(own, DictConfig) else None
    written = [f"++{GROUP}.{key}={as_value(value)}" for key, value in config.items()]
    # what the run had is not to be merged into it, nor what an earlier resume has set
    written.insert(0, f"~{GROUP}.strategy" if had is not None else f"++{GROUP}.strategy=auto")
    keys = [f"{GROUP}.{key}" for key in DEVICES]
    left = [b for b in before if not any(f"{key_of(b)}.".startswith(f"{k}.") for k in keys)]
    place = arguments.index(named[0])
    first, rest = arguments[:place], [a for a in arguments[place:] if a not in named]
    return left, [*first, *written, *rest]


def _devices_of(name: str) -> dict[str, Any]:
    """Return what a config of the group says of devices, and those that it is built on."""
    files = [folder / GROUP / f"{name}.yaml" for folder in config_dirs()]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        there = sorted({f.stem for d in config_dirs() for f in (d / GROUP).glob("*.yaml")})
        raise UserError(f"there is no {GROUP}={name}{did_you_mean(name, there)}")
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    found: dict[str, Any] = {}
    for base in content.get("defaults", ()):
        if isinstance(base, str) and base != "_self_":
            found |= _devices_of(base)
    return found | {str(key): value for key, value in content.items() if key in DEVICES}


def as_value(value: Any) -> str:
    """Return a plain value as Hydra reads it in an override."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_value(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_value, value)) + "]"
    if isinstance(value, str):
        return quoted(value)
    return "null" if value is None else str(value).lower()
