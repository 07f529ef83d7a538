"""Which rows of a split are shown, where only a few are."""

from collections.abc import Callable
from typing import Any

from datasets import Dataset

from hydralight.data.collate import EpochRows
from hydralight.data.shape import Batch, Row, Shape


def shown(
    encoded: Any,
    number: int,
    shape: Shape,
    collate: Callable[[list[Row]], Batch],
) -> Batch:
    """Return a few encoded rows as one batch, and their pictures, where examples have some."""
    rows = EpochRows(encoded).__getitems__([(0, i) for i in spread(encoded, number)])
    pictures = [shape.picture(row) for row in rows]
    return {**collate(rows), **({"picture": pictures} if any(pictures) else {})}


def spread(rows: Dataset, number: int) -> list[int]:
    """Return the indices of a few encoded rows: of as many classes as there are, else the first.

    It takes the first row of each class in the order of the data, then the second of each, and so
    on; a set of several labels counts as a class. It is a function of the rows alone.

    Args:
        rows: Encoded rows. A class is an integer in `labels`, or numbers of 0 and 1 in a list.
        number: How many, at most.
    """
    feature = rows.features.get("labels")
    several = getattr(feature, "feature", None)
    hot = several is not None and getattr(several, "dtype", "").startswith("float")
    if not hot and not getattr(feature, "dtype", "").startswith("int"):
        return list(range(min(number, len(rows))))
    seen: dict[object, int] = {}
    turns = []
    labels = rows.with_format("arrow")["labels"][:].to_pylist()
    for index, label in enumerate(labels):
        kind = tuple(label) if isinstance(label, list) else label
        turns.append((seen.get(kind, 0), index))
        seen[kind] = seen.get(kind, 0) + 1
    return sorted(index for _, index in sorted(turns)[:number])
