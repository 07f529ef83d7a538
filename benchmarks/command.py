"""The project's commands, run and timed as a user runs them."""

import resource
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


def run_and_cpu(arguments: Sequence[str]) -> tuple[float, float]:
    """Return the seconds that `run` does, and those of CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    elapsed = run(arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_step(overrides: Sequence[str], folder: Path, **environment: str) -> float:
    """Return the seconds from `python train.py <overrides>` to its first optimizer step."""
    return first_step_and_cpu(overrides, folder, **environment)[0]


def first_step_and_cpu(
    overrides: Sequence[str], folder: Path, **environment: str
) -> tuple[float, float]:
    """Return the same, and the seconds of CPU time that the process took till then."""
    file = folder / "first-step"
    file.unlink(missing_ok=True)
    start = time.time()
    run(["-m", "benchmarks.first_step", str(file), *overrides], environment)
    if not file.is_file():
        raise UserError("the run has ended without an optimizer step.")
    end, cpu = map(float, file.read_text().split())
    return end - start, cpu
