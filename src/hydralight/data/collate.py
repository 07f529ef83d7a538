"""Rows of a batch, read together, and what becomes of them."""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hydralight.data.shape import Batch, Purpose, Row, Shape


class EpochRows(Dataset[dict[str, Any]]):
    """Encoded rows for a loader, each with its `index` and the `epoch` it is drawn in.

    Args:
        rows: The encoded data set.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """Return one row, by epoch and index."""
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Return a batch's rows, read together."""
        rows = self.rows.__getitems__([index for _, index in places])
        return [
            {**row, "index": index, "epoch": epoch}
            for row, (epoch, index) in zip(rows, places, strict=True)
        ]


def collate(
    rows: list[Row],
    *,
    shape: Shape,
    processor: Any,
    seed: int,
    pad_to_multiple_of: int | None,
    purpose: Purpose,
) -> Batch:
    """Turn encoded rows into a batch: tensors, and what is kept of the roles as lists.

    What is random per example is a function of (seed, epoch, index) in training, and of seed
    and index in evaluation.

    Args:
        rows: Those of `EpochRows`.
        shape: What an example is.
        processor: The tokenizer or image processor.
        seed: Of what is random.
        pad_to_multiple_of: What lengths are rounded up to.
        purpose: What for.
    """
    if type(shape).vary is not Shape.vary:
        for row in rows:
            place = [row["epoch"], row["index"]] if purpose == "train" else [row["index"]]
            shape.vary(row, np.random.default_rng([seed, *place]), processor, purpose)
    kept = {role: [row.pop(role) for row in rows] for role in shape.roles if role in rows[0]}
    numbers = torch.tensor([row.pop("row", row["index"]) for row in rows])
    for row in rows:
        for name in ("length", "index", "epoch"):
            row.pop(name, None)
    batch = shape.pad(rows, processor, pad_to_multiple_of, purpose)
    return {**batch, "row": numbers, **kept}


def loader(
    rows: datasets.Dataset,
    batches: Sampler[list[tuple[int, int]]],
    collate_fn: Callable[[list[Row]], Batch],
    num_workers: int,
    seed: int,
) -> DataLoader:
    """Return what reads batches of encoded rows."""
    return DataLoader(
        collate_fn=collate_fn,
        batch_sampler=batches,
        dataset=EpochRows(rows),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        # its own stream: making an iterator must not draw from the global one
        generator=torch.Generator().manual_seed(seed),
    )
