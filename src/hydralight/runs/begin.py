"""How a training begins in a directory: new there, anew, or it is refused.

Anew it begins where an earlier one was ended before its first checkpoint: what that has left is
removed, so that the files of a run do not depend on how often it was begun.
"""

from pathlib import Path

import yaml

from hydralight.errors import UserError
from hydralight.runs.checksums import ADAPTER
from hydralight.runs.checksums import NAME as CHECKSUMS
from hydralight.runs.files import remove
from hydralight.runs.run import read_metrics

# What a training writes before its first checkpoint, besides its log.
FILES = ("metrics.csv", "metrics.json", "config.yaml", "environment.json", "curves.png")
FOLDERS = {
    "samples": "step-*.jsonl",
    "checkpoints": "step-*.json",  # a record, whose checkpoint is not there
    "tensorboard": "events.out.tfevents.*",
}
KEPT = ("model", "model.previous", "checkpoints/last.json")  # of a training
OF_MODELS = ("config.json", ADAPTER)
ONCE = (".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "resume.json")


def begin(run_dir: Path) -> None:
    """Make a directory ready for a new training.

    Raises:
        UserError: a training has come to something there; or what lies there is no run's.
    """
    check_it_is_ours(run_dir)
    if has_come_to_something(run_dir):
        raise UserError(
            f"{run_dir} holds a run already: go on with it by resume={run_dir}, or name another "
            "directory."
        )
    clear(run_dir)
    for name in ONCE:
        remove(run_dir / name)


def check_no_training_is_here(run_dir: Path) -> None:
    """Refuse to evaluate or predict something else in a training's directory.

    Raises:
        UserError: it is one; or what lies there is no run's.
    """
    check_it_is_ours(run_dir)
    if "status" in read_metrics(run_dir) or any((run_dir / name).exists() for name in KEPT):
        raise UserError(f"{run_dir} holds a training: name another directory.")


def check_it_is_ours(run_dir: Path) -> None:
    """Refuse a directory with files that are no run's, and would be written over.

    Raises:
        UserError: there are some, or it lies in an exported model.
    """
    for folder in (run_dir, *run_dir.parents):
        if (folder / CHECKSUMS).is_file() and any((folder / one).is_file() for one in OF_MODELS):
            raise UserError(f"{folder} is an exported model: name a directory outside of it.")
    names = (*FILES, *FOLDERS, *KEPT, "predictions")
    found = [name for name in names if _holds_something(run_dir / name)]
    if found and not _has_our_config(run_dir):
        raise UserError(
            f"{run_dir / found[0]} is not a run's, and would be written over: name another "
            "directory."
        )


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _has_our_config(run_dir: Path) -> bool:
    """Whether the config beside is one of ours: other programs that use Hydra write theirs so."""
    try:
        config = yaml.safe_load((run_dir / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(config, dict) and config.keys() >= {"task", "tokenizer", "trust", "resume"}


def has_come_to_something(run_dir: Path) -> bool:
    """Whether a training has come to a checkpoint, an evaluation or its end in a directory.

    The first checkpoint comes before the first evaluation, so that each of these tells of one,
    also where checkpoints have been deleted since.
    """
    metrics = read_metrics(run_dir)
    return (
        any((run_dir / name).exists() for name in (*KEPT, "predictions"))
        or any((run_dir / "checkpoints").glob("*.ckpt"))
        or metrics.get("status", "running") != "running"
        or len(metrics.keys() - {"status"}) > 0
    )


def clear(run_dir: Path) -> None:
    """Remove what a training has left that was ended before its first checkpoint."""
    for name in FILES:
        remove(run_dir / name)
    for folder, pattern in FOLDERS.items():
        for path in (run_dir / folder).glob(pattern):
            remove(path)
    clear_strays(run_dir)


def clear_strays(run_dir: Path) -> None:
    """Remove what kills have left of files that were being written."""
    for folder in (".", ".hydra", "checkpoints", "samples", "predictions"):
        for path in (run_dir / folder).glob("*.partial"):
            remove(path)
    if (run_dir / "model").exists():
        remove(run_dir / "model.previous")
