"""Texts, or pairs of texts, and their labels."""

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hydralight.data.classification import ClassificationData
from hydralight.data.datamodule import Batch, Purpose
from hydralight.data.encoding import encode_texts
from hydralight.data.labels import ProblemType, encode_labels
from hydralight.data.padding import pad_inputs


def encode_examples(
    rows: dict[str, list],
    indices: list[int],
    *,
    processor: PreTrainedTokenizerBase,
    label_names: list[str] | None,
    problem_type: ProblemType,
    max_length: int,
) -> dict[str, list]:
    """Tokenize texts or pairs, and number the labels where there are any."""
    encoded, too_long = encode_texts(
        processor, rows["text"], rows.get("text_pair"), max_length=max_length
    )
    if "label" in rows:
        encoded["labels"] = encode_labels(rows["label"], label_names, problem_type, indices[0])
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return {**encoded, "length": lengths, "too_long": too_long, "row": indices}


class TextClassificationData(ClassificationData):
    """Data of text classification.

    A batch holds `input_ids`, `attention_mask` (and `token_type_ids` for pairs, where the model
    reads them), each (batch, length), and `labels`: (batch,) class ids, or numbers in regression;
    (batch, labels) of 0.0 and 1.0 where there may be several.

    Args:
        max_length: In tokens; longer inputs fall under `too_long`.
        kwargs: Those of `ClassificationData`.
    """

    roles = ("text", "text_pair", "label")
    optional_roles = ("text_pair",)
    text_roles = ("text", "text_pair")
    encode = staticmethod(encode_examples)

    def __init__(self, *, max_length: int = 512, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length

    def encode_arguments(self, purpose: Purpose) -> dict[str, Any]:
        """Return the arguments of `encode_examples`."""
        return {**super().encode_arguments(purpose), "max_length": self.max_length}

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
        """Pad with the tokenizer's padding token."""
        batch = pad_inputs(rows, self.processor, self.pad_to_multiple_of)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch
