"""Losses as a sum over targets and their weight."""

import torch.nn.functional as F
from torch import Tensor


def token_cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy and the number of labels that are not -100.

    Args:
        logits: (batch, length, vocabulary).
        labels: (batch, length).
        label_smoothing: Part of the probability that is spread over the vocabulary.
    """
    flat = labels.reshape(-1)
    loss_sum = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(),
        flat,
        ignore_index=-100,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return loss_sum, (flat != -100).sum()
