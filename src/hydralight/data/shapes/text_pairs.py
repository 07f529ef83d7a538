"""Pairs of texts that belong together: a question and its answer, a text and its paraphrase."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from hydralight.config.ranges import Positive
from hydralight.data.padding import pad_inputs
from hydralight.data.roles import Where, check_texts
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.tokens import encode_texts


@dataclass(frozen=True, kw_only=True)
class TextPairs(Shape):
    """Texts that are read each by itself: an anchor, and the text that is to be near it.

    A batch holds `input_ids` and `attention_mask` (batch, length) of the anchors, and
    `positive_input_ids` and `positive_attention_mask` (batch, length) of the others.

    Args:
        max_length: In tokens, of either text; longer ones fall under `too_long`.
    """

    max_length: Positive = 128

    roles = ("anchor", "positive")
    text_roles = distinct_roles = ("anchor", "positive")
    targets = ("positive",)

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Refuse empty texts."""
        check_texts(rows, self.roles, where)
        return rows

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize both texts."""
        encoded, too_long = encode_texts(processor, rows["anchor"], max_length=self.max_length)
        columns: Columns = {"input_ids": encoded["input_ids"]}
        if "positive" in rows:
            other, longer = encode_texts(processor, rows["positive"], max_length=self.max_length)
            columns["positive_input_ids"] = other["input_ids"]
            columns["positive_length"] = [len(ids) for ids in other["input_ids"]]
            too_long = [a or b for a, b in zip(too_long, longer, strict=True)]
        lengths = [len(ids) for ids in columns["input_ids"]]
        both = map(max, lengths, columns.get("positive_length", lengths))
        return {**columns, "anchor_length": lengths, "length": list(both), "too_long": too_long}

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of anchor and positive."""
        names = [n for n in ("anchor_length", "positive_length") if n in rows.column_names]
        return np.stack([rows[name][:] for name in names], axis=1)

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad the texts of each side to one length."""
        batch = pad_inputs(rows, processor, pad_to_multiple_of)
        if "positive_input_ids" in rows[0]:
            others = [{"input_ids": row["positive_input_ids"]} for row in rows]
            padded = pad_inputs(others, processor, pad_to_multiple_of)
            batch |= {f"positive_{name}": tensor for name, tensor in padded.items()}
        return batch
