"""The run's own logger, one CSV file that survives a resume; and the end of a W&B run."""

import csv
import io
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from hydralight.errors import UserError, first_line
from hydralight.runs.files import append_text, replacing
from hydralight.runs.run import ANEW


@runtime_checkable
class ExactLog(Protocol):
    """A logger whose rows a repeated or resumed run has bit by bit; callbacks ask for no more.

    It gets nothing that differs from run to run, such as speeds, and forgets what came after the
    checkpoint that a run is resumed from.
    """

    def cut_after(self, step: int) -> None:
        """Drop what was logged after the checkpoint of an optimizer step."""


class CSVLogger(Logger):
    """Appends every logged row to `metrics.csv`, flushed at once; a new metric is a new column.

    Args:
        save_dir: The run's directory.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._columns: list[str] = []

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
            self._columns = list(read_rows(self.path)[0])
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
    def cut_after(self, step: int) -> None:
        """Drop what was logged after a checkpoint: later steps, and the evaluation at its own."""
        if self.path.exists():
            self._columns, rows = read_rows(self.path)
            evaluations = [c for c in self._columns if c.startswith(("val/", "test/"))]
            try:
                kept = [
                    row
                    for row in rows
                    if int(row["step"]) < step
                    or (int(row["step"]) == step and not any(row[c] for c in evaluations))
                ]
            except (ValueError, KeyError) as error:
                raise UserError(f"{self.path} is damaged: {ANEW}.") from error
            self._write(kept)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with replacing(self.path, newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return a CSV file's columns and its rows as text; a torn last line is left out.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(file)
        whole = [line for line in lines if line.endswith("\n")]  # in its last value, it may be torn
        reader = csv.DictReader(whole)
        columns = list(reader.fieldnames or [])
        rows = [row for row in reader if None not in row.values() and None not in row]
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}): {ANEW}.") from error
    return columns, rows


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
