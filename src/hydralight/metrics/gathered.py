"""Metrics that are computed from all texts or ids at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hydralight.devices import gathered


class GatheredMetric(Metric):
    """Keeps predictions and references, gathers them from all processes, and scores the whole.

    A subclass gives `score`. It is for metrics of a corpus that are no sum over examples.
    """

    higher_is_better: bool | None = True
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.predictions: list[Any] = []
        self.references: list[Any] = []

    def score(self, predictions: list[Any], references: list[Any]) -> Mapping[str, float]:
        """Return the scores of a corpus by name."""
        raise NotImplementedError

    def update(self, preds: Any, target: Any) -> None:
        """Add a batch: texts; or ids or scores (batch, …) and what is right."""
        predictions, references = as_lists(preds, target)
        self.predictions += predictions
        self.references += references

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of everything since the last reset."""
        pairs = [(self.predictions, self.references)]
        if self.distributed_available_fn():
            pairs = gathered(pairs[0])
        predictions = [one for part, _ in pairs for one in part]
        references = [one for _, part in pairs for one in part]
        scores = self.score(predictions, references)
        return {n: torch.tensor(float(v)) for n, v in scores.items()}

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.predictions, self.references = [], []


def as_lists(preds: Any, target: Any) -> tuple[list[Any], list[Any]]:
    """Turn a batch into lists; scores against class ids become ids, as in torchmetrics.

    Scores are (batch, classes, …) against ids (batch, …), or of the targets' own shape where each
    label is there or not; ids of -100 are left out.
    """
    if not isinstance(preds, Tensor):
        return list(preds), list(target)
    if preds.is_floating_point() and not target.is_floating_point():
        preds = preds.argmax(dim=1) if preds.ndim > target.ndim else (preds > 0.5).long()
    if preds.ndim > 1 and (target == -100).any():
        rows: Sequence[tuple[Tensor, Tensor]] = [
            (p[t != -100], t[t != -100]) for p, t in zip(preds, target, strict=True)
        ]
        return [p.tolist() for p, _ in rows], [t.tolist() for _, t in rows]
    return preds.tolist(), target.tolist()
