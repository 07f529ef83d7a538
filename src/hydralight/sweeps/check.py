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

from hydralight.disk import readable
from hydralight.errors import UserError
from hydralight.runs.overrides import quoted
from hydralight.sweeps import space
from hydralight.sweeps.launch import launched, outcome_of, together
from hydralight.sweeps.request import SweepRequest

log = logging.getLogger(__name__)


def check_all(
    launcher: Launcher,
    config: DictConfig,
    folder: Path,
    fixed: Sequence[str],
    points: Sequence[space.Point],
    request: SweepRequest,
) -> None:
    """Launch a trial that trains nothing at each point; only what failed is left.

    Args:
        launcher: Where they run; it reads their directory from the config.
        config: The config of all trials.
        folder: The sweep's directory, which may hold a finished sweep.
        fixed: The overrides of every trial.
        points: All of a grid; of a search, its two ends.
        request: What is asked of the sweep.

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
    outcomes = [outcome_of(job) for job in launched(launcher, jobs, 0)]
    for number, (combination, outcome) in enumerate(zip(combinations, outcomes, strict=True)):
        log.info("%s: %s", " ".join(combination), outcome.get("reason", "fine"))
        if outcome["state"] != "failed":
            shutil.rmtree(scratch / str(number))
    if any(outcome["state"] == "failed" for outcome in outcomes):
        raise UserError(f"not all of them are fine: {scratch} has what they said.")
    shutil.rmtree(scratch)
    size = max((outcome.get("disk", 0) for outcome in outcomes), default=0)
    if size:
        log.info("%s", on_disk(request, together(request, config.hydra.launcher, launcher), size))
    with suppress(OSError):  # it holds a sweep
        folder.rmdir()


def on_disk(request: SweepRequest, at_work: int, size: int) -> str:
    """Return what a sweep takes on disk, in one line.

    Args:
        request: What is asked of it.
        at_work: How many of its trials are at work together.
        size: What the largest trial leaves, in bytes.
    """
    total = request.total
    if request.keep is None or request.keep + at_work >= total:
        number, whose = total, f"{total} trials"
    else:
        number, whose = request.keep + at_work, f"the best {request.keep}, and {at_work} at work"
    about = f"{total} trials take about {readable(number * size)} on disk"
    return f"{about}: weights of {whose}, {readable(size)} each (hparams_search.keep)"
