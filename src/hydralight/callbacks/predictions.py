"""Writes what evaluation and prediction return."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hydralight.devices import gathered
from hydralight.runs.as_json import row_as_json
from hydralight.runs.files import replacing, told


class Predictions(Callback):
    """Writes the rows that evaluation steps return as JSON lines, in the order of the data.

    Args:
        path: The file, replaced when the evaluation has ended.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: list[dict[str, Any]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect those of the first set; the others are there for their metrics."""
        if dataloader_idx == 0:
            self._rows += outputs

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather from all processes, sort and write."""
        rows, self._rows = self._rows, []
        if trainer.world_size > 1:
            rows = [row for part in gathered(rows) for row in part]
        if trainer.is_global_zero:
            write_json_lines(self.path, sorted(rows, key=lambda row: row["row"]))

    on_test_end = on_validation_end


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows to a file that appears only when it is whole; or to a device or a pipe.

    Raises:
        UserError: the disk is full, or the like.
    """
    with told(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.exists() and not path.is_file()
    with told(path), path.open("w", encoding="utf-8") if stream else replacing(path) as file:
        file.writelines(row_as_json(row) + "\n" for row in rows)
