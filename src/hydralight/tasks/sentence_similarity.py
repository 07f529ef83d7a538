"""Texts as vectors that are near one another where the texts belong together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Gt
from torch import Tensor
from torchmetrics import Metric
from transformers import AutoModel

from hydralight.metrics.retrieval import RetrievalScores
from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.task import Task


@dataclass(kw_only=True, eq=False, repr=False)
class SentenceSimilarityTask(Task):
    """A bi-encoder with in-batch negatives (Henderson et al., 2017; Reimers and Gurevych, 2019).

    A text is the mean of its tokens' last hidden states. Each anchor is to choose its own positive
    among those of its batch, by cosine similarity; so the negatives are those of a device's
    micro-batch, and `data.batch_size` is part of the loss.

    Args:
        scale: What cosine similarities are multiplied by before the softmax; 20 is a temperature of
            0.05.
    """

    scale: Annotated[float, Gt(0)] = 20.0

    auto_class = AutoModel
    inputs = ("anchor", "positive")
    sample_columns = ("anchor", "positive", "similarity")

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the vectors (batch, width) of anchors and, where there are any, of positives."""
        vectors = {}
        for name, prefix in {"anchor": "", "positive": "positive_"}.items():
            if f"{prefix}input_ids" in batch:
                names = ("input_ids", "attention_mask")
                inputs = {key: batch[f"{prefix}{key}"] for key in names}
                hidden = super().forward(inputs).last_hidden_state
                mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
                vectors[name] = F.normalize(mean.float(), dim=-1)
        return vectors

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy of each anchor over the positives of the batch."""
        scores = self.scale * outputs["anchor"] @ outputs["positive"].T
        own = torch.arange(len(scores), device=scores.device)
        return token_cross_entropy(scores, own, self.label_smoothing)

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return the similarity of each pair; the vectors, where a text is alone."""
        if "positive" not in outputs:
            return {"embedding": outputs["anchor"].tolist()}
        return {"similarity": (outputs["anchor"] * outputs["positive"]).sum(dim=-1).tolist()}

    def build_metrics(self) -> dict[str, Metric]:
        """Return how well positives are found among all of the set."""
        return {"retrieval": RetrievalScores()}

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Give the metric both vectors."""
        pair = (outputs["anchor"], outputs["positive"])
        return {"retrieval": pair, "further": pair}
