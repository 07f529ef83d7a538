"""The loss of Kahneman-Tversky optimization over a whole set, and what is told of it."""

from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


def kto_losses(ratios: Tensor, desirable: Tensor, baseline: Tensor, beta: float) -> Tensor:
    """Return the loss of each answer (Ethayarajh et al., 2024, equation 7).

    Args:
        ratios: Log policy - log reference of the answers (batch,).
        desirable: Whether they are good ones (batch,).
        baseline: What others' ratios are on average (scalar).
        beta: What a ratio counts.
    """
    better = beta * (ratios - baseline)
    return torch.where(desirable, (-better).sigmoid(), better.sigmoid())


class KTOLoss(Metric):
    """The mean loss of a set's answers beside the baseline of the whole set; rewards beside it.

    Of each answer four numbers are kept.

    Args:
        beta: What a ratio counts.
        with_baseline: Or with 0 in its place.
    """

    names: ClassVar[list[str]] = ["loss", "rewards_chosen", "rewards_rejected", "margin", "kl"]
    higher_is_better = False
    full_state_update = False

    ratios: list[Tensor]
    desirable: list[Tensor]
    weights: list[Tensor]
    apart: list[Tensor]

    def __init__(self, beta: float, with_baseline: bool = True) -> None:
        super().__init__()
        self.beta = beta
        self.with_baseline = with_baseline
        for name in ("ratios", "desirable", "weights", "apart"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, ratios: Tensor, desirable: Tensor, weights: Tensor, apart: Tensor) -> None:
        """Add answers, what their losses count, and the ratios of other answers; all (batch,)."""
        self.ratios.append(ratios.detach().double())
        self.desirable.append(desirable)
        self.weights.append(weights)
        self.apart.append(apart.double())

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name; rewards are NaN where there is no such answer."""
        ratios, desirable = dim_zero_cat(self.ratios), dim_zero_cat(self.desirable)
        apart = dim_zero_cat(self.apart).mean().clamp(min=0)
        baseline = apart if self.with_baseline else torch.zeros_like(apart)
        losses = kto_losses(ratios, desirable, baseline, self.beta) * dim_zero_cat(self.weights)
        chosen, rejected = (self.beta * ratios[one].mean() for one in (desirable, ~desirable))
        values = losses.mean(), chosen, rejected, chosen - rejected, apart
        return dict(zip(self.names, values, strict=True))
