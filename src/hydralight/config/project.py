"""Where configs are: the template's own, and those of a project that is built on it.

A project of one's own says in its `pyproject.toml` what of it is used; an installed package says
the same by an entry point. YAML cannot say it, as it may come with somebody's checkpoint.
"""

import os
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydralight.errors import UserError, did_you_mean

PACKAGE = Path(__file__).resolve().parents[1]
# a wheel carries the configs in the package; a checkout has them at its top
CONFIG_DIR = next(
    (p for p in (PACKAGE / "configs", PACKAGE.parents[1] / "configs") if p.is_dir()),
    PACKAGE / "configs",
)
KEYS = ("whitelist", "configs")
_looked_from: list[Path] = []  # in the place of the working directory


@dataclass(frozen=True)
class Project:
    """What is used of a project that is not the template.

    Args:
        whitelist: What its configs may name, such as `my_project.*`.
        configs: Its folder of configs, if it has one.
    """

    whitelist: tuple[str, ...] = ()
    configs: Path | None = None


@cache
def projects() -> tuple[Project, ...]:
    """Return the projects in use: that of the working directory, and installed ones.

    Raises:
        UserError: `[tool.hydralight]` in a `pyproject.toml` is not right.
    """
    return (*_of_checkout(), *_installed())


def look_from(folder: Path) -> None:
    """Find projects from a folder on, where the command was typed that this process works for."""
    if folder != Path.cwd():
        _looked_from[:] = [folder]
        projects.cache_clear()


def config_dirs() -> list[Path]:
    """Return all folders of configs, the template's first."""
    return [CONFIG_DIR, *(one.configs for one in projects() if one.configs is not None)]


def choices_of(group: str) -> list[Path]:
    """Return the YAML files of a group, of all folders of configs, the template's first."""
    return [file for dir_ in config_dirs() for file in sorted((dir_ / group).glob("*.yaml"))]


def _of_checkout() -> Iterator[Project]:
    """Read the nearest `[tool.hydralight]` of the user's at or above the working directory."""
    here = next(iter(_looked_from), Path.cwd())
    for folder in (here, *here.parents):
        path = folder / "pyproject.toml"
        if not path.is_file() or path.stat().st_uid not in (os.getuid(), 0):
            continue  # anybody may leave one in a folder above, such as /tmp
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}.") from error
        if isinstance(table, dict) and "hydralight" in table:
            if not isinstance(table["hydralight"], dict):
                raise UserError(f"{path}: [tool.hydralight] should be a table.")
            yield _project(table["hydralight"], path)
            return


def _project(table: dict[str, Any], path: Path) -> Project:
    for key in table:
        if key not in KEYS:
            raise UserError(
                f"{path}: [tool.hydralight] has no '{key}'{did_you_mean(key, KEYS)} "
                f"(there are: {', '.join(KEYS)})"
            )
    names, configs = table.get("whitelist", []), table.get("configs")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: whitelist in [tool.hydralight] is a list of dotted names.")
    if any(name.split(".")[0] in ("", "*") for name in names):
        raise UserError(f"{path}: a name in whitelist begins with a package, as my_project.*")
    folder = None if configs is None else path.parent / str(configs)
    if folder is not None and not folder.is_dir():
        raise UserError(f"{path}: configs in [tool.hydralight] is no folder: {folder}.")
    for place in (path.parent, path.parent / "src"):  # where a command does not look by itself
        if place.is_dir() and str(place) not in sys.path:
            sys.path.append(str(place))
    return Project(tuple(names), folder)


def _installed() -> Iterator[Project]:
    """Find packages by the entry points of the group `hydralight`; they are not imported."""
    for entry in entry_points(group="hydralight"):
        spec = find_spec(entry.value.partition(":")[0])
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        folders = [Path(place) / "configs" for place in places]
        configs = next((folder for folder in folders if folder.is_dir()), None)
        yield Project((f"{entry.value}.*",), configs)
