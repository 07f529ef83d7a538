"""What the same bits on any number of devices ask of a trainer and of the processor's threads."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from hydralight.errors import UserError

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
    if isinstance(strategy, DDPStrategy) and strategy._ddp_comm_hook is not None:
        raise UserError(f"{said} adds gradients up itself: leave strategy.ddp_comm_hook out.")
    devices = trainer.num_devices * trainer.num_nodes
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
