"""The run's own logger, one CSV file that survives a resume; and the end of a W&B run."""

import csv
import io
import logging
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from hydralight.errors import UserError
from hydralight.runs.files import append_text, replacing
from hydralight.runs.rows import ANEW, Count, read_rows

log = logging.getLogger(__name__)


@runtime_checkable
class ExactLog(Protocol):
    """A logger whose rows a repeated or resumed run has bit by bit; callbacks ask for no more.

    A checkpoint keeps what `logged` says, and a resume from it hands that to `cut_after`.

    It gets nothing that differs from run to run, such as speeds, and forgets what came after the
    checkpoint that a run is resumed from.
    """

    def logged(self) -> str:
        """Return a text that tells whether two logs are the same until now."""

    def cut_after(self, step: int, logged: str | None = None) -> None:
        """Drop what was logged after the checkpoint of an optimizer step.

        Raises:
            UserError: what was logged before is not what the checkpoint knows.
        """


class CSVLogger(Logger):
    """Appends every logged row to `metrics.csv`, flushed at once; a new metric is a new column.

    Args:
        save_dir: The run's directory.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._rows = Count()  # that are in the file

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one version."""
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Leave them to `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Write a row; `step` counts optimizer steps."""
        row = {"step": step, **{name: _number(value) for name, value in metrics.items()}}
        if not self._columns and self.path.exists():
            self._columns, rows = read_rows(self.path)
            self._rows.add(rows)
        self._rows.add([row])
        new = [name for name in row if name not in self._columns]
        if new:
            rows = read_rows(self.path)[1] if self.path.exists() else []
            self._columns += new
            self._write([*rows, row])
            return
        text = io.StringIO()
        csv.DictWriter(text, self._columns).writerow(row)
        append_text(self.path, text.getvalue())

    @rank_zero_only
    def logged(self) -> str:
        """Return how many rows there are, and the checksum of their values."""
        return str(self._rows)

    @rank_zero_only
    def cut_after(self, step: int, logged: str | None = None) -> None:
        """Drop what was logged after a checkpoint: its later rows.

        Where an earlier version's checkpoint does not know their number, these are those of later
        steps, and the evaluation at its own.
        """
        self._rows = Count()
        if not self.path.exists():
            if logged not in (None, self.logged()):
                log.warning("%s is gone: the rows up to step %d are lost", self.path, step)
            return
        self._columns, rows = read_rows(self.path)
        evaluations = [c for c in self._columns if c.startswith(("val/", "test/"))]
        if logged is not None:
            kept = rows[: int(logged.partition(":")[0])]
        else:
            kept = [
                row
                for row in rows
                if int(row["step"]) < step
                or (int(row["step"]) == step and not any(row[c] for c in evaluations))
            ]
        self._rows.add(kept)
        if logged not in (None, self.logged()):
            raise UserError(
                f"{self.path} is damaged (in its first {len(kept) + 1} lines there is a value "
                f"that was not logged): {ANEW}."
            )
        self._write(kept)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with replacing(self.path, newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


@contextmanager
def wandb_run_ends() -> Iterator[None]:
    """End the W&B run that begins in here, so that what this process trains next is another.

    A run that the user has begun stays open, and gets the values.
    """

    def current() -> Any:
        return getattr(sys.modules.get("wandb"), "run", None)

    before, exit_code = current(), 1
    try:
        yield
        exit_code = 0
    finally:
        if before is None and current() is not None:
            current().finish(exit_code=exit_code)


def _number(value: float | Tensor) -> float | int:
    return value.item() if isinstance(value, Tensor) else value
