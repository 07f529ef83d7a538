"""The quickstart's data, and an example of a source that makes rows rather than reads them."""

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
    sizes = {"train": num_train, "validation": num_eval, "test": num_eval}
    return {
        split: Dataset.from_list(list(newswire(size, split_seed + number)))
        for number, (split, size) in enumerate(sizes.items())
    }


def belongings_splits(
    num_train: Positive = 4000, num_eval: Positive = 200, split_seed: Seed = 42
) -> dict[str, Dataset]:
    """Return conversations about who has what; each split is drawn from a seed of its own.

    Args:
        num_train: Conversations to train on.
        num_eval: Those of the validation split, and of the test split.
        split_seed: The first of the seeds.
    """
    sizes = {"train": num_train, "validation": num_eval, "test": num_eval}
    return {
        split: Dataset.from_dict({"messages": list(conversations(size, split_seed + number))})
        for number, (split, size) in enumerate(sizes.items())
    }


def belongings_pairs(
    num_train: Positive = 1000, num_eval: Positive = 200, split_seed: Seed = 42
) -> dict[str, Dataset]:
    """Return questions about who has what, with a short answer that is preferred to a long one.

    Args:
        num_train: Pairs to train on.
        num_eval: Those of the validation split, and of the test split.
        split_seed: The first of the seeds.
    """
    sizes = {"train": num_train, "validation": num_eval, "test": num_eval}
    return {
        split: Dataset.from_list(list(pairs(size, split_seed + number)))
        for number, (split, size) in enumerate(sizes.items())
    }
