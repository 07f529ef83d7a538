"""What a sweep says of itself: a bar or lines while it goes on, and at its end the best trial."""

import logging
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hydralight.progress import clock, interactive, one_line, short
from hydralight.shell import line, near
from hydralight.sweeps.recipe import typed_for
from hydralight.sweeps.request import EACH_ITS_OWN, SweepRequest, objectives_of_trial
from hydralight.sweeps.space import overrides_of
from hydralight.sweeps.trial import Outcome

if TYPE_CHECKING:
    import pandas as pd
    from optuna.trial import Trial

    from hydralight.sweeps.study import SweepStudy

log = logging.getLogger(__name__)


class Announcer:
    """Says how each trial ended and which is the best so far, with a bar on a terminal.

    Args:
        study: The sweep.
    """

    def __init__(self, study: "SweepStudy") -> None:
        self.study = study
        self.before = len(study.finished)  # trials of an earlier process
        self.bar = one_line() if interactive() else None

    def __enter__(self) -> Self:
        """Say what is to be done, and how much of it is done."""
        request = self.study.request
        what = "search" if request.points is None else "grid"
        have = f", {self.before} of them done" if self.before else ""
        log.info("%s of %d trials%s in %s", what, request.total, have, near(self.study.folder))
        self.begin = monotonic()
        if self.bar is not None:
            self.bar.add_task("trials", total=request.total, completed=self.before, text="")
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave no bar."""
        if self.bar is not None:
            self.bar.stop()

    def trial(self, trial: "Trial", outcome: Outcome) -> None:
        """Say how a trial ended, once the study has been told."""
        request, done, best = self.study.request, len(self.study.finished), self._best()
        values = " ".join(overrides_of(trial.params))
        end, seconds = ending(outcome, request), outcome.get("seconds", 0)
        so_far = "" if best is None else f"best so far: trial {best[0]}, {best[1]}"
        mark = "best so far" if best is not None and best[0] == trial.number else so_far
        log.info(
            *("%d/%d  trial %d (%s): %s (%.0f s)%s", done, request.total, trial.number, values),
            *(end, seconds, f"  ({mark})" if mark else ""),
        )
        if self.bar is not None:
            pace = (monotonic() - self.begin) / max(1, done - self.before)
            left = clock(pace * (request.total - done))
            self.bar.update(self.bar.task_ids[0], completed=done, text=f"{so_far}  {left} left")

    def _best(self) -> tuple[int, str] | None:
        """Return the best trial's number and objective; None where trials are not compared."""
        name, direction = self.study.request.objectives[0], self.study.request.directions[0]
        values = {t.number: t.values[0] for t in self.study.finished if t.values}
        if name == EACH_ITS_OWN or not values:
            return None
        number = (min if direction == "minimize" else max)(values, key=values.__getitem__)
        return number, f"{name} {short(values[number])}"


def announce_end(
    folder: Path, request: SweepRequest, table: "pd.DataFrame", best: "pd.Series[Any] | None"
) -> None:
    """Log the best trial with its values, how many trials ended how, and what runs it again."""
    names = [name for name in request.objectives if name != EACH_ITS_OWN]
    if best is not None and names:
        objectives = ", ".join(f"{name} {short(best[name])}" for name in names)
        keys = [key.lstrip("+~") for key in request.space]
        log.info("best trial: %s, %s", best["trial"], objectives)
        log.info("  %s", " ".join(f"{key}={best[key]}" for key in keys))
    states = [f"{number} {state}" for state, number in table["state"].value_counts().items()]
    reasons = " (sweep.md has the reasons)" if "failed" in set(table["state"]) else ""
    log.info("%d trials: %s%s", len(table), ", ".join(states), reasons)
    log.info("sweep directory: %s", near(folder))
    if best is not None and names:
        log.info("%s", line("train", *typed_for(folder, folder / str(best["trial"]))))


def ending(outcome: Outcome, request: SweepRequest) -> str:
    """Return how a trial ended: its objectives, the step it was pruned at, or why it failed."""
    if outcome["state"] == "pruned":
        return f"pruned at step {outcome.get('step')}"
    if outcome["state"] == "failed":
        return f"failed: {outcome.get('reason')}"
    metrics = outcome["metrics"]
    names = objectives_of_trial(request, outcome)
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names)
