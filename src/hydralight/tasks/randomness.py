"""What is random in a micro-batch: a pure function of (seed, step, number), on any device.

So dropout is the same one however the micro-batches of a step are shared by devices, and a resumed
run needs no saved states of random streams.
"""

import random

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from hydralight.devices import replica_of

TRAINING, OPTIMIZER, EVALUATION, GENERATION = range(4)


def seed_training(seed: int, trainer: Trainer, batch_idx: int) -> None:
    """Seed the streams for a micro-batch of training, by its number among those of its step."""
    seed_streams(seed, TRAINING, trainer.global_step, number_in_step(trainer, batch_idx))


def number_in_step(trainer: Trainer, batch_idx: int) -> int:
    """Return the number of a micro-batch among those of its step, over all devices."""
    own = trainer.accumulate_grad_batches
    return replica_of(trainer)[0] * own + batch_idx % own


def seeds_of_rows(seed: int, trainer: Trainer, rows: Tensor) -> list[int]:
    """Return a seed for what is drawn for each row (rows,) in a step, whatever it is beside."""
    step = trainer.global_step
    return [seed_of(seed, GENERATION, step, row)[0] for row in rows.tolist()]


def seed_optimizer(seed: int, trainer: Trainer) -> None:
    """Seed the streams for what an optimizer draws in a step, alike on all devices."""
    seed_streams(seed, OPTIMIZER, trainer.global_step)


def seed_evaluation(seed: int, trainer: Trainer, batch_idx: int, set_idx: int = 0) -> None:
    """Seed the streams for a micro-batch of an evaluation, by its number in its set."""
    rank, devices = replica_of(trainer)
    number = batch_idx * devices + rank
    seed_streams(seed, EVALUATION, trainer.global_step, set_idx, number)


def seed_streams(*numbers: int) -> None:
    """Seed the streams of Python, NumPy and torch by the numbers that something random is of."""
    seed, words = seed_of(*numbers)
    # `torch.manual_seed` takes milliseconds where a device has not been used yet
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    np.random.seed(words[2])
    random.seed(int(words[3]))


def seed_of(*numbers: int) -> tuple[int, np.ndarray]:
    """Return a seed for torch, and the words that it is made of."""
    words = np.random.SeedSequence(numbers).generate_state(4)
    return int(words[0]) << 31 | int(words[1]), words
