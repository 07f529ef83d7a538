"""What a task sees of its data."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Batch = dict[str, Any]  # tensors as the model's `forward` names them; roles of the rows as lists
PredictedRows = list[dict[str, Any]]  # predictions


class TaskData(Protocol):
    """The data module, as a task knows it.

    What only one shape has is asked of `shape`: `max_target_length` (tokens) and `target_lang` of
    pairs of texts, `packing` of documents and conversations, `end_of_turn` of the last.
    """

    @property
    def shape(self) -> Any:
        """What an example is."""

    @property
    def processor(self) -> Any:
        """The tokenizer or image processor, once it is loaded."""

    @property
    def label_names(self) -> Sequence[str] | None:
        """The labels in the order of their numbers, where they have names."""

    @property
    def validation_sets(self) -> tuple[str, ...]:
        """What a validation evaluates: the validation split, and further sets by name."""

    @property
    def seed(self) -> int:
        """What is random in a run is drawn from."""

    @property
    def num_iterations(self) -> int:
        """Optimizer steps of the same micro-batches, one after the other."""

    @property
    def target_capacity(self) -> int:
        """How many targets a training batch of one device holds, about."""

    def load_processor(self) -> Any:
        """Load or train the tokenizer (or load the image processor) once, and return it."""

    def encoded(self, split: str) -> Any:
        """Return the encoded rows of a split, a `datasets.Dataset`."""

    def train_dataloader(self) -> Any:
        """Return the training batches of this process, from where training is."""

    def encoded_splits(self) -> list[str]:
        """Return the names of the splits that have been encoded to be trained on or evaluated."""

    def evaluated_together(self, split: str) -> list[list[int]]:
        """Return the rows of each batch of an encoded split, as an evaluation takes all of it."""

    def add_columns(self, split: str, columns: Mapping[str, Sequence[float]]) -> None:
        """Put further columns beside the encoded rows of a split."""

    def collate(self, rows: list[dict[str, Any]]) -> Batch:
        """Turn encoded rows, each with its `index` and `epoch`, into a batch."""

    def longest(self) -> int:
        """Return the tokens of the longest input, as padded."""
