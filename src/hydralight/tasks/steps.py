"""How many batches this process has of an optimizer step, and of an evaluation."""

from lightning.pytorch import Trainer


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
