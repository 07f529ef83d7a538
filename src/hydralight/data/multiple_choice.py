"""A context, and endings of which one is right."""

from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hydralight.data.datamodule import Batch, DataModule, Purpose
from hydralight.data.encoding import encode_texts
from hydralight.data.padding import pad_inputs
from hydralight.data.roles import check_list, check_text
from hydralight.errors import UserError


def encode_choices(
    rows: dict[str, list],
    indices: list[int],
    *,
    processor: PreTrainedTokenizerBase,
    max_length: int,
) -> dict[str, list]:
    """Tokenize each ending with its context; a row holds lists, an entry for each ending."""
    openings = rows.get("question") or [""] * len(indices)
    contexts, endings = [], []
    for context, opening, choices in zip(rows["context"], openings, rows["endings"], strict=True):
        contexts += [context] * len(choices)
        endings += [f"{opening or ''} {choice}".strip() for choice in choices]
    flat, longer = encode_texts(processor, contexts, endings, max_length=max_length)
    bounds = [0]
    for choices in rows["endings"]:
        bounds.append(bounds[-1] + len(choices))
    spans = [slice(*pair) for pair in pairwise(bounds)]
    encoded: dict[str, list] = {
        name: [values[span] for span in spans] for name, values in flat.items()
    }
    if "label" in rows:
        encoded["labels"] = [
            right_ending(label, choices, index)
            for label, choices, index in zip(rows["label"], rows["endings"], indices, strict=True)
        ]
    lengths = [max(len(ids) for ids in row) for row in encoded["input_ids"]]
    too_long = [any(longer[span]) for span in spans]
    return {**encoded, "length": lengths, "too_long": too_long, "row": indices}


def right_ending(label: Any, endings: list[str], index: int) -> int:
    """Return the number of the right ending, which may be written as text ("2")."""
    text = str(label).removesuffix(".0")  # a column of integers with a gap is read as floats
    number = int(text) if text.isdigit() else -1
    if not 0 <= number < len(endings):
        raise UserError(
            f"row {index + 1}: the label {label!r} is no number of an ending, 0 to "
            f"{len(endings) - 1}"
        )
    return number


class MultipleChoiceData(DataModule):
    """Data of multiple choice, with as many endings for each example.

    A batch holds `input_ids`, `attention_mask` (and `token_type_ids` where the model reads them),
    each (batch, endings, length), and `labels` (batch,).

    Args:
        max_length: In tokens, of a context with an ending; longer ones fall under `too_long`.
        kwargs: Those of `DataModule`.
    """

    roles = ("context", "question", "endings", "label")
    text_roles = ("context", "question", "endings")
    optional_roles = ("question",)  # an opening that all the endings share
    targets = ("label",)
    encode = staticmethod(encode_choices)

    def __init__(self, *, max_length: int = 512, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length

    def checked(self, dataset: Dataset, where: str) -> Dataset:
        """Check that each row has a context and as many endings as the first."""
        check_text(dataset, "context", self.columns.get("context", "context"), where)
        check_list(dataset, "endings", self.columns.get("endings", "endings"), where)
        sizes = [len(endings) for endings in dataset["endings"][:]]
        for row, size in enumerate(sizes):
            if size != sizes[0]:
                raise UserError(
                    f"{where}, row {row + 1}: there are {size} endings, and {sizes[0]} in row 1."
                )
        if "label" in dataset.column_names:
            label = dataset.features["label"]
            if isinstance(label, datasets.ClassLabel):
                return dataset.cast_column("label", datasets.Value("int64"))
        return dataset

    def encode_arguments(self, purpose: Purpose) -> dict[str, Any]:
        """Return the arguments of `encode_choices`."""
        return {"max_length": self.max_length}

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
        """Pad all endings to one length."""
        labels = [row["labels"] for row in rows if "labels" in row]
        endings = len(rows[0]["input_ids"])
        names = [name for name in ("input_ids", "token_type_ids") if name in rows[0]]
        flat: list[dict[str, list[int]]] = [
            {name: row[name][i] for name in names} for row in rows for i in range(endings)
        ]
        padded = pad_inputs(flat, self.processor, self.pad_to_multiple_of)
        batch: Batch = {n: t.view(len(rows), endings, -1) for n, t in padded.items()}
        return {**batch, "labels": torch.tensor(labels)} if labels else batch

    def lengths(self, split: str) -> np.ndarray:
        """Return the tokens of all endings, each as long as the longest."""
        return super().lengths(split) * len(self._encoded[split][0]["input_ids"])

    @property
    def target_capacity(self) -> int:
        """Examples of a batch."""
        return self.batch_size
