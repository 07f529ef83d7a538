"""How a sweep asks for trials and records how they end."""

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.utils import JobReturn
from optuna.trial import Trial

from hydralight.sweeps import space
from hydralight.sweeps.announce import Announcer
from hydralight.sweeps.at_work import AtWork
from hydralight.sweeps.launch import Job, fault_of, is_lost, outcome_of
from hydralight.sweeps.study import SweepStudy
from hydralight.sweeps.trial import Outcome, read_outcome, write_outcome


class Loop:
    """Asks for a trial as soon as there is room for one, so that it learns from all that ended.

    Args:
        study: The sweep.
        at_work: Its trials at work.
        announcer: Says how each ends.
        fixed: The overrides of every trial.
        compose: Composes the config of a job.
    """

    def __init__(
        self,
        study: SweepStudy,
        at_work: AtWork,
        announcer: Announcer,
        fixed: Sequence[str],
        compose: Callable[[Job], Any],
    ) -> None:
        self.study, self.at_work, self.announcer = study, at_work, announcer
        self.fixed, self.compose = fixed, compose

    def step(self, room: int) -> None:
        """Begin trials until so many are at work, and record how the next one ends.

        Raises:
            BaseException: a launcher would not run one.
        """
        while len(self.at_work) < room:
            trial = self.study.ask()
            job = [*self.fixed, *space.overrides_of(trial.params)]
            fault = fault_of(job, self.compose)
            if fault is None:
                self.at_work.begin(trial, job)
            else:
                outcome: Outcome = {"state": "failed", "reason": fault, "metrics": {}}
                write_outcome(self.study.folder / str(trial.number), outcome, job)
                self.tell(trial, outcome)
                room -= 1  # of what is left
        if self.at_work:
            self.settle(*self.at_work.next())

    def settle(self, trial: Trial, returned: JobReturn | BaseException) -> None:
        """Record how a trial has ended, by what its launcher has returned or raised."""
        run_dir = self.study.folder / str(trial.number)
        if isinstance(returned, JobReturn):
            self.tell(trial, outcome_of(returned))
        elif not self.at_work.here and is_lost(returned, self.at_work.launcher, run_dir):
            # it may have ended before what ran it was gone
            outcome = read_outcome(run_dir) or self.study.lost(trial, str(returned))
            if outcome is not None:
                self.tell(trial, outcome)
        else:
            raise returned

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Record an outcome, and say it."""
        self.announcer.trial(trial, self.study.tell(trial, outcome))
