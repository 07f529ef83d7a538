"""A sweep with `check=true` or `debug=fdr`: trials are built, and nothing is trained.

Of a grid that is every combination; of a search, whose space may have no end, its first and last.
"""

import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, read_write

from hydralight.errors import UserError
from hydralight.runs.overrides import quoted
from hydralight.sweeps import space
from hydralight.sweeps.launch import outcome_of

log = logging.getLogger(__name__)


def check_all(
    launcher: Launcher,
    config: DictConfig,
    folder: Path,
    fixed: Sequence[str],
    points: Sequence[space.Point],
) -> None:
    """Launch a trial that trains nothing at each point; only what failed is left.

    Args:
        launcher: Where they run; it reads their directory from the config.
        config: The config of all trials.
        folder: The sweep's directory, which may hold a finished sweep.
        fixed: The overrides of every trial.
        points: All of a grid; of a search, its two ends.

    Raises:
        UserError: not all of them are fine.
    """
    scratch = folder / "check"
    shutil.rmtree(scratch, ignore_errors=True)
    with read_write(config.hydra):
        config.hydra.sweep.dir = str(scratch)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(scratch)}")
    combinations = [space.overrides_of(point) for point in points]
    jobs = [[*fixed, *combination] for combination in combinations]
    outcomes = [outcome_of(job) for job in launcher.launch(jobs, initial_job_idx=0)]
    for number, (combination, outcome) in enumerate(zip(combinations, outcomes, strict=True)):
        log.info("%s: %s", " ".join(combination), outcome.get("reason", "fine"))
        if outcome["state"] != "failed":
            shutil.rmtree(scratch / str(number))
    if any(outcome["state"] == "failed" for outcome in outcomes):
        raise UserError(f"not all of them are fine: {scratch} has what they said.")
    shutil.rmtree(scratch)
    with suppress(OSError):  # it holds a sweep
        folder.rmdir()
