"""How the micro-batches of an optimizer step are shared by devices, and added up again."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from hydralight import optim
from hydralight.errors import UserError
from hydralight.tasks.same_bits import GradientTree


def micro_batches(trainer: Trainer, batch_idx: int) -> int:
    """Return how many micro-batches of this process the step of a batch has."""
    most = trainer.accumulate_grad_batches
    left = trainer.num_training_batches - batch_idx + batch_idx % most
    return int(min(most, left))


def begin_tree(task: LightningModule) -> GradientTree | None:
    """Return what adds up the gradients of a training; None where DDP does as it is used to.

    Raises:
        UserError: the model cannot have the same bits on several devices.
    """
    trainer, same = task.trainer, bool(task.same_bits)
    if not same and trainer.world_size > 1:
        return None
    tree = GradientTree(optim.trained(*trainer.optimizers), trainer.world_size)
    if trainer.world_size > 1:
        model = trainer.strategy.model
        assert isinstance(model, DistributedDataParallel), "same_bits.py lets no other through"
        check_buffers(task)
        model.register_comm_hook(None, tree.hook)
    return tree


def check_buffers(model: nn.Module) -> None:
    """Refuse layers that learn from the batches that their own device has seen."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            raise UserError(
                f"trainer.same_bits=true: {name} is a batch normalization, whose running statistics "
                "are of the batches that each device sees: train on one device, or switch it off."
            )


def divided_by(task: LightningModule) -> int:
    """Return what gradients have been divided by since backward.

    The trainer divides by the micro-batches of a full step in this process, and DDP, where it adds
    up, by the processes.
    """
    processes = 1 if task.same_bits else task.trainer.world_size
    return task.trainer.accumulate_grad_batches * processes


def reduction(task: LightningModule) -> Callable[[Tensor], Tensor] | None:
    """Return what adds up the loss sums and weights (micro-batches, 2) of all processes."""
    strategy: Any = task.trainer.strategy
    if task.trainer.world_size == 1:
        return None
    if task.same_bits:  # in the order of the micro-batches
        return lambda window: strategy.all_gather(window).reshape(-1, 2).sum(dim=0)
    return lambda window: strategy.reduce(window.sum(dim=0), reduce_op="sum")


def evaluated_batches(trainer: Trainer) -> list[int]:
    """Return how many batches this process has of each set of the evaluation at hand."""
    if trainer.testing:
        return [int(number) for number in trainer.num_test_batches]
    return [int(number) for number in trainer.num_val_batches]
