"""Whose weights stay on disk: those of a sweep's best trials, and all that may be needed yet."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from hydralight.disk import readable
from hydralight.errors import UserError
from hydralight.runs.lock import locked
from hydralight.runs.weights import remove_weights, weights_in
from hydralight.sweeps.study import INTERRUPTED, RETRY, is_finished

if TYPE_CHECKING:
    from hydralight.sweeps.study import SweepStudy

log = logging.getLogger(__name__)


class Keeper:
    """Removes the weights of trials that are not among the best so far, and says how many.

    Those of trials that are at work, that have failed or are to be tried again stay, and those of
    trials that somebody has gone on with by `resume=`.

    Args:
        study: The sweep.
    """

    def __init__(self, study: "SweepStudy") -> None:
        self.study = study
        self.removed: dict[int, int] = {}  # bytes by the trial's number

    def tidy(self) -> None:
        """Remove what is more than `hparams_search.keep` asks for."""
        keep = self.study.request.keep
        if keep is None:
            return
        for number in spare(self.study, keep):
            run_dir = self.study.folder / str(number)
            ours = (run_dir / ".hydra").is_dir() and not run_dir.is_symlink()
            if not ours or (run_dir / "resume.json").exists() or not weights_in(run_dir):
                continue
            try:
                with locked(run_dir):
                    self.removed[number] = remove_weights(run_dir, f"hparams_search.keep={keep}")
            except UserError as error:  # somebody is at work there, or nothing can be written
                log.warning("the weights of trial %d stay: %s", number, error)

    def say(self) -> None:
        """Log what was removed, in one line."""
        if self.removed:
            trials = "1 trial" if len(self.removed) == 1 else f"{len(self.removed)} trials"
            log.info(
                "deleted the weights of %s, %s: those of the best %d are kept "
                "(hparams_search.keep=null keeps all)",
                *(trials, readable(sum(self.removed.values())), self.study.request.keep),
            )


def spare(study: "SweepStudy", keep: int) -> Iterator[int]:
    """Yield the numbers of trials whose weights nobody needs any more.

    Args:
        study: The sweep.
        keep: How many of the best keep theirs; of several objectives, the whole Pareto front does.
    """
    trials = study.study.get_trials(deepcopy=False)
    retries = {t.user_attrs[RETRY]: t for t in trials if RETRY in t.user_attrs}

    def is_over(trial: FrozenTrial | None) -> bool:
        if trial is not None and trial.user_attrs.get(INTERRUPTED):
            return is_over(retries.get(trial.number))
        return trial is not None and is_finished(trial)

    done = [t for t in trials if t.state == TrialState.COMPLETE and t.values]
    signs = [1 if way == "minimize" else -1 for way in study.request.directions]
    costs = {t.number: [s * v for s, v in zip(signs, t.values, strict=True)] for t in done}
    ranked = sorted(costs, key=lambda number: (costs[number], number))
    several = len(signs) > 1
    front = [n for n in ranked if several and not any(_beats(costs[o], costs[n]) for o in ranked)]
    best = [*front, *(n for n in ranked if n not in front)][: max(keep, len(front))]
    for trial in trials:
        failed = trial.state == TrialState.FAIL and not trial.user_attrs.get(INTERRUPTED)
        if is_over(trial) and not failed and trial.number not in best:
            yield trial.number


def _beats(one: list[float], other: list[float]) -> bool:
    """Whether costs are as low in all objectives, and lower in one."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
