"""What devices that hold shards of one model have to do together: each forward pass.

In an evaluation the last step may have a micro-batch for some of them only. The others are given
one of theirs again (`data/order.py`), and count nothing of it.
"""

from typing import Any

from lightning.pytorch import Trainer

from hydralight.adapters import put_base_back
from hydralight.devices import is_first_of_replica
from hydralight.tasks.data import Batch, PredictedRows
from hydralight.tasks.fits import check_loaded, check_training
from hydralight.tasks.optimization import optimized
from hydralight.tasks.randomness import seed_evaluation


def is_repeated(trainer: Trainer, batch_idx: int, set_idx: int = 0) -> bool:
    """Whether a batch of an evaluation is another process's too, and is only there to keep up."""
    loaders: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    loader = loaders[set_idx] if isinstance(loaders, list) else loaders
    batches: Any = loader.batch_sampler
    if not is_first_of_replica(trainer):
        return True
    return hasattr(batches, "is_repeated") and batches.is_repeated(batch_idx)


def evaluate_in_step(task: Any, batch: Batch, batch_idx: int, set_idx: int = 0) -> PredictedRows:
    """Evaluate a batch; or do only what all devices are needed for, and count nothing of it."""
    seed_evaluation(task.datamodule.seed, task.trainer, batch_idx, set_idx)
    if not is_repeated(task.trainer, batch_idx, set_idx):
        return task.evaluation_step(batch)
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
    trainer, checkpoint = task.trainer, dict(checkpoint)
    put_base_back(checkpoint, task.model)
    check_loaded(checkpoint, task.state_dict(), trainer.callbacks)
    check_training(checkpoint, task, *optimized(trainer))
