"""Where the study of a sweep is kept, and reading it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna

from hydralight.errors import UserError, first_line

STUDY = "study.db"


def storage_in(folder: Path) -> str:
    """Return the URL of the study in a sweep's directory."""
    return f"sqlite:///{folder.resolve() / STUDY}"


def stored_study(folder: Path) -> optuna.Study:
    """Load the study in a sweep's directory, with all its trials.

    Raises:
        UserError: what is there is none, or it is damaged.
    """
    url = storage_in(folder)
    with readable(folder / STUDY):
        study = optuna.load_study(study_name=study_name(folder, url), storage=url)
        study.get_trials(deepcopy=False)
        return study


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tell in a sentence whatever SQLite, JSON and Optuna find wrong in a file."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as a study ({type(error).__name__}: {first_line(error)})."
        ) from error


def study_name(folder: Path, storage: str) -> str:
    """Return the name of a sweep's study; one in its own directory keeps it when that is moved."""
    names = optuna.get_all_study_names(storage) if storage == storage_in(folder) else []
    return names[0] if names else folder.name
