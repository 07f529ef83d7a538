"""Tags for the words of a sentence."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric
from transformers import AutoModelForTokenClassification

from hydralight.metrics.entities import EntityScores, entities_of, entity_types
from hydralight.tasks.evaluated import Batch, Rows
from hydralight.tasks.labelled import LabelledTask
from hydralight.tasks.losses import token_cross_entropy


class TokenClassificationTask(LabelledTask):
    """Token-level cross-entropy in training, whole entities in evaluation.

    All words of a sentence count in evaluation: one that was cut off, or of which the tokenizer
    leaves nothing, is predicted to be outside (`O`, or the first tag where there is no `O`).
    """

    auto_class = AutoModelForTokenClassification
    sample_columns = ("tokens", "tags", "reference")

    @property
    def metric_names(self) -> Sequence[str]:
        """Those of `EntityScores`."""
        return ("precision", "recall", "f1", "accuracy", "f1/*")

    def build_metrics(self) -> dict[str, Metric]:
        """Return the scores of entities."""
        return {"entities": EntityScores(entity_types(self.label_names))}

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum the cross-entropy over labelled tokens."""
        return token_cross_entropy(
            outputs.logits, batch["labels"], self.label_smoothing, self.weights
        )

    def update_metrics(self, outputs: Any, batch: Batch) -> Rows:
        """Compare the tags of words with the right ones."""
        tags = self.tags(outputs, batch)
        self.metrics["entities"].update(tags, batch["tags"])  # type: ignore[operator]
        self.update_further_metrics(outputs.logits.float().movedim(-1, 1), batch["labels"])
        return self.tagged_rows(tags, batch)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Rows:
        """Return words, tags and entities."""
        return self.tagged_rows(self.tags(self(batch), batch), batch)

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

    def tagged_rows(self, tags: list[list[str]], batch: Batch) -> Rows:
        """Lay out words, tags, and the entities (words `start` to `end`, both included)."""
        entities = [
            [
                {"type": kind, "start": start, "end": end, "text": " ".join(words[start : end + 1])}
                for kind, start, end in entities_of(mine)
            ]
            for mine, words in zip(tags, batch["tokens"], strict=True)
        ]
        references = {"reference": batch["tags"]} if "tags" in batch else {}
        return self.rows(batch, "tokens", tags=tags, entities=entities, **references)
