"""Whether the rows that a run is resumed on, and its steps, are those that it was trained on."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import xxhash
from datasets import Dataset

from hydralight.data.order import Place
from hydralight.errors import UserError

SAMPLE = 512  # rows that are hashed as a whole


def rows_of(encoded: Any, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return what tells encoded training rows from others, whatever files they came from.

    Args:
        encoded: The rows. All their lengths count, and all values of an even sample of them; what
            is read from files later (images) does not.
        labels: The labels in the order of their numbers.
    """
    if not isinstance(encoded, Dataset):  # in shards
        return encoded.identity(labels)
    names = [name for name, feature in encoded.features.items() if _of_numbers(feature)]
    table = encoded.with_format(None).select_columns(names)
    taken = np.unique(np.linspace(0, len(encoded) - 1, min(SAMPLE, len(encoded))).astype(int))
    content = xxhash.xxh3_128(json.dumps(table[taken.tolist()], sort_keys=True).encode())
    if "length" in names:
        lengths = encoded.select_columns(["length"]).with_format("numpy")["length"][:]
        content.update(np.asarray(lengths, dtype=np.int64).tobytes())
    named = None if labels is None else list(labels)
    return {"rows": len(encoded), "labels": named, "content": content.hexdigest()}


def check_same(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Compare the training rows of a checkpoint with those at hand.

    Args:
        before: What `rows_of` returned then; None of earlier versions, which did not say.
        now: What it returns now.

    Raises:
        UserError: they differ.
    """
    if before is None or before == now:
        return
    how = f"their lengths or values are not those of the {now['rows']} it was trained on"
    for name, said in (
        ("rows", "the run was trained on {} rows"),
        ("labels", "its labels were {}"),
    ):
        if before[name] != now[name]:
            how = f"{said.format(before[name])}, and now there are {now[name]}"
            break
    raise UserError(f"the training data is not the run's: {how}; resume with the same data.")


def _of_numbers(feature: Any) -> bool:
    """Whether a column holds numbers, or lists of them."""
    if isinstance(feature, datasets.Sequence | datasets.List | datasets.LargeList):
        return _of_numbers(feature.feature)
    number = isinstance(feature, datasets.Value) and feature.dtype.startswith(
        ("int", "uint", "float", "bool")
    )
    return number or isinstance(feature, datasets.ClassLabel)


def check_order(
    state: Mapping[str, Any], settings: Mapping[str, Any], typed: int | None, place: Place
) -> int:
    """Return how many micro-batches each device is to accumulate, so that steps stay what they are.

    Args:
        state: Of the data module in a checkpoint.
        settings: What decides on the order now, by key.
        typed: `data.batches_per_step` now.
        place: This process now; the number of devices may be another.

    Raises:
        UserError: the order or the steps would be others, or the devices cannot share them.
    """
    if "batches_per_step" not in state:
        raise UserError("the checkpoint is of an earlier version, whose runs cannot go on here.")
    for name, value in settings.items():
        _refuse_other(name, state.get(name, value), value)  # earlier versions kept fewer
    before, number = state["accumulate_grad_batches"], state["batches_per_step"]
    if typed is not None:
        _refuse_other("data.batches_per_step", number, typed)
    elif place.batches_per_step != number:  # it has to be the devices alone
        _refuse_other("trainer.accumulate_grad_batches", before, place.accumulate_grad_batches)
    if number % place.world_size:
        raise UserError(
            f"the run was trained with steps of {number} micro-batches, which {place.world_size} "
            "devices cannot share: resume on a number that divides them."
        )
    return number // place.world_size


def _refuse_other(name: str, before: Any, value: Any) -> None:
    if value != before:
        raise UserError(
            f"the run was trained with {name}={before}, and another value would change the "
            "order of its data: resume without it."
        )
