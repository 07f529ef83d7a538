"""What the same bits ask of a trainer, its processes and their threads (`trainer.same_bits`)."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from hydralight.errors import UserError
from hydralight.optim.build import trained
from hydralight.shards import is_sharded
from hydralight.tasks.gradient_tree import GradientTree

log = logging.getLogger(__name__)

THREADS = "OMP_NUM_THREADS"


def check_same_bits(trainer: Trainer) -> None:
    """Refuse devices and strategies whose sums cannot be those of one device.

    Raises:
        UserError: the number of devices is no power of two, or the strategy is another than DDP.
    """
    said, strategy = "trainer.same_bits=true", trainer.strategy
    if not isinstance(strategy, DDPStrategy | SingleDeviceStrategy):
        raise UserError(f"{said} goes with trainer=ddp, not with {type(strategy).__name__}.")
    devices = trainer.num_devices * trainer.num_nodes
    for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches"):
        limit = getattr(trainer, name)
        if devices > 1 and isinstance(limit, float) and limit not in (0.0, 1.0):
            raise UserError(
                f"{said}: {name}={limit} is a part of each device's batches: give a number of them."
            )
    if devices & (devices - 1):
        raise UserError(
            f"{said} adds up in pairs of devices, and pairs of pairs: {devices} devices are not "
            "made of them; take 1, 2, 4, 8 or so."
        )


@contextmanager
def fixed_threads(trainer: Trainer, same_bits: bool) -> Iterator[None]:
    """Compute with one thread a process on a CPU, unless `OMP_NUM_THREADS` says how many.

    The trainer would take as many as there are cores for each process.
    """
    if not (same_bits and isinstance(trainer.accelerator, CPUAccelerator)):
        yield
        return
    said, before = os.environ.get(THREADS), torch.get_num_threads()
    if said is None:
        log.info("trainer.same_bits=true: one thread a process (%s says another number)", THREADS)
    os.environ[THREADS] = said or "1"  # which processes that are started take over
    torch.set_num_threads(int(os.environ[THREADS].partition(",")[0]))
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if said is None:
            del os.environ[THREADS]


def begin_tree(task: LightningModule) -> GradientTree | None:
    """Return what adds up the gradients of a training; None where DDP does as it is used to.

    Raises:
        UserError: the model cannot have the same bits on several devices.
    """
    trainer, same = task.trainer, bool(task.same_bits)
    if not same and (trainer.world_size > 1 or is_sharded(task)):
        return None
    tree = GradientTree(trained(*trainer.optimizers), trainer.world_size)
    if trainer.world_size > 1:
        model = trainer.strategy.model
        assert isinstance(model, DistributedDataParallel), "check_same_bits lets no other through"
        check_buffers(task)
        model.register_comm_hook(None, tree.hook)
    return tree


def check_buffers(model: nn.Module) -> None:
    """Refuse layers that learn from the batches that their own device has seen."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            raise UserError(
                f"trainer.same_bits=true: {name} is a batch normalization, whose statistics are of "
                "the batches that its device sees: train on one device, or set same_bits=false."
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
