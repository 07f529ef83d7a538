"""One job of a sweep: `train.py` with its overrides, in a process of its own."""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hydralight.commands import COMMAND, call
from hydralight.config.explain import explain
from hydralight.config.project import CONFIG_DIR
from hydralight.config.typed import Typed
from hydralight.disk import Footprint
from hydralight.errors import UserError, first_line
from hydralight.nodes.ranks import place
from hydralight.runs.environment import record_composed
from hydralight.runs.logs import hide_secrets
from hydralight.runs.overrides import key_of
from hydralight.runs.run import read_metrics
from hydralight.runs.secrets import redact_message
from hydralight.sweeps.trial import Outcome, arguments_of, take_one_gpu, variables_of
from hydralight.sweeps.worker import run_trial


def trial(cfg: DictConfig, run_dir: Path, preload: str, typed: Typed) -> Outcome:
    """Run one job of a sweep in a process of its own, as `train.py` with its overrides.

    Args:
        cfg: The job's config.
        run_dir: The job's directory.
        preload: The module that processes of trials have in common.
        typed: What was typed for the sweep, which is trusted.

    Raises:
        UserError: the launcher has started several processes for it.
    """
    if place() is not None:
        raise UserError("a trial is one task: leave out hydra.launcher.tasks_per_node and nodes.")
    record_composed(run_dir, cfg)  # also of a trial that fails before it begins
    return run_trial(
        partial(train_trial, typed=typed, place=HydraConfig.get().runtime.cwd),
        arguments_of(cfg, run_dir),
        run_dir,
        environment=variables_of(cfg),
        optimized_metric=cfg.optimized_metric,
        preload=preload,
    )


def train_trial(run_dir: Path, arguments: Sequence[str], *, typed: Typed, place: str) -> Outcome:
    """Train in this process, and return an outcome whatever happens.

    Args:
        run_dir: The trial's directory.
        arguments: Its own overrides.
        typed: What was typed for the sweep.
        place: The working directory of the sweep, where a project and files of data are looked for;
            with `hydra.job.chdir=true` a launcher's process is elsewhere by now.
    """
    os.chdir(place)
    sys.argv = [script(), *arguments]  # DDP starts its other ranks by them
    hide_secrets()
    take_one_gpu()
    started = time.monotonic()
    outcome: Outcome = {"state": "complete"}
    try:
        _, returned = call("train", arguments, typed_for_trial(typed, arguments))
        if isinstance(returned, Footprint):  # it was a preflight
            outcome["disk"] = returned.total
    except Exception as error:
        print(redact_message(traceback.format_exc()), file=sys.stderr)
        if type(error).__name__ == "TrialPruned":
            outcome |= {"state": "pruned", "step": error.args[0]}
        else:
            reason = explain(error) or f"{type(error).__name__}: {first_line(error)}"
            outcome |= {"state": "failed", "reason": redact_message(reason)}
    best = read_metrics(run_dir).get("best", {})
    outcome["metrics"] = {name: value for name, value in best.items() if name != "step"}
    outcome["metrics"]["seconds"] = round(time.monotonic() - started, 3)
    return outcome


def typed_for_trial(typed: Typed, arguments: Sequence[str]) -> Typed:
    """Return what counts as typed in a trial: what did in its sweep, and what its sweep adds.

    That is Hydra's part of the arguments: the sweep has composed the job with what was typed.
    """
    added = [a for a in arguments if (key_of(a) or "").startswith("hydra")]
    return Typed((*typed.arguments, *added))


def script() -> str:
    """Return the file that starts a training: the one that was started, if it is of the checkout.

    A launcher has started one of its own instead, and a wheel has none but `hydralight`.
    """
    started = Path(sys.argv[0]).resolve()
    if CONFIG_DIR.parent in started.parents:
        return str(started)
    checkout = CONFIG_DIR.parent / "train.py"
    if checkout.is_file():
        return str(checkout)
    os.environ[COMMAND] = "train"
    return str(Path(sys.executable).with_name("hydralight"))
