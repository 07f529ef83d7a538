"""Files of a run or a sweep, read by a program that does not take them to be whole."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydralight.errors import UserError, first_line
from hydralight.runs.sealed import Changed, unsealed_json, unsealed_yaml

log = logging.getLogger(__name__)


class Damaged(UserError):
    """A file does not hold what was written into it."""


def read_json(path: Path, kind: type, advice: str) -> Any:
    """Return what a JSON file holds.

    Args:
        path: The file.
        kind: What it should hold: `dict` or `list`.
        advice: What to do where it is damaged, as the end of a sentence.

    Raises:
        Damaged: it is empty, torn, not UTF-8, or holds something else.
    """
    return _read(path, kind, advice, unsealed_json)


def read_yaml(path: Path, kind: type[DictConfig] | type[ListConfig], advice: str) -> Any:
    """Return what a YAML file holds, as OmegaConf reads it; see `read_json`."""
    return _read(path, kind, advice, _parsed)


def _parsed(text: str) -> Any:
    text = unsealed_yaml(text)
    content = yaml.safe_load(text)
    # OmegaConf asserts that it is one of these
    return OmegaConf.create(text) if isinstance(content, dict | list) else content


def _read(path: Path, kind: type, advice: str, parse: Callable[[str], Any]) -> Any:
    name = "mapping" if kind in (dict, DictConfig) else "list"
    try:
        text = path.read_text(encoding="utf-8")
        content = parse(text) if text.strip() else None
        reason = "it is empty" if not text.strip() else f"it is no {name}"
    except Changed as error:
        seal = "its first line" if path.suffix == ".yaml" else "its own_checksum"
        raise Damaged(
            f"{path} is damaged, or was changed by hand: {advice}; give a change on the command "
            f"line, or delete {seal} if it is to stay."
        ) from error
    except (ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        content, reason = None, first_line(error)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    if not isinstance(content, kind):
        raise Damaged(f"{path} is damaged ({reason}): {advice}.")
    return content


def read_or_set_aside(
    path: Path, is_right: Callable[[Any], bool], aside: bool = True
) -> dict[str, Any]:
    """Return the mapping of a JSON file that can be had again; an empty one where it is not there.

    Args:
        path: The file.
        is_right: Whether a mapping is what should be in it.
        aside: Whether a damaged one gets another name, for who writes it anew; a warning tells of
            it in any case.
    """
    if not path.is_file():
        return {}
    try:
        content = read_json(path, dict, "what it said is left out")
        if not is_right(content):
            raise Damaged(f"{path} is damaged (its values are not what they should be)")
        return content
    except Damaged as error:
        damaged = path.with_name(f"{path.name}.damaged")
        if aside:
            path.replace(damaged)
        log.warning("%s%s", error, f"; it is {damaged.name} now" if aside else "")
        return {}
