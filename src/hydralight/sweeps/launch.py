"""How trials are handed to Hydra's launcher, and what comes back."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hydralight.config.explain import explain
from hydralight.errors import UserError, first_line, told
from hydralight.sweeps.ray_launcher import RayLauncher
from hydralight.sweeps.request import SweepRequest
from hydralight.sweeps.trial import Lost, Outcome

Job = list[str]  # the overrides of one trial
UNCOMPOSED = (HydraException, OmegaConfBaseException)  # what overrides raise that make no config


def runs_here(launcher: DictConfig) -> bool:
    """Whether a launcher's config is Hydra's own, which runs one trial after the other here."""
    return str(launcher._target_).endswith(".BasicLauncher")


def together(request: SweepRequest, config: DictConfig, launcher: Launcher) -> int:
    """Return how many trials are at work together.

    A search learns from each that has ended, so that on SLURM there are four.

    Args:
        request: What is asked of the sweep.
        config: The launcher's.
        launcher: Where they run.

    Raises:
        UserError: a Ray cluster has no room for one.
    """
    if runs_here(config):
        return 1
    if isinstance(launcher, RayLauncher):
        room = launcher.room()
        return request.n_jobs or room
    if request.n_jobs is not None:
        return request.n_jobs
    if "n_jobs" in config:  # joblib's; -1 is all cores
        return config.n_jobs if config.n_jobs > 0 else os.cpu_count() or 1
    if request.points is None:
        return 4
    return min(request.total, config.get("array_parallelism") or request.total)


def fault_of(job: Job, compose: Callable[[Job], Any]) -> str | None:
    """Return why a job's overrides make no config, if they make none."""
    try:
        compose(job)
    except UNCOMPOSED as error:
        return explain(error) or first_line(error)
    return None


def launched(launcher: Launcher, jobs: Sequence[Job], first: int) -> Sequence[JobReturn]:
    """Run jobs together, and return what Hydra has of each.

    Raises:
        HydraException: the overrides of a job make no config.
        Lost: what ran one is gone.
        UserError: the launcher refuses its options, or what it hands jobs to is not there.
    """
    try:
        return launcher.launch(jobs, initial_job_idx=first)
    except (*UNCOMPOSED, Lost):
        raise
    except Exception:
        if isinstance(launcher, BasicLauncher):  # a bug of ours
            raise
        with told("hydra.launcher"):
            raise


def outcome_of(job: JobReturn) -> Outcome:
    """Return the outcome that a job has brought, or that it brought none."""
    if job.status == JobStatus.COMPLETED:
        return job.return_value
    try:
        _ = job.return_value
    except Exception as error:
        return {"state": "failed", "reason": first_line(error), "metrics": {}}
    raise AssertionError(job.status)


def is_lost(error: BaseException, launcher: Launcher, run_dir: Path) -> bool:
    """Whether what ran a trial is gone, which is no fault of the launcher's options or of ours.

    Ray tells one from the other. Of other launchers, a trial that had begun elsewhere is lost.
    """
    if isinstance(launcher, RayLauncher):
        return isinstance(error, Lost)
    return isinstance(error, UserError) and (run_dir / ".hydra").is_dir()
