"""A sweep's own files: what was asked, for `sweep=` and reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from hydralight.runs.files import write_text
from hydralight.runs.reading import Damaged, read_json
from hydralight.runs.sealed import sealed_json
from hydralight.runs.secrets import redact
from hydralight.sweeps.request import Direction, SweepRequest


@dataclass(frozen=True)
class SweepRecord:
    """What a report needs to know of a sweep, as in its `study.json`."""

    objectives: list[tuple[str, Direction]]
    swept: list[str]


def write_record(
    folder: Path, config: DictConfig, arguments: Sequence[str], request: SweepRequest
) -> None:
    """Write `sweep.json` (what was typed), `study.json`, and `multirun.yaml` (the config)."""
    typed = [*config.hydra.overrides.hydra, *arguments]
    write_text(folder / "sweep.json", sealed_json(redact(typed)))
    asked = {
        "objectives": request.objectives,
        "directions": request.directions,
        "swept": list(request.space),
    }
    write_text(folder / "study.json", sealed_json(asked))
    content = redact(OmegaConf.to_container(config, resolve=False))
    write_text(folder / "multirun.yaml", OmegaConf.to_yaml(OmegaConf.create(content)))


def read_record(folder: Path) -> SweepRecord | None:
    """Return what is recorded of a sweep; None where it is another program's."""
    path = folder / "study.json"
    if not path.is_file():
        return None
    advice = "restore it from a copy; a sweep that goes on by sweep=<dir> writes it again"
    content = read_json(path, dict, advice)
    try:
        objectives = list(zip(content["objectives"], content["directions"], strict=True))
        return SweepRecord(objectives, [key.lstrip("+~") for key in content["swept"]])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"{path} is damaged (it lacks what it should hold): {advice}.") from error
