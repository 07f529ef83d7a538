"""Log-probabilities that a language model gives to the tokens of a text."""

import torch.nn.functional as F
from torch import Tensor

from hydralight.tasks.projection import Unprojected


def target_log_probs(logits: Tensor | Unprojected, labels: Tensor) -> Tensor:
    """Return the log-probability of each token that is a target, from the tokens before it.

    Args:
        logits: (batch, length, vocabulary), or what stands in their place.
        labels: (batch, length), -100 where there is no target.

    Returns:
        (batch, length - 1) in float32, 0 where the next token is no target.
    """
    if isinstance(logits, Unprojected):
        return -logits[:, :-1].losses(labels[:, 1:])
    return -F.cross_entropy(
        logits[:, :-1].float().transpose(1, 2),
        labels[:, 1:],
        ignore_index=-100,
        reduction="none",
    )
