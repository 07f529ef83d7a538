"""Texts, or pairs of texts, and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hydralight.config.ranges import Positive
from hydralight.data.labels import Labelled, encode_labels
from hydralight.data.padding import pad_inputs
from hydralight.data.shape import Batch, Columns, Purpose, Row
from hydralight.data.tokens import encode_texts


@dataclass(frozen=True, kw_only=True)
class TextClassification(Labelled):
    """Texts or pairs, and one label, several, or a number.

    A batch holds `input_ids`, `attention_mask` (and `token_type_ids` for pairs, where the model
    reads them), each (batch, length), and `labels`: (batch,) class ids, or numbers in regression;
    (batch, labels) of 0.0 and 1.0 where there may be several.

    Args:
        max_length: In tokens; longer inputs fall under `too_long`.
    """

    max_length: Positive = 512

    roles = ("text", "text_pair", "label")
    optional_roles = ("text_pair",)
    text_roles = distinct_roles = ("text", "text_pair")

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize texts or pairs, and number the labels where there are any."""
        encoded, too_long = encode_texts(
            processor, rows["text"], rows.get("text_pair"), max_length=self.max_length
        )
        if "label" in rows and purpose != "predict":
            encoded["labels"] = encode_labels(
                rows["label"], self.known, self.problem_type, indices[0]
            )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        return {**encoded, "length": lengths, "too_long": too_long}

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of each input."""
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
