"""A shape: a text, and how many stars it gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hydralight.data.padding import pad_inputs
from hydralight.data.roles import Where, check_text
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.tokens import encode_texts
from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Ratings(Shape):
    """Texts with a rating from 1 to `levels`.

    A batch holds `input_ids` and `attention_mask` (batch, length), and `labels` (batch,), the
    rating less 1.

    Args:
        levels: The highest rating.
        max_length: In tokens; longer texts fall under `too_long`.
    """

    levels: int = 5
    max_length: int = 128

    roles = ("text", "rating")
    text_roles = ("text",)
    targets = ("rating",)

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Refuse empty texts."""
        check_text(rows, "text", where)
        return rows

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize texts, and count ratings from 0."""
        encoded, too_long = encode_texts(processor, rows["text"], max_length=self.max_length)
        for index, rating in zip(indices, rows.get("rating", []), strict=False):
            if rating not in range(1, self.levels + 1):
                raise UserError(f"row {index + 1}: the rating {rating} is not in 1..{self.levels}")
        if "rating" in rows:
            encoded["labels"] = [rating - 1 for rating in rows["rating"]]
        lengths = [len(ids) for ids in encoded["input_ids"]]
        return {**encoded, "length": lengths, "too_long": too_long}

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of each text."""
        return rows["length"][:][:, None]

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad with the tokenizer's padding token."""
        batch = pad_inputs(rows, processor, pad_to_multiple_of)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch
