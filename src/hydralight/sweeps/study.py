"""The study of a sweep: which trials there were, and what is to be tried next."""

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from hydra.utils import instantiate
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, QMCSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from hydralight.errors import UserError, told
from hydralight.runs.files import make_own
from hydralight.runs.secrets import redact
from hydralight.sweeps.request import SweepRequest, objectives_of_trial
from hydralight.sweeps.storage import STUDY, readable, storage_in, study_name
from hydralight.sweeps.trial import Outcome, read_outcome, write_outcome

log = logging.getLogger(__name__)

INTERRUPTED, RETRY, LOST = "interrupted", "retry_of", "lost"
TRIES = 3  # of a trial that is lost each time with what runs it


class SweepStudy:
    """An Optuna study in a sweep's directory, which goes on where it was left.

    A trial is finished when it is complete, pruned, or failed by itself. One that was interrupted
    is recorded as failed, and tried again; it does not count.

    Args:
        folder: The sweep's directory.
        request: What is asked.

    Raises:
        UserError: the sweep was begun with another space or other objectives.
    """

    def __init__(self, folder: Path, request: SweepRequest) -> None:
        self.folder = folder
        self.request = request
        storage = request.storage or storage_in(folder)
        with suppress(FileNotFoundError):
            make_own(folder / STUDY)
        if request.pruner is not None:
            with told("hparams_search.pruner"):  # the trials will build it
                instantiate(request.pruner, _convert_="object")
        with told("hparams_search.storage"):
            self.study = optuna.create_study(
                study_name=study_name(folder, storage),
                storage=storage,
                directions=list(request.directions),
                load_if_exists=True,
            )
        if request.storage is None:
            with readable(folder / STUDY):
                self.study.get_trials(deepcopy=False)
        self._check_it_is_the_same()
        self._recover()
        self.study.sampler = self._sampler()

    def _check_it_is_the_same(self) -> None:
        now = {
            "objectives": list(self.request.objectives),
            "directions": list(self.request.directions),
            "space": {key: repr(values) for key, values in self.request.space.items()},
        }
        begun = self.study.user_attrs
        for name, value in now.items():
            if begun.get(name, value) != value:
                raise UserError(
                    f"the sweep in {self.folder} was begun with other {name} ({begun[name]}, and "
                    f"now {value}): go on with the same, or begin another sweep."
                )
            self.study.set_user_attr(name, value)

    def _recover(self) -> None:
        """Settle what was running when the sweep was ended."""
        for frozen in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            trial = Trial(self.study, frozen._trial_id)
            outcome = read_outcome(self.folder / str(frozen.number))
            if outcome is not None:
                self.tell(trial, outcome)
            else:
                self.interrupt(trial)

    def interrupt(self, trial: Trial) -> None:
        """Record that a trial did not come to an end of its own; it is tried again."""
        trial.set_user_attr(INTERRUPTED, True)
        self.study.tell(trial, state=TrialState.FAIL)

    def lost(self, trial: Trial, reason: str) -> Outcome | None:
        """Record that what ran a trial is gone; it has failed where that is so the third time.

        Returns:
            How it ended then; None where it is tried again.
        """
        trial.set_user_attr(LOST, reason)
        trials, times = self.study.get_trials(deepcopy=False), 0
        number: int | None = trial.number
        while number is not None and times < TRIES and LOST in trials[number].user_attrs:
            times, number = times + 1, trials[number].user_attrs.get(RETRY)
        if times < TRIES:
            log.warning("trial %d is tried again: %s", trial.number, reason)
            self.interrupt(trial)
            return None
        outcome: Outcome = {"state": "failed", "reason": f"{reason}, {TRIES} times", "metrics": {}}
        write_outcome(self.folder / str(trial.number), outcome)
        return outcome

    def _sampler(self) -> BaseSampler:
        node = self.request.sampler
        if node is None:
            return optuna.samplers.RandomSampler(seed=0)  # every point is given
        known = len(self.study.get_trials(deepcopy=False))
        with told("hparams_search.sampler"):
            sampler: BaseSampler = instantiate(node, _convert_="object")
        sequences = (QMCSampler, GridSampler, BruteForceSampler)  # the study says where they are
        if known and node.get("seed") is not None and not isinstance(sampler, sequences):
            # on with new proposals, not again with its first
            sampler = instantiate(node, seed=node["seed"] + known, _convert_="object")
        return sampler

    # ------------------------------------------------------------ ask and tell

    def ask(self) -> Trial:
        """Return the next trial: one that was interrupted, a grid's next point, or a proposal."""
        trials = self.study.get_trials(deepcopy=False)
        if not any(trial.state == TrialState.WAITING for trial in trials):
            self._enqueue(trials)
        return self.study.ask(dict(self.request.space))

    def _enqueue(self, trials: Sequence[FrozenTrial]) -> None:
        """Put a trial that was interrupted, or a grid's next point, first in the queue."""
        retried = {trial.user_attrs.get(RETRY) for trial in trials}
        again = [t for t in trials if t.user_attrs.get(INTERRUPTED) and t.number not in retried]
        if again:
            self.study.enqueue_trial(_given(again[0]), user_attrs={RETRY: again[0].number})
        elif self.request.points is not None:
            done = [_given(trial) for trial in trials]
            self.study.enqueue_trial(next(p for p in self.request.points if p not in done))

    def tell(self, trial: Trial, outcome: Outcome) -> Outcome:
        """Record how a trial ended, and return that; without its objectives, it has failed."""
        names = objectives_of_trial(self.request, outcome)
        fault = _missing(names, outcome) if outcome["state"] == "complete" else None
        if fault is not None:
            outcome = {**outcome, "state": "failed", "reason": fault}
            write_outcome(self.folder / str(trial.number), outcome)
        for name in ("reason", "seconds", "metrics", "step"):
            if name in outcome:
                trial.set_user_attr(name, redact(outcome[name]))
        if outcome["state"] == "complete":
            self.study.tell(trial, [outcome["metrics"][name] for name in names])
        else:
            pruned = outcome["state"] == "pruned"
            self.study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)
        return outcome

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that count."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if is_finished(trial)]


def _missing(names: Sequence[str], outcome: Outcome) -> str | None:
    """Return which objective a trial has no number for; None where it has all."""
    metrics = outcome.get("metrics", {})
    for name in names:
        if metrics.get(name) is None:
            return f"{name} is not among its metrics ({', '.join(metrics)})"
        if math.isnan(metrics[name]):
            return f"{name} is not a number"
    return None


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial has come to an end of its own."""
    return trial.state.is_finished() and not trial.user_attrs.get(INTERRUPTED)


def _given(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of a trial, also of one that was ended before it had taken them."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}
