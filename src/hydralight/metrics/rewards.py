"""What reward functions say of an evaluation's completions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class Rewards(Metric):
    """Mean and spread of the reward, means by function, mean length, and how many have ended.

    A completion that no function judges counts in lengths alone.

    Args:
        functions: The names of the reward functions.
    """

    higher_is_better = True
    full_state_update = False

    sums: Tensor
    by_function: Tensor

    def __init__(self, functions: Sequence[str]) -> None:
        super().__init__()
        self.functions = list(functions)
        self.names = ["reward", "reward_std", *(f"reward/{name}" for name in functions)]
        self.names += ["completion_length", "ended"]
        exact = torch.float32 if torch.backends.mps.is_available() else torch.float64
        # judged, the sums of rewards and of their squares; completions, their tokens, how many end
        self.add_state("sums", torch.zeros(6, dtype=exact), dist_reduce_fx="sum")
        self.add_state(
            "by_function", torch.zeros(2, len(functions), dtype=exact), dist_reduce_fx="sum"
        )

    def update(self, rewards: Tensor, table: Tensor, lengths: Tensor, ended: Tensor) -> None:
        """Add completions.

        Args:
            rewards: (completions,), NaN where no function judges.
            table: What each function gives (completions, functions), NaN where it does not judge.
            lengths: Tokens (completions,).
            ended: Whether each has ended by itself (completions,).
        """
        judged = ~rewards.isnan()
        own = rewards.nan_to_num(nan=0.0).to(self.sums)
        values = [judged.sum(), own.sum(), (own**2).sum(), judged.numel(), lengths.sum()]
        values.append(ended.sum())
        self.sums += torch.stack([torch.as_tensor(v).to(self.sums) for v in values])
        counts, sums = (~table.isnan()).sum(dim=0), table.to(self.sums).nansum(dim=0)
        self.by_function += torch.stack([counts.to(self.sums), sums])

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name; NaN where nothing was judged."""
        judged, total, squares, number, tokens, ended = self.sums
        mean = total / judged
        values = {"reward": mean, "reward_std": (squares / judged - mean**2).clamp(min=0).sqrt()}
        counts, sums = self.by_function
        for place, name in enumerate(self.functions):
            values[f"reward/{name}"] = sums[place] / counts[place]
        return {**values, "completion_length": tokens / number, "ended": ended / number}
