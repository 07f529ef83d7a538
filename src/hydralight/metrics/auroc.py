"""The area under the ROC curve of each label."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.classification import BinaryAUROC, MultilabelAUROC
from torchmetrics.utilities.data import dim_zero_cat


class DefinedAUROC(BinaryAUROC):
    """AUROC of two classes, NaN where all examples are of one."""

    def __init__(self) -> None:
        super().__init__(thresholds=None)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the area."""
        target = dim_zero_cat(self.target)
        if target.min() == target.max():
            return torch.full((), torch.nan, device=target.device)
        return super().compute()


class LabelAUROC(MultilabelAUROC):
    """AUROC by label name and its mean, `auroc`.

    A label that all examples have, or none, has no such area: it is NaN, and not in the mean.

    Args:
        label_names: The labels in the order of their numbers.
    """

    def __init__(self, label_names: Sequence[str]) -> None:
        super().__init__(num_labels=len(label_names), average="none", thresholds=None)
        self.label_names = list(label_names)
        self.names = ["auroc", *(f"auroc/{name}" for name in self.label_names)]

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the areas."""
        target = dim_zero_cat(self.target)
        positive = target.sum(dim=0)
        defined = (positive > 0) & (positive < len(target))
        areas = torch.full((len(self.label_names),), torch.nan, device=target.device)
        if defined.any():
            areas[defined] = super().compute()[defined].to(areas.dtype)
        return dict(zip(self.names, [areas.nanmean(), *areas], strict=True))
