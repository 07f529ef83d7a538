"""Several documents in one row, without padding between them."""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DataCollatorWithFlattening

from hydralight.data.padding import rounded_up

WIDTH = 512  # tokens: the attention of a row is square, and masked outside of its documents


def pack(
    documents: Sequence[Sequence[int]],
    pad_token_id: int,
    pad_to_multiple_of: int | None = None,
    labels: Sequence[Sequence[int]] | None = None,
) -> dict[str, Tensor]:
    """Lay documents side by side into as few rows of about 512 tokens as hold them.

    A model that gets positions without an attention mask keeps its attention inside each document
    (where it does so at all: `CausalLMTask` sees to that).

    Args:
        documents: Token ids.
        pad_token_id: Fills up the rows, each as a document of its own.
        pad_to_multiple_of: What the rows' length is rounded up to.
        labels: Of each document, -100 for what is no target; its tokens unless said.

    Returns:
        `input_ids`, `position_ids`, which begin anew with each document, and `labels`, -100 for
        the first token of each; all (rows, length).
    """
    targets = documents if labels is None else labels
    lengths = [len(document) for document in documents]
    lines = balanced(lengths)
    width = rounded_up(max(sum(lengths[i] for i in line) for line in lines), pad_to_multiple_of)
    flatten = DataCollatorWithFlattening()
    rows = []
    for line in lines:
        parts = [{"input_ids": list(documents[i]), "labels": list(targets[i])} for i in line]
        filling = [pad_token_id] * (width - sum(lengths[i] for i in line))
        if filling:
            parts.append({"input_ids": filling, "labels": filling})
        row = flatten(parts)
        row["labels"][0, width - len(filling) :] = -100
        row["position_ids"][0, width - len(filling) :] = 0  # it may be longer than any document
        rows.append(row)
    names = ("input_ids", "position_ids", "labels")
    return {name: torch.cat([row[name] for row in rows]) for name in names}


def balanced(lengths: Sequence[int]) -> list[list[int]]:
    """Divide documents into rows of about one length, the longest first (Graham, 1969).

    Args:
        lengths: Of the documents, in tokens.

    Returns:
        The numbers of the documents of each row.
    """
    rows: list[list[int]] = [[] for _ in range(-(-sum(lengths) // max(WIDTH, *lengths)))]
    filled = [(0, row) for row in range(len(rows))]
    for document in sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True):
        length, row = filled[0]
        rows[row].append(document)
        heapq.heapreplace(filled, (length + lengths[document], row))
    return [row for row in rows if row]
