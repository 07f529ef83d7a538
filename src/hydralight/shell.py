"""Lines that a user can paste into the shell that this process was started from."""

import os
import shlex
import shutil
import sys
from pathlib import Path

SCRIPTS = ("train.py", "eval.py", "predict.py", "report.py", "prepare.py", "publish.py")


def line(command: str, *arguments: str) -> str:
    """Return the line that runs one of our commands, as this process was started.

    Args:
        command: `train`, `eval`, `predict`, `report`, `prepare` or `publish`.
        arguments: As the command takes them; they are quoted for the shell here.
    """
    script = Path(sys.argv[0]).with_name(f"{command}.py")
    if _by_script() and script.is_file():
        start = [_program("python"), str(script)]
    else:
        start = [_program("hydralight"), command]
    return shlex.join([*start, *arguments])


def short(command: str, *arguments: str) -> str:
    """Return the same line as it is written about, wherever Python and the script lie."""
    start = ["python", f"{command}.py"] if _by_script() else ["hydralight", command]
    return shlex.join([*start, *arguments])


def _by_script() -> bool:
    """Whether this process is a script of ours, not the installed program or another's."""
    return Path(sys.argv[0]).name in SCRIPTS


def near(path: Path) -> str:
    """Return a path as it is typed here: relative, where it is below the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _program(name: str) -> str:
    """Return the name of a program beside this Python, with its folder where the shell needs it."""
    folder = Path(sys.executable).parent
    own = folder / name if (folder / name).exists() else Path(sys.executable)
    found = shutil.which(own.name)
    if found is not None and os.path.samefile(Path(found).parent, folder):
        return own.name
    return near(own)
