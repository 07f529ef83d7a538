"""Classification of whole examples: one label, several labels, or a number."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchmetrics import MeanSquaredError, Metric, PearsonCorrCoef, SpearmanCorrCoef
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
    MultilabelExactMatch,
    MultilabelF1Score,
)
from torchmetrics.wrappers import ClasswiseWrapper
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hydralight.config.ranges import Fraction
from hydralight.errors import UserError
from hydralight.metrics.auroc import LabelAUROC
from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.labelled import LabelledTask, label_counts
from hydralight.tasks.losses import label_cross_entropy, number, token_cross_entropy


@dataclass(kw_only=True, eq=False, repr=False)
class ClassificationTask(LabelledTask):
    """Cross-entropy, binary cross-entropy or squared error, by the problem's type.

    Metrics, by torchmetrics: accuracy, F1 (of the second label where there are two; macro, micro)
    and Matthews' correlation; for several labels the part of examples that are all right, F1 and
    AUROC; for numbers Pearson's and Spearman's correlation and the mean squared error.

    Args:
        problem_type: As in the model's config.
        threshold: The probability from which one of several labels is given.
    """

    problem_type: str = "single_label_classification"
    threshold: Fraction = 0.5

    sample_columns = ("text", "text_pair", "image", "label", "score", "reference")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.problem_type == "regression" and self.class_weights is not None:
            raise UserError("task.class_weights are for labels, and this is a regression.")

    def model_arguments(self) -> dict[str, Any]:
        """Return the labels, and the problem's type."""
        if self.problem_type == "regression":
            return {"num_labels": 1, "problem_type": "regression"}
        return {**super().model_arguments(), "problem_type": self.problem_type}

    def balanced_weights(self) -> list[float]:
        """Return those of `LabelledTask`; of several labels, the absent by the present."""
        if self.problem_type != "multi_label_classification":
            return super().balanced_weights()
        train = self.datamodule.encoded("train")
        counts = label_counts(train, len(self.label_names))
        return [(len(train) - count) / max(1, count) for count in counts]

    def build_metrics(self) -> dict[str, Metric]:
        """Return the metrics of this type of problem."""
        names = list(self.label_names)
        size = len(names)
        if self.problem_type == "regression":
            correlations = {"pearson": PearsonCorrCoef(), "spearman": SpearmanCorrCoef()}
            return {**correlations, "mse": MeanSquaredError()}
        if self.problem_type == "multi_label_classification":
            options: dict[str, Any] = {"num_labels": size, "threshold": self.threshold}
            return {
                "accuracy": MultilabelExactMatch(**options),
                "f1_macro": MultilabelF1Score(**options, average="macro"),
                "f1_micro": MultilabelF1Score(**options, average="micro"),
                "f1": ClasswiseWrapper(
                    MultilabelF1Score(**options, average="none"), labels=names, prefix="f1/"
                ),
                "auroc": LabelAUROC(names),
            }
        metrics = {
            "accuracy": MulticlassAccuracy(size, average="micro"),
            "f1_macro": MulticlassF1Score(size, average="macro"),
            "f1_micro": MulticlassF1Score(size, average="micro"),
            "mcc": MulticlassMatthewsCorrCoef(max(3, size)),  # of two it has another opinion
        }
        return metrics | ({"f1": BinaryF1Score()} if size == 2 else {})

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the loss over examples, or over examples and labels."""
        logits, labels = outputs.logits, batch["labels"]
        if self.problem_type == "regression":
            error = logits.float().squeeze(-1) - labels
            return (error**2).sum(), number(labels.numel(), labels)
        function: Any = token_cross_entropy
        if self.problem_type == "multi_label_classification":
            function = label_cross_entropy
        return function(logits, labels, self.label_smoothing, self.weights)

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Compare with the labels: numbers, probabilities, or (`f1` of two, `mcc`) the best."""
        logits, labels = outputs.logits.float(), batch["labels"]
        preds = logits.softmax(-1)
        if self.problem_type == "regression":
            preds = logits.squeeze(-1)
        elif self.problem_type == "multi_label_classification":
            preds, labels = logits.sigmoid(), labels.long()
        names = [*self.evaluation.metrics, "further"]
        scores: dict[str, tuple] = dict.fromkeys(names, (preds, labels))
        if self.problem_type == "single_label_classification":
            scores |= dict.fromkeys(("f1", "mcc"), (preds.argmax(-1), labels))
        return scores

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return labels and scores; of several labels, those above the threshold."""
        logits, names = outputs.logits.float(), self.label_names
        columns: dict[str, list[Any]] = {}
        if self.problem_type == "regression":
            columns["score"] = logits.squeeze(-1).tolist()
        else:
            several = self.problem_type == "multi_label_classification"
            scores = logits.sigmoid() if several else logits.softmax(-1)
            table = [dict(zip(names, row, strict=True)) for row in scores.tolist()]
            if several:
                columns["label"] = [[n for n in r if r[n] > self.threshold] for r in table]
            else:
                columns["label"] = [names[number] for number in scores.argmax(-1).tolist()]
                columns["score"] = scores.max(-1).values.tolist()
            columns["scores"] = table
        if "label" in batch:
            columns["reference"] = batch["label"]
        return columns


@dataclass(kw_only=True, eq=False, repr=False)
class TextClassificationTask(ClassificationTask):
    """Classification of texts and pairs of texts."""

    auto_class = AutoModelForSequenceClassification
    inputs = ("text", "text_pair")


@dataclass(kw_only=True, eq=False, repr=False)
class ImageClassificationTask(ClassificationTask):
    """Classification of images; with more than five classes also `top5`, the accuracy of five."""

    auto_class = AutoModelForImageClassification
    inputs = ("image",)

    def build_metrics(self) -> dict[str, Metric]:
        """Return those of classification, and `top5`."""
        metrics, size = super().build_metrics(), len(self.label_names)
        if self.problem_type == "single_label_classification" and size > 5:
            metrics["top5"] = MulticlassAccuracy(size, top_k=5, average="micro")
        return metrics
