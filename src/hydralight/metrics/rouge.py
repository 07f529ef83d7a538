"""ROUGE, as Google's rouge-score computes it."""

from collections.abc import Sequence

import torch
from rouge_score.rouge_scorer import RougeScorer
from torch import Tensor
from torchmetrics import Metric


class Rouge(Metric):
    """Mean F-measure of ROUGE-1, -2, -L and -Lsum (Lin, 2004) by the `rouge-score` package.

    Values are between 0 and 1. For ROUGE-Lsum a line is a sentence, as in that package; neither
    needs data of NLTK's.

    Args:
        use_stemmer: Porter's.
    """

    higher_is_better = True
    full_state_update = False
    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")

    total: Tensor
    count: Tensor

    def __init__(self, use_stemmer: bool = True) -> None:
        super().__init__()
        self.scorer = RougeScorer(list(self.names), use_stemmer=use_stemmer)
        zeros = torch.zeros(len(self.names))
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Score pairs of texts."""
        for prediction, reference in zip(predictions, references, strict=True):
            score = self.scorer.score(reference, prediction)
            self.total += torch.tensor(
                [score[name].fmeasure for name in self.names],
                dtype=self.total.dtype,
                device=self.total.device,
            )
            self.count += 1

    def compute(self) -> dict[str, Tensor]:
        """Return the means by name."""
        return dict(zip(self.names, self.total / self.count, strict=True))
