"""What a sweep says of itself while it goes on: a line at its start, and one for each trial."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hydralight.sweeps.request import SweepRequest, objectives_of_trial
from hydralight.sweeps.space import overrides_of
from hydralight.sweeps.trial import Outcome

if TYPE_CHECKING:
    from optuna.trial import Trial

log = logging.getLogger(__name__)


def announce_start(request: SweepRequest, done: int, folder: Path) -> None:
    """Log what is to be done, and how much of it is done."""
    what = "search" if request.points is None else "grid"
    have = f", {done} of them done" if done else ""
    log.info("%s of %d trials%s in %s", what, request.total, have, folder)


def announce_trial(trial: "Trial", outcome: Outcome, request: SweepRequest) -> None:
    """Log how a trial ended."""
    values = " ".join(overrides_of(trial.params))
    seconds = outcome.get("seconds", 0)
    end = ending(outcome, request)
    log.info("trial %d (%s): %s (%.0f s)", trial.number, values, end, seconds)


def ending(outcome: Outcome, request: SweepRequest) -> str:
    """Return how a trial ended: its objectives, the step it was pruned at, or why it failed."""
    if outcome["state"] == "pruned":
        return f"pruned at step {outcome.get('step')}"
    if outcome["state"] == "failed":
        return f"failed: {outcome.get('reason')}"
    metrics = outcome["metrics"]
    names = objectives_of_trial(request, outcome)
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names)
