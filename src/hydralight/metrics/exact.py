"""Texts that are exactly right."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class ExactMatch(Metric):
    """Part of the texts (0 to 1) that are equal to a reference, white space around them aside."""

    higher_is_better = True
    full_state_update = False

    right: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "count"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> None:
        """Compare each text with its reference, or with any of several."""
        for predicted, right in zip(predictions, references, strict=True):
            texts = [right] if isinstance(right, str) else right
            self.right += predicted.strip() in [text.strip() for text in texts]
            self.count += 1

    def compute(self) -> Tensor:
        """Return the part."""
        return self.right / self.count
