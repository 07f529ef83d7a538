"""Options with dashes, which are Hydra's: a wrong one is answered in one sentence."""

from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from hydralight.config.check import ROOT_KEYS
from hydralight.config.project import config_dirs
from hydralight.errors import UserError, did_you_mean

OF_OTHER_COMMANDS = ("run", "split", "input", "output", "format")


def check_flags(arguments: Sequence[str]) -> None:
    """Parse what was typed as Hydra is about to, whose own refusal is the usage and code 2.

    Raises:
        UserError: an option is not there, or has a value that it does not take.
    """
    parser = get_args_parser()
    known = [name for action in parser._actions for name in action.option_strings]

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message.replace(chr(10), ' ').rstrip('.')}.")

    parser.error = refuse  # type: ignore[method-assign]
    _, unknown = parser.parse_known_intermixed_args(list(arguments))
    if unknown:
        raise UserError(_unknown(unknown[0], known))


def _unknown(argument: str, known: Sequence[str]) -> str:
    """Say which option there is, or that a key has no dashes."""
    option, equals, value = argument.partition("=")
    key = option.lstrip("-")
    groups = {path.name for folder in config_dirs() for path in folder.glob("*") if path.is_dir()}
    if key.partition(".")[0] in {*ROOT_KEYS, *OF_OTHER_COMMANDS, *groups}:
        written = f"{key}={value if equals else '…'}"
        return f"there is no option {option}: keys are written without dashes, {written}"
    near = did_you_mean(option, known)
    return f"there is no option {option}{near or ' (--help shows what there is).'}"
