"""One right ending among several."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from transformers import AutoModelForMultipleChoice

from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.task import Task


@dataclass(kw_only=True, eq=False, repr=False)
class MultipleChoiceTask(Task):
    """Cross-entropy over the endings of an example, and accuracy."""

    auto_class = AutoModelForMultipleChoice
    inputs = ("context", "question")
    sample_columns = ("context", "ending", "reference")

    def build_metrics(self) -> dict[str, Metric]:
        """Return the accuracy."""
        return {"accuracy": MeanMetric()}

    def forward(self, batch: Batch) -> Any:
        """Call the model, and give -inf to the endings that a row does not have."""
        outputs = super().forward(batch)
        places = torch.arange(outputs.logits.shape[-1], device=outputs.logits.device)
        absent = places >= batch["choices"][:, None]
        outputs.logits = outputs.logits.masked_fill(absent, float("-inf"))
        return outputs

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over examples; smoothing spreads over a row's own endings."""
        logits, part = outputs.logits.float(), self.label_smoothing
        loss_sum, weight = token_cross_entropy(logits, batch["labels"])
        if part:
            logs = logits.log_softmax(-1).masked_fill(logits == float("-inf"), 0)
            spread = -(logs.sum(-1) / batch["choices"]).sum()
            loss_sum = (1 - part) * loss_sum + part * spread
        return loss_sum, weight

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return the number of the best ending, its text, and all scores."""
        scores = outputs.logits.float().softmax(-1)
        columns: dict[str, Any] = {"prediction": scores.argmax(-1).tolist()}
        pairs = zip(batch["endings"], columns["prediction"], strict=True)
        columns["ending"] = [endings[number] for endings, number in pairs]
        both = zip(scores.tolist(), batch["choices"].tolist(), strict=True)
        columns["scores"] = [row[:number] for row, number in both]
        if "labels" in batch:
            columns["reference"] = batch["labels"].tolist()
        return columns

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Compare the best ending with the right one."""
        logits, labels = outputs.logits, batch["labels"]
        right = (logits.argmax(-1) == labels).float()
        return {"accuracy": (right,), "further": (logits, labels)}
