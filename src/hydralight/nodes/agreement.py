"""What processes of one run have to have in common, and in what one of them differs."""

from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hydralight.config.project import PACKAGE, projects
from hydralight.errors import UserError
from hydralight.nodes.ranks import Place
from hydralight.runs.environment import versions
from hydralight.runs.secrets import redact

SHOWN = 5  # differences in a sentence


def members(place: Place, trainer: DictConfig) -> int:
    """Return how many processes meet, of a config that has not been checked yet.

    Raises:
        UserError: neither the environment nor the config says it.
    """
    if place.world is not None and not place.leads:
        return place.world
    nodes, devices = trainer.get("num_nodes", 1), 1 if place.leads else trainer.get("devices", 1)
    if not (isinstance(nodes, int) and isinstance(devices, int) and devices > 0):
        raise UserError("set WORLD_SIZE, the number of processes on all nodes, on each of them.")
    return nodes * devices


def in_common(cfg: DictConfig) -> dict[str, str | None]:
    """Return what has to be the same in all processes, by what a sentence calls it.

    That is the config's values (unresolved, without secrets), versions, and code.
    """
    return {**_settings(cfg), **versions(), **_code()}


def difference(mine: Mapping[str, Any], firsts: Mapping[str, Any]) -> str:
    """Say in what a process differs from the first; nothing where it does not."""
    names = [*firsts, *(name for name in mine if name not in firsts)]
    said = [
        f"{name} is {mine.get(name, 'not there')} there and {firsts.get(name, 'not there')} here"
        for name in names
        if mine.get(name) != firsts.get(name)
    ]
    more = f", and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    return ", ".join(said[:SHOWN]) + more


def _settings(cfg: DictConfig) -> dict[str, str]:
    """Return the values of a config by their dotted keys."""
    found: dict[str, str] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, Mapping) and node:
            for key, child in node.items():
                walk(child, f"{path}.{key}" if path else str(key))
        else:
            found[path] = str(node)

    walk(redact(OmegaConf.to_container(cfg, resolve=False)), "")
    return found


def _code() -> dict[str, str]:
    """Return a digest of the code of this package, and of those that the user's projects name."""
    folders = {"hydralight": PACKAGE}
    for name in {name.split(".")[0] for one in projects() for name in one.whitelist}:
        with suppress(ImportError, ValueError):
            spec = find_spec(name)
            for place in (spec.submodule_search_locations or ()) if spec is not None else ():
                folders[name] = Path(place)
    return {f"the code of {name}": _digest(folder) for name, folder in sorted(folders.items())}


def _digest(folder: Path) -> str:
    digest = sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
