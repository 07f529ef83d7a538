"""The weights of a run: what of its directory they are, and their removal by a sweep.

A run whose weights are gone keeps what it has come to: metrics, configs, records and samples.
"""

from pathlib import Path

from hydralight.disk import size_of
from hydralight.errors import UserError
from hydralight.runs.files import remove, write_text
from hydralight.runs.sealed import sealed_json

FOLDERS = ("model", "model-last", "model.previous", "model.step-*", "checkpoints")
REMOVED = "removed.json"  # says that weights are gone on purpose


def weights_in(run_dir: Path) -> list[Path]:
    """Return the folders of a run with weights in them; a link to one is none."""
    found = [path for pattern in FOLDERS for path in sorted(run_dir.glob(pattern))]
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def remove_weights(run_dir: Path, why: str) -> int:
    """Remove the weights of a run, and return how many bytes that were.

    What says so is written first: a run that is half removed by a kill is known as that too.

    Args:
        run_dir: The run's directory, in which nobody else is at work.
        why: The setting by which they are removed.
    """
    folders = weights_in(run_dir)
    before = size_of(folders)
    names = [folder.name for folder in folders]
    write_text(run_dir / REMOVED, sealed_json({"removed": names, "bytes": before, "why": why}))
    for folder in folders:
        remove(folder)
    return before - size_of(weights_in(run_dir))


def check_weights_are_there(run_dir: Path) -> None:
    """Tell of a trial whose sweep has removed its weights.

    Raises:
        UserError: it is one.
    """
    if (run_dir / REMOVED).is_file():
        raise UserError(
            f"{run_dir} has no weights any more: its sweep has kept those of its best trials "
            f"(hparams_search.keep). {run_dir / '.hydra' / 'overrides.yaml'} says what trains it "
            "again."
        )
