"""The quickstart's data, and examples of sources that make rows rather than read them."""

from collections.abc import Callable, Iterable
from typing import Any

from datasets import Dataset

from hydralight.config.ranges import Positive, Seed
from hydralight.data.belongings import conversations, pairs
from hydralight.data.newswire import newswire


def newswire_splits(
    num_train: Positive = 4000, num_eval: Positive = 200, split_seed: Seed = 42
) -> dict[str, Dataset]:
    """Return articles of the synthetic newswire; each split is drawn from a seed of its own.

    Args:
        num_train: Articles to train on.
        num_eval: Articles of the validation split, and of the test split.
        split_seed: The first of the seeds.
    """
    return written(newswire, num_train, num_eval, split_seed)


def belongings_splits(
    num_train: Positive = 4000, num_eval: Positive = 200, split_seed: Seed = 42
) -> dict[str, Dataset]:
    """Return conversations about who has what, as `messages`; arguments as of the newswire."""

    def rows(number: int, seed: int) -> Iterable[dict[str, Any]]:
        return ({"messages": messages} for messages in conversations(number, seed))

    return written(rows, num_train, num_eval, split_seed)


def belongings_pairs(
    num_train: Positive = 1000, num_eval: Positive = 200, split_seed: Seed = 42
) -> dict[str, Dataset]:
    """Return questions about who has what, with a short answer that is preferred to a long one."""
    return written(pairs, num_train, num_eval, split_seed)


def written(
    rows: Callable[[int, int], Iterable[dict[str, Any]]],
    num_train: int,
    num_eval: int,
    split_seed: int,
) -> dict[str, Dataset]:
    """Return splits of rows, which are written by their number and a seed."""
    sizes = {"train": num_train, "validation": num_eval, "test": num_eval}
    return {
        split: Dataset.from_list(list(rows(size, split_seed + number)))
        for number, (split, size) in enumerate(sizes.items())
    }
