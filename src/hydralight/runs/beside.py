"""What was typed, as a process takes it that works in a directory which was decided elsewhere.

By the first of several processes, or by an earlier start of the same job.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from hydralight.errors import UserError
from hydralight.runs.overrides import free_text, key_of, quoted
from hydralight.runs.secrets import redact


def is_requeued() -> bool:
    """Whether SLURM has begun this job before."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def arguments_beside(
    command: str, run_dir: Path, goes_on: bool, arguments: Sequence[str]
) -> list[str]:
    """Return what was typed, as a process takes it that works in the directory of another one.

    Args:
        command: `train` or `eval`.
        run_dir: The directory that the first process has decided.
        goes_on: Whether it is that of a run which is there already.
        arguments: What was typed, in all processes alike.

    Raises:
        UserError: they were not typed alike.
    """
    key = "resume" if command == "train" else "run"
    named = free_text(key, arguments)
    if not goes_on and named is None:
        return [*arguments, f"hydra.run.dir={quoted(run_dir)}"]
    requeued = command == "train" and is_requeued()
    if not goes_on or (named is None and not requeued):
        done, given = ("goes on with", "no") if goes_on else ("works in", "a")
        raise UserError(
            f"the first process {done} {run_dir}, and this one is given {given} {key}=: start all "
            "with the same command line."
        )
    if named is None:
        return arguments_again(run_dir, arguments)
    if named[1] != "latest":
        return list(arguments)
    return [a if at != named[0] else f"{key}={quoted(run_dir)}" for at, a in enumerate(arguments)]


def arguments_again(run_dir: Path, arguments: Sequence[str]) -> list[str]:
    """Return what goes on with a run by the arguments that began it.

    The run's own config has all of them, except what is taken only from what is typed, and secrets.
    """
    kept = []
    for argument in arguments:
        if key_of(argument) in (None, "trust", "hydra.searchpath"):
            kept.append(argument)
        elif redact(argument) != argument:
            kept.append(f"++{argument.lstrip('+')}")
    return [*kept, f"resume={quoted(run_dir)}"]
