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
from hydralight.errors import first_line, told
from hydralight.sweeps.request import SweepRequest
from hydralight.sweeps.trial import Outcome, read_outcome, write_outcome

Job = list[str]  # the overrides of one trial
UNCOMPOSED = (HydraException, OmegaConfBaseException)  # what overrides raise that make no config


def runs_here(launcher: DictConfig) -> bool:
    """Whether a launcher's config is Hydra's own, which runs one trial after the other here."""
    return str(launcher._target_).endswith(".BasicLauncher")


def together(request: SweepRequest, launcher: DictConfig) -> int:
    """Return how many trials are launched together.

    A search learns between launches, so that on a cluster it launches four.
    """
    if request.n_jobs is not None:
        return request.n_jobs
    if runs_here(launcher):
        return 1
    if "n_jobs" in launcher:  # joblib's; -1 is all cores
        return launcher.n_jobs if launcher.n_jobs > 0 else os.cpu_count() or 1
    return 4 if request.points is None else request.total


def launch(
    launcher: Launcher, jobs: Sequence[Job], first: int, folder: Path, compose: Callable[[Job], Any]
) -> list[Outcome | None]:
    """Run jobs together, and return how each ended; None for one that is to be tried again.

    A launcher composes the configs of jobs before it runs them. Where the values of one make no
    config, that one has failed, what came before it is done, and the rest has not begun.

    Args:
        launcher: Where they run.
        jobs: The overrides of each.
        first: The number of the first; the others follow, and a number names a directory.
        folder: The sweep's directory.
        compose: Composes the config of a job.

    Raises:
        HydraException: all of them make a config, so it is something else.
        UserError: the launcher refuses its options, or what it hands them to is not there.
    """
    try:
        returned = launched(launcher, jobs, first)
    except UNCOMPOSED:
        faults = [_fault(job, compose) for job in jobs]
        if not any(faults):
            raise
        numbered = enumerate(zip(jobs, faults, strict=True), first)
        return [_settled(folder / str(number), *pair) for number, pair in numbered]
    return [outcome_of(job) for job in returned]


def launched(launcher: Launcher, jobs: Sequence[Job], first: int) -> Sequence[JobReturn]:
    """Run jobs together, and return what Hydra has of each.

    Raises:
        HydraException: the overrides of a job make no config.
        UserError: the launcher refuses its options, or what it hands jobs to is not there.
    """
    try:
        return launcher.launch(jobs, initial_job_idx=first)
    except UNCOMPOSED:
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


def _fault(job: Job, compose: Callable[[Job], Any]) -> Exception | None:
    """Return why a job's overrides make no config, if they make none."""
    try:
        compose(job)
    except UNCOMPOSED as error:
        return error
    return None


def _settled(run_dir: Path, job: Job, fault: Exception | None) -> Outcome | None:
    if fault is not None:
        reason = explain(fault) or first_line(fault)
        write_outcome(run_dir, {"state": "failed", "reason": reason, "metrics": {}}, job)
    return read_outcome(run_dir)
