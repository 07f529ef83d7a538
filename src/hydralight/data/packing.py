"""Several documents in one row, without padding between them."""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DataCollatorWithFlattening

from hydralight.data.padding import rounded_up

WIDTH = 512  # tokens: the attention of a row is square, and masked outside of its documents


def pack(
    documents: Sequence[Sequence[int]], pad_token_id: int, pad_to_multiple_of: int | None = None
) -> dict[str, Tensor]:
    """Lay documents side by side into as few rows of about 512 tokens as hold them.

    A model that gets positions without an attention mask keeps its attention inside each document
    (where it does so at all: `CausalLMTask` sees to that).

    Args:
        documents: Token ids.
        pad_token_id: Fills up the rows, each as a document of its own.
        pad_to_multiple_of: What the rows' length is rounded up to.

    Returns:
        `input_ids`, `position_ids`, which begin anew with each document, and `labels`, -100 for
        the first token of each; all (rows, length).
    """
    lines = balanced(documents)
    width = rounded_up(max(sum(map(len, line)) for line in lines), pad_to_multiple_of)
    flatten = DataCollatorWithFlattening()
    rows = []
    for line in lines:
        parts = [{"input_ids": list(document)} for document in line]
        filling = [pad_token_id] * (width - sum(map(len, line)))
        if filling:
            parts.append({"input_ids": filling})
        row = flatten(parts)
        row["labels"][0, width - len(filling) :] = -100
        row["position_ids"][0, width - len(filling) :] = 0  # it may be longer than any document
        rows.append(row)
    names = ("input_ids", "position_ids", "labels")
    return {name: torch.cat([row[name] for row in rows]) for name in names}


def balanced(documents: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
    """Divide documents into rows of about one length, the longest first (Graham, 1969)."""
    number = -(-sum(map(len, documents)) // max(WIDTH, max(map(len, documents))))
    rows: list[list[Sequence[int]]] = [[] for _ in range(number)]
    filled = [(0, row) for row in range(number)]
    for document in sorted(documents, key=len, reverse=True):
        length, row = filled[0]
        rows[row].append(document)
        heapq.heapreplace(filled, (length + len(document), row))
    return [row for row in rows if row]
