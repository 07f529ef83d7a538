"""Masked language modelling: hidden tokens are predicted from all the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from transformers import AutoModelForMaskedLM

from hydralight.metrics.perplexity import Perplexity
from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.language import LanguageTask
from hydralight.tasks.losses import token_cross_entropy


@dataclass(kw_only=True, eq=False, repr=False)
class MaskedLMTask(LanguageTask):
    """Cross-entropy of the hidden tokens; filled masks.

    Args:
        top_k: How many fillings of a mask are predicted.
    """

    top_k: int = 5

    auto_class = AutoModelForMaskedLM
    inputs = ("text",)

    def build_metrics(self) -> dict[str, Metric]:
        """Return perplexity and accuracy of the hidden tokens."""
        return {"perplexity": Perplexity(by_byte=False), "accuracy": MeanMetric()}

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over hidden tokens."""
        return token_cross_entropy(outputs.logits, batch["labels"], self.label_smoothing)

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Fill the hidden tokens, and count them; or fill the masks of texts without labels."""
        tokenizer, ids = self.datamodule.processor, batch["input_ids"]
        labels, best = batch.get("labels"), outputs.logits.argmax(-1)
        hidden = ids == tokenizer.mask_token_id if labels is None else labels != -100
        filled = torch.where(hidden, best, ids)
        texts = tokenizer.batch_decode(filled, skip_special_tokens=True)
        if labels is None:
            return {"prediction": texts, "masks": self.fillings(outputs, hidden)}
        whole = torch.where(hidden, labels, ids)
        return {
            "prediction": texts,
            "reference": tokenizer.batch_decode(whole, skip_special_tokens=True),
            "hidden": hidden.sum(dim=1).tolist(),
            "found": ((best == labels) & hidden).sum(dim=1).tolist(),
        }

    def fillings(self, outputs: Any, masks: Tensor) -> list[list[list[dict[str, Any]]]]:
        """Return the most likely tokens of each mask (batch, length) of each row, with scores."""
        tokenizer = self.datamodule.processor
        top = outputs.logits.float().softmax(-1).topk(self.top_k)
        return [
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

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Compare the hidden tokens; further metrics get the logits (batch, vocabulary, length)."""
        found, hidden = sum(columns["found"]), sum(columns["hidden"])
        scores: Scores = {
            "perplexity": token_cross_entropy(outputs.logits, batch["labels"]),
            "accuracy": (found / max(1, hidden), hidden),
        }
        if not self.evaluation.further:  # there may be no logits
            return scores
        return {**scores, "further": (outputs.logits.movedim(-1, 1), batch["labels"])}
