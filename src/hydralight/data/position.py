"""Validation and test as the end of the training data, also of a single long text."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from datasets import Dataset

from hydralight.errors import UserError, count


def are_too_few_texts(train: Dataset, fractions: Mapping[str, float]) -> bool:
    """Whether rows are texts, and too few to give train and each other split one."""
    wanted = sum(max(1, round(part * len(train))) for part in fractions.values())
    return train.column_names == ["text"] and wanted >= len(train)


def carve_by_position(train: Dataset, fractions: Mapping[str, float]) -> dict[str, Dataset]:
    """Return `train` and the splits that are cut out of its end, in their order.

    Where rows are too few to give each split one, and are single texts, the text that is at a cut
    is parted: all of it is kept, and no line of it is on two sides (no word, where a line is all).

    Args:
        train: The rows.
        fractions: Of them, by split.

    Raises:
        UserError: The rows or texts are too few.
    """
    names = ["train", *fractions]
    sizes = [max(1, round(part * len(train))) for part in fractions.values()]
    begins = len(train) - np.cumsum(sizes[::-1])[::-1]
    if min(fractions.values()) * len(train) >= 1 and begins[0] > 0:
        spans = zip(names, [0, *begins], [*begins, len(train)], strict=True)
        return {split: train.select(range(start, end)) for split, start, end in spans}
    if train.column_names != ["text"]:
        raise UserError(
            f"The split train has {count(len(train), 'row')}, too few to carve "
            f"{' and '.join(fractions)} out of it."
        )
    texts = train["text"][:]
    total = sum(map(len, texts))
    starts = 1 - np.cumsum([*fractions.values()][::-1])[::-1]
    for mark in ("\n", " "):  # between two words, where lines are too long
        places = [0, *(_start(texts, round(start * total), mark) for start in starts), total]
        parts = [_between(texts, start, end) for start, end in pairwise(places)]
        if all(any(text.strip() for text in part) for part in parts):
            return {s: Dataset.from_dict({"text": p}) for s, p in zip(names, parts, strict=True)}
    raise UserError(
        f"The texts of train are too short to carve {' and '.join(fractions)} out of them."
    )


def _start(texts: Sequence[str], place: int, mark: str) -> int:
    """Return where the line (or word, as the mark says) begins that a place lies in."""
    before = 0
    for text in texts:
        if place <= before + len(text):
            return before + text.rfind(mark, 0, place - before) + 1
        before += len(text)
    return before


def _between(texts: Sequence[str], start: int, end: int) -> list[str]:
    """Return the texts, or the parts of them, between two places in the joined texts."""
    parts, before = [], 0
    for text in texts:
        parts.append(text[max(0, start - before) : max(0, end - before)])
        before += len(text)
    return [part for part in parts if part]
