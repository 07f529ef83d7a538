"""The project's commands, run and timed as a user runs them."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile

from benchmarks.lengths import ROOT
from benchmarks.measure import variables
from hydralight.errors import UserError

IMPORTS = "import torch, lightning, transformers"


def run(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, exit_code: int = 0
) -> float:
    """Run Python with arguments in the project's root, and return the seconds it took.

    Args:
        arguments: Behind `python`.
        environment: Variables to set.
        exit_code: What it should leave with.

    Raises:
        UserError: it left otherwise.
    """
    # to a file: the end of a pipe would wait for processes that outlive the command
    with variables(**(environment or {})), TemporaryFile("w+") as said:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said
        )
        elapsed = time.perf_counter() - start
        said.seek(0)
        lines = said.read().strip().splitlines()
    if done.returncode != exit_code:
        last = lines[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"python {' '.join(arguments[:3])} failed: {last[0]}")
    return elapsed


def first_step(overrides: Sequence[str], folder: Path, **environment: str) -> float:
    """Return the seconds from `python train.py <overrides>` to its first optimizer step."""
    file = folder / "first-step"
    file.unlink(missing_ok=True)
    start = time.time()
    run(["-m", "benchmarks.first_step", str(file), *overrides], environment)
    if not file.is_file():
        raise UserError("the run has ended without an optimizer step.")
    return float(file.read_text()) - start
