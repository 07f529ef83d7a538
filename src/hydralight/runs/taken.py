"""Which keys a command takes, of those that not every command does; and what is never typed."""

import re
from collections.abc import Sequence

from hydralight.errors import UserError
from hydralight.runs.overrides import key_of

TAKEN_BY = {
    "run": ("eval", "predict", "publish"),
    **dict.fromkeys(("split", "harness", "harness_tasks", "harness_options"), ("eval",)),
    "input": ("predict",),
    "output": ("predict",),
    "format": ("predict",),
    **dict.fromkeys(("repo", "private", "revision"), ("publish",)),
    **dict.fromkeys(("resume", "sweep", "hparams_search", "check", "test", "debug"), ("train",)),
}
TYPED_TOKEN = re.compile(r"(callbacks\.push\.)?((hf|hub|api|auth|access)_?)?token")


def refuse_tokens(arguments: Sequence[str]) -> None:
    """Refuse a token for the hub that is typed: it would be in the shell's history, and in `ps`.

    Raises:
        UserError: there is one.
    """
    for argument in arguments:
        key = (key_of(argument) or "").lstrip("+")
        if TYPED_TOKEN.fullmatch(key):
            raise UserError(
                f"a token is not typed ({key}), as others can read it there: run `hf auth login`, "
                "or set HF_TOKEN in the environment."
            )


def refuse_keys_of_others(command: str, arguments: Sequence[str]) -> None:
    """Refuse a key that another command takes, which would do nothing here.

    Raises:
        UserError: there is one.
    """
    for argument in arguments:
        key = key_of(argument) or ""
        takers = TAKEN_BY.get(key, (command,))
        if command not in takers:
            instead = ": say split=test" if (command, key) == ("eval", "test") else ""
            names = " and ".join(f"{name}.py" for name in takers)
            raise UserError(f"{command}.py takes no {key}=…, which is for {names}{instead}.")
