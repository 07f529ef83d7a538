"""Completion by the shell, which Hydra answers: `eval "$(python train.py -sc install=bash)"`.

Hydra reads the line that is completed from `COMP_LINE`: a program, and a command's arguments.
"""

import os
from collections.abc import Sequence

from hydralight.help import COMMANDS
from hydralight.runs.overrides import with_own_configs

LINE = "COMP_LINE"


def is_asked(argv: Sequence[str]) -> bool:
    """Whether this is the shell's question, or the installation of its completion."""
    return any(flag in argv for flag in ("-sc", "--shell-completion"))


def command_asked_for() -> str:
    """Return the command of `hydralight <command> …`, and take it out of the line.

    "" where there is none yet: those that go with what is there have been printed.
    """
    program, *words = os.environ.get(LINE, "").split(" ")
    if not words:
        return "train"  # an installation, which is the same for all
    if len(words) == 1:
        print(" ".join(name for name in COMMANDS if name.startswith(words[0])))
    os.environ[LINE] = " ".join([program, *words[1:]])
    return words[0] if len(words) > 1 and words[0] in COMMANDS else ""


def add_own_configs() -> None:
    """Say in the line where the configs of a project of the user's own are."""
    program, *words = os.environ.get(LINE, "").split(" ")
    script = [words.pop(0)] if words and words[0].endswith(".py") else []
    if words:  # the last one is being completed
        os.environ[LINE] = " ".join([program, *script, *with_own_configs([]), *words])
