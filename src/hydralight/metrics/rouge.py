"""ROUGE, as Google's rouge-score computes it."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from rouge_score.tokenizers import Tokenizer
from torch import Tensor
from torchmetrics import Metric

PORTER = PorterStemmer()


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """Return a word's stem; most of a text's words have been met before."""
    return PORTER.stem(word)


class Stemming(Tokenizer):
    """Words as `rouge-score` takes them by default, with Porter's stems, each found once."""

    stem = staticmethod(stem)

    def tokenize(self, text: str) -> list[str]:
        """Return the stems of a text's words."""
        return tokenize(text, self)


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
        self.scorer = RougeScorer(list(self.names), tokenizer=Stemming() if use_stemmer else None)
        zeros = torch.zeros(len(self.names))
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> None:
        """Score texts against their references.

        Of several references, the best counts for each kind of ROUGE by itself, as in
        `RougeScorer.score_multi` of that package.
        """
        scores = [
            self.scorer.score(right, predicted)
            if isinstance(right, str)
            else self.scorer.score_multi(right, predicted)
            for predicted, right in zip(predictions, references, strict=True)
        ]
        rows = [[score[name].fmeasure for name in self.names] for score in scores]
        self.total += torch.tensor(rows).sum(dim=0).to(self.total)
        self.count += len(rows)

    def compute(self) -> dict[str, Tensor]:
        """Return the means by name."""
        return dict(zip(self.names, self.total / self.count, strict=True))
