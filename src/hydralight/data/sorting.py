"""Digits that are to be put in order: prompts whose answers anybody can check, with no download."""

import random

from datasets import Dataset

from hydralight.config.ranges import Positive, Seed
from hydralight.errors import UserError


def digits_to_sort(
    num_train: Positive = 4000,
    num_eval: Positive = 200,
    num_digits: Positive = 5,
    split_seed: Seed = 42,
) -> dict[str, Dataset]:
    """Return rows of digits, `prompt`, and the same in ascending order, `answer`.

    No row is there twice, so that those that are evaluated are not trained on.

    Args:
        num_train: Rows to train on.
        num_eval: Rows of the validation split, and of the test split.
        num_digits: In a row; a digit may come several times.
        split_seed: What the rows are drawn from.

    Raises:
        UserError: there are not so many.
    """
    asked = num_train + 2 * num_eval
    if asked > 10**num_digits:
        raise UserError(
            f"data.num_digits={num_digits}: there are {10**num_digits:,} rows of digits, and "
            f"{asked:,} are asked for: raise it, or lower data.num_train or data.num_eval."
        )
    numbers = random.Random(split_seed).sample(range(10**num_digits), asked)
    rows = [row_of(f"{number:0{num_digits}}") for number in numbers]
    parts = {"validation": rows[:num_eval], "test": rows[num_eval : 2 * num_eval]}
    parts["train"] = rows[2 * num_eval :]
    return {split: Dataset.from_list(one) for split, one in parts.items()}


def row_of(digits: str) -> dict[str, str]:
    """Return digits as a prompt, and what is to be written behind it."""
    return {"prompt": f"{' '.join(digits)} >", "answer": " ".join(sorted(digits))}
