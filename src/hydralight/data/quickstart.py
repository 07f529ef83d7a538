"""The quickstart's data, and an example of data that is made rather than read."""

from typing import Any

from datasets import Dataset

from hydralight.data.newswire import newswire
from hydralight.data.seq2seq import SummarizationData


class NewswireData(SummarizationData):
    """Articles of the synthetic newswire; each split is drawn from a seed of its own.

    Args:
        num_train: Articles to train on.
        num_eval: Articles of the validation split, and of the test split.
        kwargs: Those of `SummarizationData`.
    """

    def __init__(self, *, num_train: int = 4000, num_eval: int = 200, **kwargs: Any) -> None:
        super().__init__(columns={"text": "article", "summary": "highlights"}, **kwargs)
        self.sizes = {"train": num_train, "validation": num_eval, "test": num_eval}

    def read_sources(self) -> dict[str, Dataset]:
        """Write the newswire."""
        return {
            split: Dataset.from_list(list(newswire(size, self.split_seed + number)))
            for number, (split, size) in enumerate(self.sizes.items())
        }
