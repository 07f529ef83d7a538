"""The mean loss over targets."""

import torch
from torch import Tensor
from torchmetrics import Metric


class TargetMean(Metric):
    """Sum of losses over sum of weights, whatever the batches and ranks; in 64 bits."""

    higher_is_better = False
    full_state_update = False

    loss_sum: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        # an Apple GPU has no 64 bits
        exact = torch.float32 if torch.backends.mps.is_available() else torch.float64
        for name in ("loss_sum", "weight"):
            self.add_state(name, torch.tensor(0.0, dtype=exact), dist_reduce_fx="sum")

    def update(self, loss_sum: Tensor, weight: Tensor) -> None:
        """Add a batch's summed loss and its weight (scalars)."""
        self.loss_sum += loss_sum.detach()
        self.weight += weight

    def compute(self) -> Tensor:
        """Return the mean; NaN where there was no target."""
        return self.loss_sum / self.weight
