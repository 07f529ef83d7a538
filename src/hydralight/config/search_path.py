"""Where a command finds configs beside the template's: in the folders that were typed.

They are typed as `--config-dir=…` or in `hydra.searchpath=[…]`. Here they become one
`hydra.searchpath` of full paths, which is an override like any other. So what repeats a command
(trials of a sweep, launchers, further ranks) composes from the folders that it was typed with.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from hydralight.config.project import CONFIG_DIR, config_dirs
from hydralight.errors import UserError
from hydralight.runs.overrides import key_of, parsed, quoted, value_of
from hydralight.shell import near

KEY = "hydra.searchpath"
FILE = "file://"
DIR, NAME, PATH = ("--config-dir", "-cd"), ("--config-name", "-cn"), ("--config-path", "-cp")


def with_search_path(arguments: Sequence[str]) -> list[str]:
    """Return arguments in which all typed folders of configs are one `hydra.searchpath`.

    Raises:
        UserError: a folder is not there, or `--config-path` would take the template's away.
    """
    folders, rest = taken_out(arguments, DIR)
    if taken_out(arguments, PATH)[0]:
        raise UserError(
            "--config-path would take the place of the template's configs: add a folder of yours "
            "to them by --config-dir=…"
        )
    paths = []
    for folder in folders:
        path = Path(os.path.abspath(Path(folder).expanduser()))
        if not path.is_dir():
            raise UserError(f"--config-dir={folder}: there is no such folder.")
        paths.append(f"{FILE}{path}")
    typed = value_of(KEY, rest)
    typed = [typed] if isinstance(typed, str) else typed or []
    paths += [path for path in map(_full, typed) if path not in paths]
    if paths == typed:  # as it stands, it may have more to say than its value
        return rest
    kept = [a for a in rest if key_of(a) != KEY]
    return [f"{KEY}=[{','.join(map(quoted, paths))}]", *kept]


def _full(path: str) -> str:
    """Return a path of Hydra's with the full path of a folder; others, as `pkg://`, as they are."""
    scheme, found, folder = path.rpartition("://")
    if (found and f"{scheme}://" != FILE) or folder.startswith("$"):
        return path
    return f"{FILE}{os.path.abspath(Path(folder).expanduser())}"


def taken_out(arguments: Sequence[str], names: tuple[str, str]) -> tuple[list[str], list[str]]:
    """Return the values of an option, and what else there is.

    Args:
        arguments: What was typed.
        names: The option in full, of which a part that is no other option's does, and in short.
    """
    values, rest = [], []
    left = iter(arguments)
    for argument in left:
        option, equals, value = argument.partition("=")
        short = len(option) > len("--config-") and names[0].startswith(option)
        if not (short or option == names[1]):
            rest.append(argument)
        elif equals:
            values.append(value)
        elif (following := next(left, None)) is not None:
            values.append(following)
        else:
            raise UserError(f"{option} needs a value: {names[0]}=…")
    return values, rest


def primary_config(command: str, arguments: Sequence[str]) -> str:
    """Return the name of the config that all others are composed into: `--config-name`, or ours.

    It may say what only the user may, so that it is read from the folder of the template alone.

    Raises:
        UserError: it is not there.
    """
    names, _ = taken_out(arguments, NAME)
    name = names[-1].removesuffix(".yaml") if names else command
    if not (CONFIG_DIR / f"{name}.yaml").is_file():
        raise UserError(
            f"--config-name={name}: there is no {name}.yaml in {CONFIG_DIR}: a recipe is "
            "chosen by experiment=…"
        )
    return name


def typed_again(overrides: Sequence[str]) -> list[str]:
    """Return what has to be typed again of a search path, to compose as these overrides do.

    The folders of the user's project are not among it: they are found from where it is typed.
    """
    own = [f"{FILE}{folder}" for folder in config_dirs()]
    override = next((o for a in overrides if (o := parsed(a)) and o.key_or_group == KEY), None)
    value = None if override is None else override.value()
    paths = [path for path in value if path not in own] if isinstance(value, list) else []
    if all(path.startswith(FILE) for path in paths):
        return [f"--config-dir={near(Path(path.removeprefix(FILE)))}" for path in paths]
    return [f"{KEY}=[{','.join(map(quoted, paths))}]"]
