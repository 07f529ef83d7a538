"""The contract of a shape: what an example is, from named columns to padded tensors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from datasets import Dataset

from hydralight.data.roles import Where

Purpose = Literal["train", "evaluate", "predict"]  # what rows are encoded and padded for
Columns = dict[str, list]
Row = dict[str, Any]
Batch = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Shape(ABC):
    """What an example is; a subclass is a frozen dataclass whose fields are its settings.

    It knows no trainer, no paths and no splits. The encoding cache's key is made of its fields and
    of the source of its module.
    """

    roles: ClassVar[tuple[str, ...]]  # the parts that columns play
    targets: ClassVar[tuple[str, ...]] = ()  # the roles that prediction does without
    optional_roles: ClassVar[tuple[str, ...]] = ()  # left out where the data has none
    text_roles: ClassVar[tuple[str, ...]] = ()  # those whose texts train a tokenizer
    file_roles: ClassVar[tuple[str, ...]] = ()  # those that are files, and stay out of the cache
    # the field that bounds the tokens of an input; None where there are no tokens
    length_limit: ClassVar[str | None] = "max_length"
    not_encoded: ClassVar[tuple[str, ...]] = ()  # the fields that `encode` does not read
    # the roles that stay beside rows that are not trained on, and come with a batch as lists
    kept: ClassVar[tuple[str, ...] | None] = None  # None: all of them
    # the roles that are parts of a pair: no text is given for two of them
    distinct_roles: ClassVar[tuple[str, ...]] = ()
    unfold: ClassVar[Any] = None  # a function of rows, for files whose format nests them
    keeps_columns: ClassVar[bool] = False  # whether `rest` has all columns of a row, as JSON

    # ------------------------------------------------------------ before encoding

    def declared(self, rows: Dataset, where: Where) -> Sequence[str]:
        """Return the labels that a source declares, of rows whose columns are named by role."""
        return ()

    def named(self, rows: Mapping[str, Dataset], where: Mapping[str, Where]) -> Self:
        """Return the shape with what the labels of a source's splits stand for, if it was said.

        Args:
            rows: Rows by split, whose columns are named by role.
            where: What messages call the splits.

        Raises:
            UserError: what was said does not fit the labels that there are.
        """
        return self

    @abstractmethod
    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Return rows, named by role, as `encode` takes them.

        Raises:
            UserError: there are rows that no one can use; `where` and the row are named.
        """

    def with_targets(self, rows: Dataset, where: Where) -> Dataset:
        """Return the prepared rows of a split without those that have nothing to learn from.

        How many these are is told, by `where`.
        """
        return rows

    def settled(self, train: Dataset | None, declared: Sequence[str]) -> Self:
        """Return the shape as it is once the prepared training rows are known: with its labels."""
        return self

    def check_targets(self, rows: Columns) -> None:  # noqa: B027
        """Look at the targets of prepared rows as `encode` does, without a tokenizer.

        Raises:
            UserError: one is not known.
        """

    def check_trainable(self, rows: Dataset, where: Where) -> None:  # noqa: B027
        """Look at prepared rows that are to be trained on, and not only evaluated.

        Raises:
            UserError: they cannot be, such as those with several references.
        """

    @property
    def label_names(self) -> Sequence[str] | None:
        """The labels in the order of their numbers; None where there are none.

        Raises:
            UserError: there are labels, and they are not known.
        """
        return None

    def text_of(self, value: Any) -> str:
        """Return a value of `text_roles` as a tokenizer is to learn it."""
        return value if isinstance(value, str) else " ".join(value)

    def ready(self, processor: Any) -> Any:
        """Return the tokenizer or image processor ready for the task, or refuse it."""
        return processor

    def compare(self, rows: Dataset, processor: Any) -> None:  # noqa: B027
        """Warn where the tokenizer or image processor takes much away from training rows."""

    # ------------------------------------------------------------ encoding

    @abstractmethod
    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Return the columns of encoded rows: the model's inputs, `labels`, and `length`.

        It is a pure function of the fields and these arguments. `length` is the number of tokens
        of the longest sequence that the model reads of a row. `too_long` says whether something
        was cut off (False unless said), `row` which source row this is (`indices` unless said).

        Args:
            rows: Prepared columns by role, of some rows; the targets may be missing in prediction.
            indices: The rows' numbers in their split.
            processor: The tokenizer or image processor.
            purpose: What for.

        Raises:
            UserError: a row cannot be used; its number is named, from 1.
        """

    @abstractmethod
    def size(self, rows: Dataset) -> np.ndarray:
        """Return what encoded rows take of a budget of tokens (rows, parts).

        A part is what is padded by itself, such as source and target. A batch takes, of each part,
        the largest value times its rows.

        Args:
            rows: Encoded rows, whose columns are read as arrays.
        """

    def unjoined(self, processor: Any) -> Self | None:
        """Return the shape of what is joined into blocks; None where rows are no such blocks.

        Its training rows are `input_ids` alone, of any length.
        """
        return None

    # ------------------------------------------------------------ batches

    def vary(  # noqa: B027
        self, row: Row, rng: np.random.Generator, processor: Any, purpose: Purpose
    ) -> None:
        """Do to a row, in place, whatever is random per example (masking, augmentation)."""

    def picture(self, row: Row) -> Any:
        """Return an encoded row as a picture (PIL), where it is an image that no file holds."""
        return None

    def parts(self, row: Row, processor: Any) -> list[tuple[str, bool]]:
        """Return an encoded row as texts and whether each is trained on, where not all of it is."""
        return []

    @abstractmethod
    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Turn encoded rows into tensors of one length, named as the model's `forward` names them.

        Args:
            rows: Encoded rows.
            processor: The tokenizer or image processor.
            pad_to_multiple_of: What lengths are rounded up to.
            purpose: What for.
        """

    @property
    def target_capacity(self) -> int:
        """How many targets an example has at most, about: it keeps summed losses in range."""
        return 1
