"""How many batches this process has of an optimizer step, and of an evaluation."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from hydralight.tasks.data import Batch


def micro_batches(trainer: Trainer, batch_idx: int) -> int:
    """Return how many micro-batches of this process the step of a batch has."""
    most = trainer.accumulate_grad_batches
    left = trainer.num_training_batches - batch_idx + batch_idx % most
    return int(min(most, left))


def evaluated_batches(trainer: Trainer) -> list[int]:
    """Return how many batches this process has of each set of the evaluation at hand."""
    if trainer.testing:
        return [int(number) for number in trainer.num_test_batches]
    return [int(number) for number in trainer.num_val_batches]


def batches_of_step(task: LightningModule, first: Batch, batch_idx: int) -> Iterator[Batch]:
    """Yield this process's micro-batches of the step that begins with a batch.

    What is the same for all of a step is computed with them before the first one. The others are
    read once more than they are trained on, by the order of the data, which knows them.
    """
    trainer: Any = task.trainer
    yield first
    if (number := micro_batches(trainer, batch_idx)) > 1:
        loader = trainer.train_dataloader
        span = batch_idx + 1, batch_idx + number
        for places in loader.batch_sampler.of_epoch(trainer.current_epoch, *span):
            batch = loader.collate_fn(loader.dataset.__getitems__(places))
            yield task.transfer_batch_to_device(batch, task.device, 0)
