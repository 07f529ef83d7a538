"""What is random in a micro-batch: a pure function of (seed, step, number), on any device."""

import random

import numpy as np
import torch

TRAINING, OPTIMIZER, EVALUATION = range(3)


def seed_streams(seed: int, what: int, *place: int) -> None:
    """Seed the streams of Python, NumPy and torch for a micro-batch, whoever computes it.

    So dropout is the same one however the micro-batches of a step are shared, and a resumed run
    needs no saved states.

    Args:
        seed: Of the run.
        what: `TRAINING`, with the step and the number of the micro-batch in it; `OPTIMIZER`, with
            the step, for what an optimizer draws, alike on all devices; `EVALUATION`, with the
            step, the number of the set, and that of the micro-batch.
        place: Those numbers.
    """
    words = np.random.SeedSequence([seed, what, *place]).generate_state(4)
    torch.manual_seed(int(words[:2].view(np.uint64)[0] >> np.uint64(1)))
    np.random.seed(words[2])
    random.seed(int(words[3]))
