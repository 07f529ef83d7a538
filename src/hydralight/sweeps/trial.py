"""One trial: what it came to, as a plain dict and as `trial.json` in its directory."""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hydralight.runs.environment import redact_files
from hydralight.runs.files import write_text
from hydralight.sweeps import isolation

log = logging.getLogger(__name__)

PRUNING = "HYDRALIGHT_PRUNING"  # tells a trial's process which trial of which study it is
TURN = "HYDRALIGHT_TURN"  # tells it that trials run side by side, and its number


class Outcome(TypedDict, total=False):
    """What a trial came to.

    `metrics` are those of its best evaluation; `step` is where a pruned one was left, `reason` what
    a failed one says of itself; `seconds` are those of the whole trial.
    """

    state: Literal["complete", "pruned", "failed"]
    metrics: dict[str, float]
    optimized_metric: str
    seconds: float
    step: int
    reason: str


def run_trial(
    function: Callable[[Path, Sequence[str]], Outcome],
    arguments: Sequence[str],
    run_dir: Path,
    environment: Mapping[str, str],
    optimized_metric: str,
) -> Outcome:
    """Run a trial in a process of its own, and write down what it came to.

    Args:
        function: Trains in a directory with these arguments, and returns an outcome whatever
            happens.
        arguments: Hydra's overrides.
        run_dir: The trial's directory.
        environment: Variables to set in the process.
        optimized_metric: What its config optimises.
    """
    start = time.monotonic()
    try:
        outcome: Outcome = isolation.call(
            function,
            run_dir,
            list(arguments),
            environment=environment,
            output=run_dir / "output.log",
        )
    except isolation.Died as error:
        outcome = {"state": "failed", "reason": str(error), "metrics": {}}
    outcome["optimized_metric"] = optimized_metric
    outcome["seconds"] = round(time.monotonic() - start, 3)
    redact_files(run_dir)  # a trial that failed early has not come to it
    write_outcome(run_dir, outcome)
    return outcome


def write_outcome(run_dir: Path, outcome: Outcome, overrides: Sequence[str] | None = None) -> None:
    """Write down what a trial came to; and its overrides, where it was never launched."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if overrides is not None:
        (run_dir / ".hydra").mkdir(exist_ok=True)
        OmegaConf.save(list(overrides), run_dir / ".hydra" / "overrides.yaml")
    write_text(run_dir / "trial.json", json.dumps(outcome, indent=2) + "\n")


def read_outcome(run_dir: Path) -> Outcome | None:
    """Return what a trial came to; None where it was interrupted."""
    path = run_dir / "trial.json"
    return json.loads(path.read_text()) if path.is_file() else None


def arguments_of(cfg: DictConfig, run_dir: Path) -> tuple[list[str], dict[str, str]]:
    """Return a job's own overrides, as of a single run in its directory, and its variables."""
    hydra = HydraConfig.get()
    quoted = str(run_dir).replace("'", "\\'")
    sweeping = ("hydra.mode=", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra/sweeper")
    arguments = [o for o in hydra.overrides.hydra if not o.startswith((*sweeping, "hydra.run."))]
    arguments += [*hydra.overrides.task, f"hydra.run.dir='{quoted}'", "hydra.mode=RUN"]
    if cfg.test:
        log.warning("test=true is left to the best trial: a sweep does not look at the test split")
        arguments.append("test=false")
    sweep_dir, number = Path(hydra.sweep.dir).absolute(), int(hydra.job.num)
    if (cfg.logger or {}).get("wandb"):
        tags = [*cfg.logger.wandb.get("tags", []), f"trial {number}"]
        arguments += [
            f"++logger.wandb.group={json.dumps(sweep_dir.name)}",
            f"logger.wandb.tags={json.dumps(tags)}",
        ]
    variables = {}
    if not hydra.launcher._target_.endswith(".BasicLauncher") and cfg.trainer.devices == 1:
        variables[TURN] = str(number)
    search = cfg.get("hparams_search") or {}
    if (search.get("pruner") or {}).get("_target_"):
        pruned = {"folder": str(sweep_dir), "number": number}
        variables[PRUNING] = json.dumps({**pruned, "storage": search.get("storage")})
    return arguments, variables


def take_one_gpu() -> None:
    """Give this process one of the GPUs in turn, where trials run side by side on several."""
    if TURN not in os.environ:
        return
    import torch

    every = ",".join(map(str, range(torch.cuda.device_count())))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", every).split(",")
    if len(visible) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(os.environ[TURN]) % len(visible)]
