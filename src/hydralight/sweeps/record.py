"""A sweep's own files: the lock on its directory, and what was asked, for `sweep=` and reports."""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from hydralight.errors import UserError
from hydralight.runs.files import write_text
from hydralight.runs.secrets import redact
from hydralight.sweeps.request import Direction, SweepRequest


@dataclass(frozen=True)
class SweepRecord:
    """What a report needs to know of a sweep, as in its `study.json`."""

    objectives: list[tuple[str, Direction]]
    swept: list[str]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a directory, which is made if it is not there.

    Raises:
        UserError: one is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another sweep is at work in {folder}.") from error
        yield


def write_record(
    folder: Path, config: DictConfig, arguments: Sequence[str], request: SweepRequest
) -> None:
    """Write `sweep.json` (what was typed), `study.json`, and `multirun.yaml` (the config)."""
    typed = [*config.hydra.overrides.hydra, *arguments]
    write_text(folder / "sweep.json", json.dumps(redact(typed), indent=2) + "\n")
    asked = {
        "objectives": request.objectives,
        "directions": request.directions,
        "swept": list(request.space),
    }
    write_text(folder / "study.json", json.dumps(asked, indent=2) + "\n")
    content = redact(OmegaConf.to_container(config, resolve=False))
    OmegaConf.save(OmegaConf.create(content), folder / "multirun.yaml")


def read_record(folder: Path) -> SweepRecord | None:
    """Return what is recorded of a sweep; None where it is another program's."""
    path = folder / "study.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    objectives = list(zip(content["objectives"], content["directions"], strict=True))
    return SweepRecord(objectives, [key.lstrip("+~") for key in content["swept"]])
