"""The splits as a tokenizer or image processor encodes them."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from datasets import Dataset

from hydralight.data.encoding import (
    cache_folder,
    encode_cached,
    processor_id,
    without_too_long,
)
from hydralight.data.inputs import input_roles, read_input
from hydralight.data.source_data import SourceData
from hydralight.errors import UserError

Purpose = Literal["train", "evaluate", "predict"]  # what rows are encoded for


class EncodedData(SourceData):
    """Loads the processor and encodes, once each; a subclass gives `encode`.

    Args:
        tokenizer: Recipe of the tokenizer or image processor: called with the training texts, a
            key for them and a cache folder.
        too_long: What happens to an example that is longer than the maximum.
        kwargs: Those of `SourceData`.
    """

    length_limit: ClassVar[str] = "max_length"  # the argument that bounds an input's tokens
    encode: ClassVar[Callable[..., dict[str, list]]]

    processor: Any  # tokenizer or image processor
    label_names: Sequence[str] | None = None

    def __init__(
        self,
        *,
        tokenizer: Callable[..., Any],
        too_long: Literal["truncate", "drop", "refuse"] = "truncate",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.make_processor = tokenizer
        self.too_long = too_long
        self.predict_rows: Dataset | None = None
        self.too_long_counts: dict[str, int] = {}
        self._encoded: dict[str, Dataset] = {}

    # ------------------------------------------------------------ what a subclass says

    def encode_for(self, purpose: Purpose) -> Callable[..., dict[str, list]]:
        """Return the function that encodes; for all purposes the same, as a rule."""
        return type(self).encode

    def encode_arguments(self, purpose: Purpose) -> dict[str, Any]:
        """Return the arguments of `encode` other than the rows, their indices and the processor."""
        raise NotImplementedError

    def kept_roles(self, purpose: Purpose) -> Sequence[str]:
        """Return the roles that stay beside the encoded rows, and come with a batch as lists."""
        return () if purpose == "train" else self.roles

    # ------------------------------------------------------------ the processor

    def load_processor(self) -> Any:
        """Load or train the tokenizer (or load the image processor) once, and return it."""
        if not hasattr(self, "processor"):
            train = (self._sources or {}).get("train")
            key = "" if train is None else train._fingerprint
            made = self.make_processor(
                self.texts, cache_key=key, cache_dir=cache_folder("tokenizers")
            )
            self.processor = self.prepared(made)
            # its state changes with use, so that it is identified now
            self._processor_id = processor_id(self.processor)
        return self.processor

    def prepared(self, processor: Any) -> Any:
        """Return a tokenizer or image processor ready for the task, or refuse it."""
        return processor

    def predict_from(self, source: str) -> None:
        """Take what is to be predicted from a file, standard input ("-") or a text."""
        inputs = [role for role in self.roles if role not in self.targets]
        rows, where = read_input(source, inputs[0], self.load, self.reader)
        rows = input_roles(rows, inputs, self.columns, where, self.optional_roles)
        self.predict_rows = self.checked(rows, where)

    # ------------------------------------------------------------ encoding

    def encoded(self, split: str) -> Dataset:
        """Return a split's encoded rows, cached on disk by what they are made from.

        Raises:
            UserError: there is no such split, or it is empty, or a row is too long and
                `too_long` is `refuse`.
        """
        if split not in self._encoded:
            sources = self.sources()
            if split not in sources:
                cut = f" or set data.{split}_fraction" if split in ("validation", "test") else ""
                raise UserError(
                    f"there is no '{split}' split (there are: {', '.join(sources)}): "
                    f"name one in data.path{cut}."
                )
            self.load_processor()
            self._encoded[split] = self._encode(split, sources[split])
        return self._encoded[split]

    def _encode(self, split: str, dataset: Dataset) -> Dataset:
        purpose: Purpose = "predict" if split == "predict" else "evaluate"
        if split == "train" and self.validation_split != "train":
            purpose = "train"
        arguments = self.encode_arguments(purpose)
        try:
            encoded = encode_cached(
                dataset,
                self.encode_for(purpose),
                self.processor,
                self._processor_id,
                arguments,
                kept_columns=self.kept_roles(purpose),
                desc=f"encoding {split}",
            )
        except UserError as error:
            cut = ", as cut out of the training data" if split in self.cut else ""
            raise UserError(f"the {split} split{cut}, {error}.") from error
        encoded, self.too_long_counts[split] = without_too_long(
            encoded,
            "truncate" if purpose == "predict" and self.too_long == "drop" else self.too_long,
            f"{split} examples",
            arguments,
        )
        return encoded
