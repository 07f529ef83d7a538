"""A context, and endings of which one is right."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from string import ascii_uppercase
from typing import Any, Self

import datasets
import numpy as np
import torch
from datasets import Dataset

from hydralight.config.ranges import Positive
from hydralight.data.padding import pad_inputs
from hydralight.data.roles import Where, check_is_text, check_list, check_single, check_text
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.tokens import encode_texts
from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Shape):
    """A context with endings, as many for each example unless rows name their own.

    A batch holds `input_ids`, `attention_mask` (and `token_type_ids` where the model reads them),
    each (batch, endings, length), and `labels` (batch,). `choices` (batch,) is how many endings
    there are of a row: what is behind them is its first one again, and never the right one.

    Args:
        max_length: In tokens, of a context with an ending; longer ones fall under `too_long`.
        labels: What the label says for each ending, in their order. Unless said, numbers from 0,
            from 1 where the training split has as many as endings, or letters from A; or, with the
            role `ending_labels`, what each row itself says.
    """

    max_length: Positive = 512
    labels: Sequence[str] | None = None

    roles = ("context", "question", "endings", "ending_labels", "label")
    text_roles = ("context", "question", "endings")
    distinct_roles = ("context", "question")
    # an opening that all the endings share, and what a row's label calls each of them
    optional_roles = ("question", "ending_labels")
    targets = ("ending_labels", "label")

    def __post_init__(self) -> None:
        names = [str(label) for label in self.labels] if self.labels else None
        object.__setattr__(self, "labels", names)

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Check that each row has a context and endings, and its labels.

        Rows with a label have as many endings as most, unless they say what each is called.
        """
        check_text(rows, "context", where)
        if "question" in rows.column_names:  # which may be empty
            check_is_text(rows, "question", where)
        check_list(rows, "endings", where, of_texts=True)
        sizes = [len(endings) for endings in rows["endings"][:]]
        ((usual, number),) = Counter(sizes).most_common(1)
        unnamed = "label" in rows.column_names and "ending_labels" not in rows.column_names
        if number < len(sizes) and unnamed:
            row = next(row for row, size in enumerate(sizes) if size != usual)
            raise UserError(
                f"{where}, row {row + 1}: there are {sizes[row]} endings, and {usual} in most: "
                f"leave out the rows that have not {usual}, {len(sizes) - number} of {len(sizes)}, "
                "or name a column that says what each row's endings are called: "
                "data.columns={ending_labels: …}."
            )
        if "ending_labels" in rows.column_names:
            check_list(rows, "ending_labels", where)
            for row, one in enumerate(rows["ending_labels"][:]):
                if len(one) != sizes[row] or len(set(one)) != sizes[row]:
                    raise UserError(
                        f"{where}, row {row + 1}: the ending_labels are one for each ending."
                    )
        if "label" in rows.column_names:
            check_single(rows, "label", where)
        if isinstance(rows.features.get("label"), datasets.ClassLabel):
            return rows.cast_column("label", datasets.Value("int64"))
        return rows

    def settled(self, train: Dataset | None, declared: Sequence[str]) -> Self:
        """Return the shape with its labels where the training split's are numbers from 1."""
        names = () if train is None else set(train.column_names)
        if self.labels is not None or train is None or "label" not in names:
            return self
        number = len(train[0]["endings"])
        found = {_name(value) for value in train.unique("label")}
        from_one = [str(n + 1) for n in range(number)]
        if "ending_labels" not in names and str(number) in found and found <= set(from_one):
            return replace(self, labels=from_one)
        return self

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
            own = rows.get("ending_labels") or [self.labels] * len(indices)
            encoded["labels"] = list(
                map(right_ending, rows["label"], rows["endings"], own, indices)
            )
        lengths = [max(len(ids) for ids in row) for row in encoded["input_ids"]]
        encoded["choices"] = list(map(len, rows["endings"]))
        return {**encoded, "length": lengths, "too_long": [any(longer[span]) for span in spans]}

    def check_targets(self, rows: Columns) -> None:
        """Look for the endings that the labels name."""
        self._right(rows, list(range(len(rows["label"]))))

    def _right(self, rows: Columns, indices: list[int]) -> list[int]:
        names = rows.get("ending_labels") or [self.labels] * len(indices)
        return list(map(right_ending, rows["label"], rows["endings"], names, indices))

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of as many endings as any row has, each as long as the longest."""
        return rows["length"][:][:, None] * max(rows["choices"][:])

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad all endings to one length, and all rows to as many endings."""
        choices = [row["choices"] for row in rows]
        names = ["input_ids", *(["token_type_ids"] if "token_type_ids" in rows[0] else [])]
        places = [
            (row, place if place < number else 0)
            for row, number in zip(rows, choices, strict=True)
            for place in range(max(choices))
        ]
        flat: list[Row] = [{name: row[name][place] for name in names} for row, place in places]
        padded = pad_inputs(flat, processor, pad_to_multiple_of)
        batch: Batch = {n: t.view(len(rows), max(choices), -1) for n, t in padded.items()}
        batch["choices"] = torch.tensor(choices)
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch


def right_ending(
    label: Any, endings: Sequence[str], names: Sequence[Any] | None, index: int
) -> int:
    """Return the number of the right ending, which may be written as text ("2") or letter ("C").

    Args:
        label: As it stands in the data.
        endings: Of the row.
        names: What labels call each of them; numbers from 0 and letters from A unless said.
        index: Of the row.

    Raises:
        UserError: there is no such ending.
    """
    number = len(endings)
    if names is None:
        letters = ascii_uppercase[:number]
        known = {**{str(n): n for n in range(number)}, **{x: n for n, x in enumerate(letters)}}
        there = f"no number of an ending, 0 to {number - 1}, and no letter, A to {letters[-1:]}"
    else:
        known = {_name(name): n for n, name in enumerate(names[:number])}
        there = f"none of {', '.join(known)}"
    name = _name(label)
    if names is None and len(name) == 1:
        name = name.upper()
    if name not in known:
        raise UserError(
            f"row {index + 1}: the label {label!r} is {there} (data.labels names what stands for "
            "each ending, in their order)"
        )
    return known[name]


def _name(label: Any) -> str:
    return str(label).strip().removesuffix(".0")  # integers with a gap are read as floats
