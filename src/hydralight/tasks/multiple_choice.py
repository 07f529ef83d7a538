"""One right ending among several."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import MeanMetric, Metric
from transformers import AutoModelForMultipleChoice

from hydralight.tasks.evaluated import Batch, Rows
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.task import Task


class MultipleChoiceTask(Task):
    """Cross-entropy over the endings of an example, and accuracy."""

    auto_class = AutoModelForMultipleChoice
    sample_columns = ("context", "ending", "reference")

    @property
    def metric_names(self) -> Sequence[str]:
        """Accuracy."""
        return ("accuracy",)

    def build_metrics(self) -> dict[str, Metric]:
        """Return the accuracy."""
        return {"accuracy": MeanMetric()}

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over examples."""
        return token_cross_entropy(outputs.logits, batch["labels"], self.label_smoothing)

    def update_metrics(self, outputs: Any, batch: Batch) -> Rows:
        """Compare the best ending with the right one."""
        logits, labels = outputs.logits.float(), batch["labels"]
        self.metrics["accuracy"].update((logits.argmax(-1) == labels).float())  # type: ignore[operator]
        self.update_further_metrics(logits, labels)
        return self.chosen_rows(outputs, batch)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Rows:
        """Return the number of the best ending, its text, and all scores."""
        return self.chosen_rows(self(batch), batch)

    def chosen_rows(self, outputs: Any, batch: Batch) -> Rows:
        """Lay out the choices."""
        scores = outputs.logits.float().softmax(-1)
        columns: dict[str, Any] = {"prediction": scores.argmax(-1).tolist()}
        pairs = zip(batch["endings"], columns["prediction"], strict=True)
        columns["ending"] = [endings[number] for endings, number in pairs]
        columns["scores"] = scores.tolist()
        if "labels" in batch:
            columns["reference"] = batch["labels"].tolist()
        return self.rows(batch, "context", "question", **columns)
