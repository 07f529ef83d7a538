"""The reference: Hugging Face's Trainer, as somebody who knows it well would write it.

Batches are padded to their longest row in the collator, the optimizer is the default (fused AdamW),
the data are encoded before, without evaluation or checkpoints while the clock runs.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)

from benchmarks.hardware import on_gpu
from benchmarks.recorder import Recorder

# what Trainer offers for the same batches; the log at its own default
BEST: dict[str, Any] = {"logging_steps": 500}
# where it may choose the batches, too
BEST_ORDER: dict[str, Any] = {**BEST, "train_sampling_strategy": "group_by_length"}


class Reference(Seq2SeqTrainer):
    """Trainer, timed by the recorder; its training is that of `Trainer`, with any model.

    Args:
        recorder: The clock.
        order: The rows' order, instead of its own.
        kwargs: Those of `Trainer`.
    """

    def __init__(
        self, *, recorder: Recorder | None = None, order: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)  # the log stays off the terminal
        self.recorder = recorder
        self.order = order
        self.last_batch: Mapping[str, Any] = {}

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return super()._get_train_sampler(train_dataset) if self.order is None else self.order

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Keep the batch for the recorder."""
        self.last_batch = inputs
        return super().training_step(model, inputs, *args, **kwargs)


class Recording(TrainerCallback):
    """Tells the recorder where steps end."""

    def __init__(self) -> None:
        self.trainer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin."""
        self.trainer.recorder.begin(kwargs["model"], state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note a step."""
        self.trainer.recorder.step(self.trainer.last_batch)


def arguments(folder: Path, **values: Any) -> Seq2SeqTrainingArguments:
    """Return the arguments, with those settings of our recipes that differ from its defaults."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "log_level": "error",
        "logging_steps": 10,
        "num_train_epochs": 1,
        "use_cpu": not on_gpu(),
        "bf16": on_gpu(),
    }
    if on_gpu():
        settings["dataloader_num_workers"] = 2
    return Seq2SeqTrainingArguments(**{**settings, **values})


def train(
    model: Callable[[], PreTrainedModel],
    rows: Dataset,
    collator: Callable[..., Any],
    folder: Path,
    recorder: Recorder | None = None,
    order: Sequence[int] | None = None,
    tokenizer: Any = None,
    **values: Any,
) -> Reference:
    """Train, timed by the recorder.

    Args:
        model: Loads the model.
        rows: Encoded rows; columns that the model does not name are left out by Trainer.
        collator: Makes the batches.
        folder: For what Trainer writes.
        recorder: The clock.
        order: The rows' order, instead of its own.
        tokenizer: Tells Trainer the name of the input.
        values: Training arguments.
    """
    set_seed(0)
    recording = Recording()
    trainer = Reference(
        model=model(),
        args=arguments(folder, **values),
        train_dataset=rows,
        data_collator=collator,
        processing_class=tokenizer,
        recorder=recorder,
        order=order,
        callbacks=[recording] if recorder else None,
    )
    recording.trainer = trainer
    trainer.train()
    return trainer
