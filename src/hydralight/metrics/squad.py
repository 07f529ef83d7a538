"""Exact match and F1 of answers, by the rules of SQuAD's evaluation script."""

import re
import string
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class SquadScores(Metric):
    """Mean exact match and F1 (0 to 100) over questions, each with its best reference.

    Rajpurkar et al. (2016, 2018): answers are compared without case, articles, punctuation and
    surplus space; a question without references is answered rightly by an empty text. Where
    there are such questions, `HasAns_…` and `NoAns_…` are the means over either kind.
    """

    higher_is_better = True
    full_state_update = False
    names = tuple(f"{kind}{n}" for kind in ("", "HasAns_", "NoAns_") for n in ("exact_match", "f1"))

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        # by whether there is an answer: the sums of exact match and F1, and the questions
        self.add_state("totals", torch.zeros(2, 3), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        """Score answers against all references of each."""
        sums = torch.zeros(2, 3)
        for prediction, answers in zip(predictions, references, strict=True):
            known = [answer for answer in answers if normalized(answer)] or [""]
            exact = max(float(normalized(prediction) == normalized(one)) for one in known)
            f1 = max(token_f1(prediction, one) for one in known)
            sums[int(known != [""])] += torch.tensor([exact, f1, 1.0])
        self.totals += sums.to(self.totals)

    def compute(self) -> dict[str, Tensor]:
        """Return the means by name."""
        totals = self.totals
        kinds = {"": totals.sum(dim=0)}
        if totals[0, 2] > 0:
            kinds |= {"HasAns_": totals[1], "NoAns_": totals[0]}
        return {
            f"{kind}{name}": 100 * values[place] / values[2]
            for kind, values in kinds.items()
            for place, name in enumerate(("exact_match", "f1"))
        }


def normalized(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and surplus space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(prediction: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall over words."""
    predicted, right = normalized(prediction).split(), normalized(reference).split()
    if not predicted or not right:
        return float(predicted == right)
    same = sum((Counter(predicted) & Counter(right)).values())
    return 2 * same / (len(predicted) + len(right))
