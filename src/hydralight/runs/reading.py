"""Files of a run or a sweep, read by a program that does not take them to be whole."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydralight.errors import UserError, first_line

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
    return _read(path, kind, advice, json.loads)


def read_yaml(path: Path, kind: type[DictConfig] | type[ListConfig], advice: str) -> Any:
    """Return what a YAML file holds, as OmegaConf reads it; see `read_json`."""
    return _read(path, kind, advice, _parsed)


def _parsed(text: str) -> Any:
    content = yaml.safe_load(text)
    # OmegaConf asserts that it is one of these
    return OmegaConf.create(text) if isinstance(content, dict | list) else content


def _read(path: Path, kind: type, advice: str, parse: Callable[[str], Any]) -> Any:
    name = "mapping" if kind in (dict, DictConfig) else "list"
    try:
        text = path.read_text(encoding="utf-8")
        content = parse(text) if text.strip() else None
        reason = "it is empty" if not text.strip() else f"it is no {name}"
    except (ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        content, reason = None, first_line(error)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    if not isinstance(content, kind):
        raise Damaged(f"{path} is damaged ({reason}): {advice}.")
    return content


def read_or_set_aside(path: Path, is_right: Callable[[Any], bool]) -> dict[str, Any]:
    """Return the mapping of a JSON file that can be had again; an empty one where it is not there.

    One that is damaged gets another name, and a warning says so.
    """
    if not path.is_file():
        return {}
    try:
        content = read_json(path, dict, "it is begun anew")
        if not is_right(content):
            raise Damaged(f"{path} is damaged (its values are not what they should be)")
        return content
    except Damaged as error:
        aside = path.with_name(f"{path.name}.damaged")
        try:
            path.replace(aside)
        except OSError:  # it is read where nothing can be written
            log.warning("%s", error)
        else:
            log.warning("%s; it is %s now", error, aside.name)
        return {}
