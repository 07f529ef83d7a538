"""How fast training is."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from hydralight.callbacks.lightning_seams import logging_is_due
from hydralight.devices import replica_of
from hydralight.loggers import ExactLog


class Throughput(Callback):
    """Logs examples and tokens (without padding) a second, over all devices.

    Evaluations are left out. An `ExactLog`, such as `metrics.csv`, does not get what no repetition
    repeats.
    """

    def __init__(self) -> None:
        self._step = 0
        self._restart()

    def _restart(self) -> None:
        self._examples = 0
        self._tokens: Tensor | int = 0
        self._begin = time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._step = trainer.global_step
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; and log with the other values of a step."""
        self._examples += len(batch["row"])
        self._tokens = self._tokens + tokens_of(batch)
        step, before = trainer.global_step, self._step
        self._step = step
        if step == before or not logging_is_due(trainer):
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - self._begin) / replica_of(trainer)[1]
        examples = self._examples / seconds
        values = {"train/examples_per_second": examples}
        if tokens := int(self._tokens):
            values["train/tokens_per_second"] = tokens / seconds
        for logger in trainer.loggers:
            if not isinstance(logger, ExactLog):
                logger.log_metrics(values, step=step)
        self._restart()


def tokens_of(batch: dict[str, Any]) -> Tensor | int:
    """Return how many tokens of a batch are read, without padding; 0 where it has none."""
    if "attention_mask" in batch:
        return batch["attention_mask"].sum()
    return batch["input_ids"].numel() if "input_ids" in batch else 0
