"""Shows what the model writes, before training and after each evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from rich.table import Table
from rich.text import Text

from hydralight.callbacks.lightning_seams import datamodule_of
from hydralight.callbacks.predictions import write_json_lines
from hydralight.config.ranges import Positive
from hydralight.errors import UserError
from hydralight.progress import console, short
from hydralight.runs.files import replacing
from hydralight.shards import is_sharded

MOST_PIXELS = 256  # of either side of a picture that is kept


class Samples(Callback):
    """Predicts a few validation examples, prints them, and writes them as JSON lines.

    They are the first; where they have labels, the first of each. `image` is the file of the data,
    or one in `images/` beside the lines. What is written for `prompts` stands in files and a table
    of its own, also where there is no validation: then before training and at its end.

    Args:
        dirpath: Folder of the files, `step-<n>.jsonl`.
        num_samples: How many examples.
        max_chars: Where longer texts are cut when shown; on a narrow terminal they are cut earlier.
        before_training: Whether the untrained model is asked too.
        prompts: A file of what `predict.py` takes too: a text a line, or JSON lines.

    Raises:
        UserError: there is no such file.
    """

    def __init__(
        self,
        dirpath: str,
        num_samples: Positive = 3,
        max_chars: Positive = 400,
        before_training: bool = True,
        prompts: str | None = None,
    ) -> None:
        if prompts is not None and not Path(prompts).expanduser().is_file():
            raise UserError(f"callbacks.samples.prompts={prompts} is no file.")
        self.dirpath = Path(dirpath)
        self.num_samples = num_samples
        self.max_chars = max_chars
        self.before_training = before_training
        self.prompts = None if prompts is None else str(Path(prompts).expanduser().resolve())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the prompts, so that what is wrong with them is told before training."""
        if self.prompts is not None and stage == "fit":
            datamodule_of(trainer).prompts_batch(self.prompts)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the model as it comes."""
        if self.before_training and trainer.global_step == 0:
            self.show(trainer, pl_module, "before training")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the model as it has become."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.show(trainer, pl_module, f"after step {trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the prompts have come to where no evaluation does."""
        if not trainer.limit_val_batches:
            self.show(trainer, pl_module, f"after step {trainer.global_step}")

    def show(self, trainer: Trainer, pl_module: LightningModule, when: str) -> None:
        """Predict on the first process, without a trace in the random streams.

        Those that hold shards of the model have to take part.
        """
        if not is_sharded(pl_module) and not trainer.is_global_zero:
            return
        datamodule = datamodule_of(trainer)
        step = f"step-{trainer.global_step:08d}.jsonl"
        if trainer.limit_val_batches:
            batch = datamodule.sample_batch(datamodule.validation_split, self.num_samples)
            self.predict(trainer, pl_module, batch, self.dirpath / step, f"Samples {when}")
        if self.prompts is not None:
            batch = datamodule.prompts_batch(self.prompts)
            path = self.dirpath / f"prompts-{step}"
            self.predict(trainer, pl_module, batch, path, f"Prompts {when}")

    def predict(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, path: Path, title: str
    ) -> None:
        """Predict a batch; write it to a file, and print it."""
        pictures = batch.pop("picture", [])
        batch = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
        training = pl_module.training
        pl_module.eval()
        with torch.no_grad(), isolate_rng(), trainer.precision_plugin.forward_context():
            rows = pl_module.predict_step(batch)
        pl_module.train(training)
        if not trainer.is_global_zero:
            return
        for row, picture in zip(rows, pictures, strict=False):
            if picture is not None:
                row["image"] = self.keep(picture, row["row"])
        write_json_lines(path, rows)
        self.print(rows, pl_module.sample_columns, title)  # type: ignore[arg-type]

    def keep(self, picture: Any, row: int) -> str:
        """Write a picture that no file of the data holds, and return its path from `dirpath`."""
        path = self.dirpath / "images" / f"{row}.png"
        if not path.is_file():
            picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
            with replacing(path, "wb") as file:
                picture.save(file, "PNG")
        return path.relative_to(self.dirpath).as_posix()

    def print(self, rows: list[dict], names: Sequence[str], title: str) -> None:
        """Print predictions and references as a table, no wider than it needs to be."""
        columns = [name for name in names if name in rows[0]]
        share = console().width // len(columns) - 3  # of a line
        cells = [
            [self.cell(shown(row[column], column), share) for column in columns] for row in rows
        ]
        several_lines = any(len(cell) > share for line in cells for cell in line)
        table = Table(*columns, title=title, title_justify="left", show_lines=several_lines)
        for line in cells:
            table.add_row(*line)
        console().print(table)

    def cell(self, value: Any, share: int) -> Text:
        """Put a value into words: five lines of a column at most."""
        values = value if isinstance(value, list) else [value]
        words = [short(v) if isinstance(v, float) else str(v) for v in values]
        # several texts, such as references, are told apart; tags and numbers need no sign
        text = (" | " if any(" " in word for word in words) else " ").join(words)
        room = max(10, min(self.max_chars, 5 * share))
        return Text(text if len(text) <= room else f"{text[: room - 1]}…")  # no markup


def shown(value: Any, column: str) -> Any:
    """Return what a table shows of a value: of an image, its file with the folder that it is in."""
    return "/".join(Path(value).parts[-2:]) if column == "image" and value else value
