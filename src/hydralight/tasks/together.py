"""What devices that hold shards of one model have to do together: each forward pass.

In an evaluation the last step may have a micro-batch for some of them only. The others are given
one of theirs again (`data/order.py`), and count nothing of it.
"""

from typing import Any

from lightning.pytorch import Trainer

from hydralight.sharding import is_first_of_replica
from hydralight.tasks.data import Batch, PredictedRows
from hydralight.tasks.fits import check_loaded, check_training


def is_repeated(trainer: Trainer, batch_idx: int, set_idx: int = 0) -> bool:
    """Whether a batch of an evaluation is another process's too, and is only there to keep up."""
    loaders: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    loader = loaders[set_idx] if isinstance(loaders, list) else loaders
    batches: Any = loader.batch_sampler
    if not is_first_of_replica(trainer):
        return True
    return hasattr(batches, "is_repeated") and batches.is_repeated(batch_idx)


def keep_up(task: Any, batch: Batch) -> PredictedRows:
    """Do what an evaluation of a batch takes all devices for, and count nothing of it."""
    task.decode(task(batch), batch)
    return []


def check_before_reading(task: Any, checkpoint: dict[str, Any]) -> None:
    """Compare a sharded checkpoint with what is to go on from it.

    Args:
        task: With its optimizer and schedule.
        checkpoint: Its tensors need have no values.

    Raises:
        UserError: they do not fit.
    """
    trainer = task.trainer
    check_loaded(checkpoint, task.state_dict(), trainer.callbacks)
    schedule = next((one.scheduler for one in trainer.lr_scheduler_configs), None)
    check_training(checkpoint, task, trainer.optimizers[0], schedule, task.scheduler)
