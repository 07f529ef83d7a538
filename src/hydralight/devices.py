"""Which micro-batches are a device's, and what devices have together."""

from typing import Any

from lightning.pytorch import Trainer
from torch import distributed

from hydralight.errors import UserError


def together(trainer: Trainer) -> int:
    """Return how many devices have the same micro-batch, because they share each matrix."""
    return getattr(trainer.strategy, "tensor_parallel_size", 1)


def replica_of(trainer: Trainer) -> tuple[int, int]:
    """Return the number of this device's micro-batches among those of a round, and theirs.

    Devices that share each matrix have the same micro-batch.
    """
    size = together(trainer)
    return trainer.global_rank // size, trainer.world_size // size


def is_first_of_replica(trainer: Trainer) -> bool:
    """Whether this device counts what it evaluates; those beside it have the same."""
    return trainer.global_rank % together(trainer) == 0


def share_steps(trainer: Trainer, batches_per_step: int | None) -> None:
    """Let each device accumulate its share of a step's micro-batches, where their number is said.

    Raises:
        UserError: they cannot be shared, or the trainer's number is said too.
    """
    if batches_per_step is None:
        return
    said, devices = f"data.batches_per_step={batches_per_step}", trainer.num_devices
    devices = devices * trainer.num_nodes // together(trainer)
    if trainer.accumulate_grad_batches != 1:
        raise UserError(
            f"{said} says how many micro-batches an optimizer step has over all devices, and "
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} how many on each: "
            "set the first to null, or the second to 1."
        )
    if batches_per_step % devices:
        raise UserError(
            f"{said} cannot be shared by {devices} devices: take a number that they divide."
        )
    trainer.accumulate_grad_batches = batches_per_step // devices


def gathered(value: Any) -> list[Any]:
    """Return what each process gives, in the order of their ranks."""
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
