"""A task: ratings that have an order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric
from transformers import AutoModelForSequenceClassification

from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.losses import label_cross_entropy
from hydralight.tasks.task import Task


@dataclass(kw_only=True, eq=False, repr=False)
class OrdinalTask(Task):
    """Ordinal regression by thresholds (Frank and Hall, 2001): is the rating above 1, above 2, …?

    Args:
        threshold: The probability from which a rating is above a threshold.
    """

    threshold: float = 0.5

    auto_class = AutoModelForSequenceClassification
    inputs = ("text",)
    sample_columns = ("text", "rating", "reference")

    def model_arguments(self) -> dict[str, Any]:
        """Return one output for each threshold."""
        number = self.datamodule.shape.levels - 1
        return {"num_labels": number, "problem_type": "multi_label_classification"}

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the binary cross-entropy over thresholds."""
        above = exceeded(batch["labels"], outputs.logits.shape[1])
        return label_cross_entropy(outputs.logits, above, self.label_smoothing)

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return the rating: one more than the thresholds that are exceeded."""
        above = outputs.logits.float().sigmoid() > self.threshold
        columns = {"rating": (1 + above.sum(dim=1)).tolist()}
        if "labels" in batch:
            columns["reference"] = (1 + batch["labels"]).tolist()
        return columns

    def build_metrics(self) -> dict[str, Metric]:
        """Return the mean distance in stars."""
        return {"mae": MeanAbsoluteError()}

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Compare ratings."""
        pair = tuple(torch.tensor(columns[name]) for name in ("rating", "reference"))
        return {"mae": pair, "further": pair}


def exceeded(labels: Tensor, thresholds: int) -> Tensor:
    """Return 1.0 where a label (batch,) is above a threshold, else 0.0: (batch, thresholds)."""
    return (labels.unsqueeze(1) > torch.arange(thresholds, device=labels.device)).float()
