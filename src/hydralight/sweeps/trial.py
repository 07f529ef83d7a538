"""One trial: how it is started, and how it ended, as `trial.json` in its directory."""

import errno
import json
import logging
import os
import socket
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Literal, TypedDict, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hydralight.runs.files import write_text
from hydralight.runs.overrides import key_of, quoted
from hydralight.runs.reading import Damaged, read_json
from hydralight.runs.sealed import sealed_json, sealed_yaml
from hydralight.runs.secrets import redact

log = logging.getLogger(__name__)

PRUNING = "HYDRALIGHT_PRUNING"  # tells a trial's process which trial of which study it is
BESIDE = "HYDRALIGHT_BESIDE"  # tells it that trials run side by side
CLAIMS: list[socket.socket] = []
OF_THE_SWEEP = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra.sweeper", "hydra.launcher")


class Outcome(TypedDict, total=False):
    """How a trial ended.

    `metrics` are those of its best evaluation; `step` is where a pruned one was left, `reason` what
    a failed one says of itself; `seconds` are those of the whole trial. `disk` is how many bytes a
    trial would leave that was only checked.
    """

    state: Literal["complete", "pruned", "failed"]
    metrics: dict[str, float]
    optimized_metric: str
    seconds: float
    step: int
    disk: int
    reason: str


class Lost(Exception):
    """What a trial ran in is gone, and with it how it would have ended; the message says what."""


def write_outcome(run_dir: Path, outcome: Outcome, overrides: Sequence[str] | None = None) -> None:
    """Write down how a trial ended; and its overrides, where it was never launched."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if overrides is not None:
        (run_dir / ".hydra").mkdir(exist_ok=True)
        typed = OmegaConf.to_yaml(OmegaConf.create(redact(list(overrides))))
        write_text(run_dir / ".hydra" / "overrides.yaml", sealed_yaml(typed))
    write_text(run_dir / "trial.json", sealed_json(redact(dict(outcome))))


def read_outcome(run_dir: Path) -> Outcome | None:
    """Return how a trial ended; None where it was interrupted."""
    path = run_dir / "trial.json"
    if not path.is_file():
        return None
    advice = "delete it, and the trial counts as interrupted"
    content = read_json(path, dict, advice)
    if "state" not in content or not isinstance(content.get("metrics", {}), dict):
        raise Damaged(f"{path} is damaged (it lacks what it should hold): {advice}.")
    return cast(Outcome, content)


def arguments_of(cfg: DictConfig, run_dir: Path) -> list[str]:
    """Return a job's own overrides, as those of a single run in its directory."""
    typed, primary = HydraConfig.get().overrides, HydraConfig.get().job.config_name
    arguments = [argument for argument in typed.hydra if not places_trials(argument)]
    if primary != "train":
        arguments.append(f"--config-name={primary}")
    arguments += [*typed.task, f"hydra.run.dir={quoted(run_dir)}", "hydra.mode=RUN"]
    if cfg.test:
        log.warning("test=true is left to the best trial: a sweep does not look at the test split")
        arguments.append("test=false")
    if (cfg.logger or {}).get("wandb"):
        tags = [*cfg.logger.wandb.get("tags", []), f"trial {HydraConfig.get().job.num}"]
        arguments += [
            f"++logger.wandb.group={quoted(_sweep_dir().name)}",
            f"logger.wandb.tags=[{','.join(map(quoted, tags))}]",
        ]
    return arguments


def places_trials(argument: str) -> bool:
    """Whether an override says where or how a sweep runs its trials, and nothing of a trial."""
    key = (key_of(argument) or "").replace("/", ".")
    return any(key == own or key.startswith(f"{own}.") for own in OF_THE_SWEEP)


def variables_of(cfg: DictConfig) -> dict[str, str]:
    """Return the environment variables of a job: which of the GPUs it takes, and its pruning."""
    hydra = HydraConfig.get()
    number = int(hydra.job.num)
    variables = {}
    if not hydra.launcher._target_.endswith(".BasicLauncher") and cfg.trainer.devices == 1:
        variables[BESIDE] = "1"
    search = cfg.get("hparams_search") or {}
    if (search.get("pruner") or {}).get("_target_"):
        pruned = {"folder": str(_sweep_dir()), "number": number}
        variables[PRUNING] = json.dumps({**pruned, "storage": search.get("storage")})
    return variables


def _sweep_dir() -> Path:
    return Path(HydraConfig.get().sweep.dir).absolute()


def take_one_gpu() -> None:
    """Give this process one GPU, where trials run side by side on several."""
    if BESIDE not in os.environ:
        return
    import torch

    every = ",".join(map(str, range(torch.cuda.device_count())))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", every).split(",")
    if len(visible) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = claimed(visible)


def claimed(gpus: Sequence[str]) -> str:
    """Return the first of these GPUs that fewest trials have claimed, for as long as we are there.

    A claim is the name of a socket, which the kernel lets go of with its process.
    """
    for share in count():
        for gpu in gpus:
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind(f"\0hydralight gpu {gpu} share {share}")
            except OSError as error:
                claim.close()
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                CLAIMS.append(claim)
                return gpu
    raise AssertionError
