"""A loss: mistakes weigh as much as they are wide."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from own_project.tasks import exceeded


def by_distance(
    outputs: Any, batch: Mapping[str, Tensor], power: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of thresholds, weighed by their distance, and the sum of weights.

    Args:
        outputs: With `logits` (batch, thresholds).
        batch: With `labels` (batch,).
        power: 0 weighs all thresholds alike.
    """
    logits, labels = outputs.logits.float(), batch["labels"]
    targets = exceeded(labels, logits.shape[1])
    middles = torch.arange(logits.shape[1], device=labels.device) + 0.5
    weights = (labels.unsqueeze(1) - middles).abs() ** power
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (weights * losses).sum(), weights.sum()
