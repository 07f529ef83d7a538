"""Precision, recall and F1 of entities, as seqeval (and CoNLL's script before it) counts them."""

import re
from collections.abc import Sequence

import torch
from seqeval.metrics.sequence_labeling import get_entities
from torch import Tensor
from torchmetrics import Metric

_SCHEME = re.compile(r"O|[BIESLU]-.+")


class EntityScores(Metric):
    """Micro-averaged precision, recall and F1 of whole entities, F1 by type, accuracy of tags.

    An entity is right where its type, first and last word are; begin and end are read as
    `seqeval` does in its default mode (Ramshaw and Marcus, 1995). Tags without a scheme, such as
    parts of speech, are entities of one word each.

    Args:
        types: The entities' types.
    """

    higher_is_better = True
    full_state_update = False

    counts: Tensor
    words: Tensor

    def __init__(self, types: Sequence[str]) -> None:
        super().__init__()
        self.types = list(types)
        self.names = ["precision", "recall", "f1", "accuracy", *(f"f1/{kind}" for kind in types)]
        self.add_state("counts", torch.zeros(len(types), 3).long(), dist_reduce_fx="sum")
        self.add_state("words", torch.zeros(2).long(), dist_reduce_fx="sum")

    def update(
        self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
    ) -> None:
        """Count sentences, each the tags of its words."""
        for predicted, right in zip(predictions, references, strict=True):
            found, there = set(entities_of(predicted)), set(entities_of(right))
            for column, entities in enumerate((found & there, found, there)):
                for kind, _, _ in entities:
                    self.counts[self.types.index(kind), column] += 1
            same = sum(p == r for p, r in zip(predicted, right, strict=True))
            self.words += torch.tensor([same, len(right)], device=self.words.device)

    def compute(self) -> dict[str, Tensor]:
        """Return the scores; those that nothing counts towards are 0, as seqeval's are."""
        right, found, there = self.counts.float().sum(dim=0)
        precision, recall = _part(right, found), _part(right, there)
        scores = {
            "precision": precision,
            "recall": recall,
            "f1": _part(2 * precision * recall, precision + recall),
            "accuracy": _part(*self.words.float()),
        }
        for kind, (one, predicted, actual) in zip(self.types, self.counts.float(), strict=True):
            scores[f"f1/{kind}"] = _part(2 * one, predicted + actual)
        return scores


def _part(part: Tensor, whole: Tensor) -> Tensor:
    return part / whole if whole > 0 else torch.zeros_like(whole)


def entities_of(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return type, first and last word of the entities in a sentence's tags."""
    if all(_SCHEME.fullmatch(tag) for tag in tags):
        return get_entities(list(tags))
    return [(tag, word, word) for word, tag in enumerate(tags) if tag != "O"]


def entity_types(tags: Sequence[str]) -> list[str]:
    """Return the types of entities that tags name."""
    return sorted({kind for tag in tags for kind, _, _ in entities_of([tag])})
