"""What a step's completions are like: sums and numbers that add up over micro-batches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hydralight.tasks.rollouts import Written

WRITTEN = ("reward", "reward_squares", "same_reward", "completion_length", "ended")
LEARNT = ("clip_fraction", "entropy", "kl")


def sums_of(written: Written, rewards: Tensor, table: Tensor, number: int) -> Tensor:
    """Return sums and numbers of what has been written (5 and functions, 2), in 64 bits.

    Args:
        written: The completions.
        rewards: Of each (completions,), NaN where nobody judges.
        table: What each function gives (completions, functions), NaN where it does not judge.
        number: Completions of a prompt.
    """
    judged, values = ~rewards.isnan(), rewards.double().nan_to_num(nan=0.0)
    groups = rewards.reshape(-1, number)
    same = groups.nan_to_num(nan=0.0).amax(dim=1) == groups.nan_to_num(nan=0.0).amin(dim=1)
    lengths, ended = (torch.tensor(one).double() for one in (written.lengths, written.ended))
    pairs = [
        (values.sum(), judged.sum()),
        ((values**2).sum(), judged.sum()),
        (same.sum(), torch.tensor(len(same))),
        (lengths.sum(), torch.tensor(len(lengths))),
        (ended.sum(), torch.tensor(len(ended))),
        *zip(table.double().nansum(dim=0), (~table.isnan()).sum(dim=0), strict=True),
    ]
    return torch.stack([torch.stack([a.double(), b.double()]) for a, b in pairs])


def means_of(sums: Tensor, functions: Sequence[str], has_reference: bool) -> dict[str, Tensor]:
    """Return what is logged of a step by name.

    Args:
        sums: Those of all its completions, and behind them those of the loss (names, 2).
        functions: The names of the reward functions.
        has_reference: Whether there is a divergence from one.
    """
    names = [*WRITTEN, *(f"reward/{name}" for name in functions), *LEARNT]
    means = dict(zip(names, (sums[:, 0] / sums[:, 1]).float(), strict=True))
    squares, mean = means.pop("reward_squares"), means["reward"]
    means["reward_std"] = (squares - mean**2).clamp(min=0).sqrt()
    if not has_reference:
        del means["kl"]
    return means
