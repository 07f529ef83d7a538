"""Rows of many lengths as tensors; a tokenizer's own `pad` takes ten times as long."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


def pad_inputs(
    rows: Sequence[Mapping[str, Sequence[int]]],
    tokenizer: PreTrainedTokenizerBase,
    pad_to_multiple_of: int | None = None,
    left: bool | None = None,
) -> dict[str, Any]:
    """Return `input_ids`, `attention_mask` and, where rows have them, `token_type_ids`.

    Each is (rows, length), as long as the longest row, rounded up.

    Args:
        rows: Encoded rows; other columns are left out.
        tokenizer: Says what fills up.
        pad_to_multiple_of: What the length is rounded up to.
        left: Whether the padding comes first; the tokenizer's habit unless said.
    """
    ids = [row["input_ids"] for row in rows]
    width = width_of(ids, pad_to_multiple_of)
    left = tokenizer.padding_side == "left" if left is None else left
    ones = [[1] * len(row) for row in ids]
    batch = {
        "input_ids": pad(ids, width, tokenizer.pad_token_id, left),
        "attention_mask": pad(ones, width, 0, left),
    }
    if "token_type_ids" in rows[0]:
        types = [row["token_type_ids"] for row in rows]
        batch["token_type_ids"] = pad(types, width, tokenizer.pad_token_type_id, left)
    return batch


def width_of(rows: Sequence[Sequence[int]], pad_to_multiple_of: int | None = None) -> int:
    """Return the length of the longest row, rounded up."""
    return rounded_up(max(map(len, rows)), pad_to_multiple_of)


def rounded_up(length: int, multiple: int | None) -> int:
    """Return the next multiple; the length itself where there is nothing to round to."""
    return -(-length // (multiple or 1)) * (multiple or 1)


def pad(rows: Sequence[Sequence[int]], width: int, value: int, left: bool = False) -> Tensor:
    """Return rows of integers as one tensor (rows, width), filled up with a value."""
    padded = np.full((len(rows), width), value, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        if left:
            line[width - len(row) :] = row
        else:
            line[: len(row)] = row
    return torch.from_numpy(padded)
