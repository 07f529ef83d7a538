"""One right ending among several."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over examples."""
        return token_cross_entropy(outputs.logits, batch["labels"], self.label_smoothing)

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return the number of the best ending, its text, and all scores."""
        scores = outputs.logits.float().softmax(-1)
        columns: dict[str, Any] = {"prediction": scores.argmax(-1).tolist()}
        pairs = zip(batch["endings"], columns["prediction"], strict=True)
        columns["ending"] = [endings[number] for endings, number in pairs]
        columns["scores"] = scores.tolist()
        if "labels" in batch:
            columns["reference"] = batch["labels"].tolist()
        return columns

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Compare the best ending with the right one."""
        logits, labels = outputs.logits, batch["labels"]
        right = (logits.argmax(-1) == labels).float()
        return {"accuracy": (right,), "further": (logits, labels)}
