"""A source of one's own: reviews with one to five stars, made up on the spot."""

import random
from collections.abc import Iterator
from typing import Any

PRAISE = "lovely warm generous careful brilliant".split()
BLAME = "dull cold careless noisy stale".split()
FILLERS = "the room and a meal with its view was that we had".split()


def reviews(
    num_train: int = 1000, num_eval: int = 100, split_seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Return the splits, as rows with `text` and `rating`; both arguments are keys of `data`."""
    return {
        "train": list(made(num_train, split_seed)),
        "validation": list(made(num_eval, split_seed + 1)),
    }


def made(number: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield reviews of four judgements each; one star more than there is praise."""
    rng = random.Random(seed)
    for _ in range(number):
        praise = rng.randrange(5)
        words = [rng.choice(PRAISE) for _ in range(praise)]
        words += [rng.choice(BLAME) for _ in range(4 - praise)]
        words += rng.choices(FILLERS, k=rng.randrange(4, 9))
        rng.shuffle(words)
        yield {"text": " ".join(words), "rating": praise + 1}
