"""Masked language modelling: hidden tokens are predicted from all the others."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from transformers import AutoModelForMaskedLM

from hydralight.metrics.perplexity import Perplexity
from hydralight.tasks.evaluated import Batch, Rows
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.task import Task


class MaskedLMTask(Task):
    """Cross-entropy of the hidden tokens; filled masks.

    Args:
        top_k: How many fillings of a mask are predicted.
        kwargs: Those of `Task`.
    """

    auto_class = AutoModelForMaskedLM

    def __init__(self, *, top_k: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.top_k = top_k

    @property
    def metric_names(self) -> Sequence[str]:
        """Perplexity and accuracy of the hidden tokens."""
        return ("perplexity", "accuracy")

    def build_metrics(self) -> dict[str, Metric]:
        """Return perplexity and accuracy."""
        return {"perplexity": Perplexity(), "accuracy": MeanMetric(nan_strategy="ignore")}

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over hidden tokens."""
        return token_cross_entropy(outputs.logits, batch["labels"], self.label_smoothing)

    def update_metrics(self, outputs: Any, batch: Batch) -> Rows:
        """Compare the hidden tokens, and return how many of each row were found."""
        logits, labels = outputs.logits, batch["labels"]
        hidden = labels != -100
        right = (logits.argmax(-1) == labels) & hidden
        metrics: Any = self.metrics
        metrics["perplexity"].update(*token_cross_entropy(logits, labels))
        metrics["accuracy"].update(right[hidden].float())
        self.update_further_metrics(logits.float().movedim(-1, 1), labels)
        counts = {"hidden": hidden.sum(dim=1).tolist(), "found": right.sum(dim=1).tolist()}
        return self.rows(batch, **counts)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Rows:
        """Fill the masks of texts, or the hidden tokens of labelled ones."""
        tokenizer, ids = self.datamodule.processor, batch["input_ids"]
        probabilities = self(batch).logits.float().softmax(-1)
        labels = batch.get("labels")
        masks = ids == tokenizer.mask_token_id if labels is None else labels != -100
        filled = torch.where(masks, probabilities.argmax(-1), ids)
        columns: dict[str, Any] = {
            "prediction": tokenizer.batch_decode(filled, skip_special_tokens=True)
        }
        if labels is not None:
            whole = torch.where(masks, labels, ids)
            columns["reference"] = tokenizer.batch_decode(whole, skip_special_tokens=True)
            return self.rows(batch, **columns)
        top = probabilities.topk(self.top_k)
        columns["masks"] = [
            [
                [
                    {"token": tokenizer.decode([token]).strip(), "score": score}
                    for token, score in zip(tokens, scores, strict=True)
                ]
                for tokens, scores in zip(
                    top.indices[row][mask].tolist(), top.values[row][mask].tolist(), strict=True
                )
            ]
            for row, mask in enumerate(masks)
        ]
        return self.rows(batch, "text", **columns)
