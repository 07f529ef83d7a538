"""A context, and endings of which one is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset

from hydralight.config.ranges import Positive
from hydralight.data.padding import pad_inputs
from hydralight.data.roles import Where, check_list, check_text
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.tokens import encode_texts
from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Shape):
    """A context with as many endings for each example.

    A batch holds `input_ids`, `attention_mask` (and `token_type_ids` where the model reads them),
    each (batch, endings, length), and `labels` (batch,).

    Args:
        max_length: In tokens, of a context with an ending; longer ones fall under `too_long`.
    """

    max_length: Positive = 512

    roles = ("context", "question", "endings", "label")
    text_roles = ("context", "question", "endings")
    optional_roles = ("question",)  # an opening that all the endings share
    targets = ("label",)

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Check that each row has a context and as many endings as the first."""
        check_text(rows, "context", where)
        check_list(rows, "endings", where)
        sizes = [len(endings) for endings in rows["endings"][:]]
        for row, size in enumerate(sizes):
            if size != sizes[0]:
                raise UserError(
                    f"{where}, row {row + 1}: there are {size} endings, and {sizes[0]} in row 1."
                )
        if isinstance(rows.features.get("label"), datasets.ClassLabel):
            return rows.cast_column("label", datasets.Value("int64"))
        return rows

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize each ending with its context; a row holds lists, an entry for each ending."""
        openings = rows.get("question") or [""] * len(indices)
        contexts, endings = [], []
        examples = zip(rows["context"], openings, rows["endings"], strict=True)
        for context, opening, choices in examples:
            contexts += [context] * len(choices)
            endings += [f"{opening or ''} {choice}".strip() for choice in choices]
        flat, longer = encode_texts(processor, contexts, endings, max_length=self.max_length)
        bounds = np.cumsum([0, *map(len, rows["endings"])]).tolist()
        spans = [slice(*pair) for pair in pairwise(bounds)]
        encoded: Columns = {name: [values[span] for span in spans] for name, values in flat.items()}
        if "label" in rows and purpose != "predict":
            encoded["labels"] = list(map(right_ending, rows["label"], rows["endings"], indices))
        lengths = [max(len(ids) for ids in row) for row in encoded["input_ids"]]
        return {**encoded, "length": lengths, "too_long": [any(longer[span]) for span in spans]}

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of all endings, each as long as the longest."""
        return rows["length"][:][:, None] * len(rows[0]["input_ids"])

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad all endings to one length."""
        endings = len(rows[0]["input_ids"])
        names = ["input_ids", *(["token_type_ids"] if "token_type_ids" in rows[0] else [])]
        flat: list[Row] = [{n: row[n][i] for n in names} for row in rows for i in range(endings)]
        padded = pad_inputs(flat, processor, pad_to_multiple_of)
        batch: Batch = {n: t.view(len(rows), endings, -1) for n, t in padded.items()}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch


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
