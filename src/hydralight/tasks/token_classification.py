"""Tags for the words of a sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torchmetrics import Metric
from transformers import AutoModelForTokenClassification

from hydralight.metrics.entities import EntityScores, entities_of, entity_types
from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.labelled import LabelledTask
from hydralight.tasks.losses import token_cross_entropy


@dataclass(kw_only=True, eq=False, repr=False)
class TokenClassificationTask(LabelledTask):
    """Token-level cross-entropy in training, whole entities in evaluation.

    All words of a sentence count in evaluation: one that was cut off, or of which the tokenizer
    leaves nothing, is predicted to be outside (`O`, or the first tag where there is no `O`).
    """

    auto_class = AutoModelForTokenClassification
    inputs = ("tokens",)
    sample_columns = ("tokens", "tags", "reference")

    def build_metrics(self) -> dict[str, Metric]:
        """Return the scores of entities."""
        return {"entities": EntityScores(entity_types(self.label_names))}

    def own_loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over labelled tokens."""
        return token_cross_entropy(
            outputs.logits, batch["labels"], self.label_smoothing, self.weights
        )

    def decode(self, outputs: Any, batch: Batch) -> dict[str, list]:
        """Return the tags of words, and the entities (words `start` to `end`, both included)."""
        tags = self.tags(outputs, batch)
        entities = [
            [
                {"type": kind, "start": start, "end": end, "text": " ".join(words[start : end + 1])}
                for kind, start, end in entities_of(mine)
            ]
            for mine, words in zip(tags, batch["tokens"], strict=True)
        ]
        references = {"reference": batch["tags"]} if "tags" in batch else {}
        return {"tags": tags, "entities": entities, **references}

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Compare the tags of words; further metrics get logits of tokens (batch, tags, length)."""
        return {
            "entities": (columns["tags"], columns["reference"]),
            "further": (outputs.logits.movedim(-1, 1), batch["labels"]),
        }

    def tags(self, outputs: Any, batch: Batch) -> list[list[str]]:
        """Return the tag of each word: that of its first token."""
        names = self.label_names
        numbers, words = outputs.logits.argmax(-1).tolist(), batch["word_ids"].tolist()
        tags = []
        for row, tokens in enumerate(batch["tokens"]):
            mine = ["O" if "O" in names else names[0]] * len(tokens)
            # backwards, so that a word's first token has the last say
            for number, word in zip(reversed(numbers[row]), reversed(words[row]), strict=True):
                if word >= 0:
                    mine[word] = names[number]
            tags.append(mine)
        return tags
