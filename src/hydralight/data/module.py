"""The data module: from what was typed to batches, with an exact place in the data.

It holds the parts that each do one thing, and knows no shape by name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import datasets
from datasets import Dataset
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from hydralight.cached import cache_folder, told_if_full
from hydralight.config.ranges import Format
from hydralight.data.batches import Batching
from hydralight.data.collate import EpochRows, collate, loader
from hydralight.data.corpus.corpus import Corpus
from hydralight.data.corpus.rows import longest_of
from hydralight.data.corpus.sample import sampled
from hydralight.data.corpus.sampling import beginnings
from hydralight.data.encoding import Encoding, processor_id
from hydralight.data.mix import Mix
from hydralight.data.order import Batches, Place
from hydralight.data.padding import rounded_up
from hydralight.data.parts import concatenated
from hydralight.data.place import place_of
from hydralight.data.rows import Rows, check_split, prompts, read_rows, to_predict
from hydralight.data.same import check_order, check_same, rows_of
from hydralight.data.shape import Batch, Purpose, Row, Shape
from hydralight.data.source import SPLITS, Source
from hydralight.data.splits import Splits
from hydralight.data.spread import shown
from hydralight.data.stream.mixed import streams_of
from hydralight.data.stream.streamed import Stream
from hydralight.data.taken import Taken
from hydralight.progress import waiting


class DataModule(LightningDataModule):
    """Reads, encodes and batches what a shape says an example is.

    Args:
        shape: What an example is.
        source: Where the rows are.
        splits: How train is parted where there is no validation split.
        mix: Further data sets.
        encoding: How rows are encoded.
        batching: How rows come together in batches.
        corpus: Whether training rows are prepared in shards, and how.
        tokenizer: Recipe of the tokenizer or image processor: called with the training texts, a
            key for them and a cache folder.
    """

    def __init__(
        self,
        *,
        shape: Shape,
        source: Source,
        tokenizer: Callable[..., Any],
        splits: Splits | None = None,
        mix: Mix | None = None,
        encoding: Encoding | None = None,
        batching: Batching | None = None,
        corpus: Corpus | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape  # with its labels, once rows have been read
        self.source = source
        self.splits = splits or Splits()
        self.mix = mix or Mix()
        self.encoding = encoding or Encoding()
        self.batching = batching or Batching()
        self.num_iterations = self.batching.num_iterations  # steps on the same micro-batches
        self.corpus = corpus or Corpus()
        self.make_processor = tokenizer
        self.processor: Any = None
        self.validation_split = "validation"
        self.only_columns = False  # are to be proposed: the rest is settled by a trained model
        self.later_splits: tuple[str, ...] = ()  # evaluated after training; a lack is told before
        self.too_long_counts: dict[str, int] = {}
        self.taken = Taken()
        self._rows: Rows | None = None
        self._input: Dataset | None = None
        self._encoded: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}  # what train is joined of, where it is a mixture
        self.allow_zero_length_dataloader_with_multiple_devices = True

    # ------------------------------------------------------------ rows

    def rows(self) -> Rows:
        """Return the rows of all splits, prepared; read once."""
        if self._rows is None:
            self._rows = self._read()
            self.shape = self._rows.shape
        return self._rows

    def _read(self, *most: int) -> Rows:
        known = dict.fromkeys([*SPLITS, self.validation_split])
        needed = {"train", self.validation_split, *self.later_splits}
        with waiting("reading the data"), told_if_full(datasets.config.HF_DATASETS_CACHE):
            parts = self.source, self.splits, self.mix, self.shape
            if self.corpus.is_sampled:
                parts = sampled(*parts, self.corpus, *most)
            return read_rows(*parts, known, self.only_columns, needed)

    def _texts(self) -> Iterator[str]:
        """Return the texts that a tokenizer is trained on: of a corpus, as many as it asks for."""
        number: Any = self.corpus.is_sampled and getattr(self.make_processor, "sample_texts", 0)
        return (self._read(number) if number else self.rows()).texts()

    def predict_from(self, text: str, format: Format | None = None) -> None:
        """Take what is to be predicted from a file, standard input ("-") or a text."""
        self._input = to_predict(self.source, text, self.shape, format)

    @property
    def label_names(self) -> Sequence[str] | None:
        """The labels in the order of their numbers; None where there are none."""
        return self.shape.label_names

    @property
    def validation_sets(self) -> tuple[str, ...]:
        """What a validation evaluates: the validation split, and the sets of `extra_eval`."""
        return (self.validation_split, *(self.mix.extra_eval or {}))

    # ------------------------------------------------------------ encoding

    def load_processor(self) -> Any:
        """Load or train the tokenizer (or load the image processor) once, and return it."""
        if self.processor is None:
            key = self._rows.texts_key() if self._rows else ""
            made = self.make_processor(
                self._texts, cache_key=key, cache_dir=cache_folder("tokenizers")
            )
            self.processor = self.shape.ready(made)
            # its state changes with use, so that it is identified now
            self._processor_key = processor_id(self.processor)
        return self.processor

    def encoded(self, split: str) -> Any:
        """Return a split's encoded rows, cached on disk by what they are made from.

        Raises:
            UserError: there is no such split, or it is empty, or a row cannot be used.
        """
        if split not in self._encoded:
            if self.corpus.makes(split, self.validation_split, (rows := self.rows()).splits):
                self._prepare()
                return self._encoded[split]
            trains = split == "train" and self.validation_split != "train"
            check_split(rows, split, self.source, trains)
            with rows.naming(split):
                self._encode(split, rows.splits[split], "train" if trains else "evaluate")
            if split == "train" and rows.sets:
                self._join(rows)
        return self._encoded[split]

    def _join(self, rows: Rows) -> None:
        """Put the sets of a mixture, each encoded by itself, behind the training rows."""
        self._parts = {"train": self._encoded["train"]}
        for name, own in rows.sets.items():
            with rows.naming(key := f"data.mix.{name}"):
                self._encode(key, own, "train")
            self._parts[name] = self._encoded.pop(key)
            self.too_long_counts["train"] += self.too_long_counts.pop(key)
        self._encoded["train"] = concatenated([*self._parts.values()])

    def _encode(self, split: str, rows: Dataset, purpose: Purpose) -> None:
        self.load_processor()
        if split == "train":
            self.shape.compare(rows, self.processor)
        self._encoded[split], self.too_long_counts[split] = self.encoding.encode(
            rows, self.shape, self.processor, self._processor_key, purpose, split
        )

    def encoded_splits(self) -> list[str]:
        """Return the names of the splits that have been encoded, without files of prompts."""
        return [] if self._rows is None else [s for s in self._encoded if s in self._rows.splits]

    def evaluated_together(self, split: str) -> list[list[int]]:
        """Return the rows of each batch of an encoded split, as an evaluation takes all of it."""
        return [b.tolist() for b in self._eval_batches(split, place=Place()).plan.batches(0)]

    def add_columns(self, split: str, columns: Mapping[str, Sequence[float]]) -> None:
        """Put further columns beside the encoded rows of a split."""
        assert split != "train" or self.trained_on  # which is said of the data alone
        parts = [self._encoded[split], Dataset.from_dict(dict(columns))]
        self._encoded[split] = datasets.concatenate_datasets(parts, axis=1)

    def _prepare(self, again: bool = False) -> None:
        how = self.source, self.shape, self.load_processor(), self.encoding.too_long
        if self.corpus.streaming:
            self.taken.stream = streams_of(Stream(self.corpus, *how, self.batching), self.mix)
            self._encoded |= self.taken.stream.encoded(beginnings)
        else:
            made, self._parts = self.corpus.mixed(self.mix, *how, again)
            self._encoded |= made

    def prepare_corpus(self) -> None:
        """Do what is not done yet of a corpus in shards, also of files that have changed."""
        self.rows()
        self._prepare(again=True)

    def longest(self) -> int:
        """Return the length in tokens of the longest input that has been encoded, as padded."""
        longest = max(map(longest_of, self._encoded.values()), default=0)
        return rounded_up(longest, self.pad_to_multiple_of)

    # ------------------------------------------------------------ Lightning's hooks

    def prepare_data(self) -> None:
        """Read, train the tokenizer and encode, on one process; the others find it cached."""
        self.setup(None)

    def setup(self, stage: str | None) -> None:
        """Read and encode the splits that the trainer's stage needs, from the cache if there."""
        validated = self.trainer is None or self.trainer.limit_val_batches
        validation = self.validation_sets if validated else ()
        state = None if self.trainer is None else self.trainer.state.fn
        running = "fit" if self.trainer is None else str(state and state.value)
        wanted = {
            "fit": ("train", *validation, *self.later_splits),
            "validate": validation,
            "test": ("test",),
        }.get(running, ())
        for split in wanted:
            self.encoded(split)
        if self._input is not None and "predict" not in self._encoded:
            self._encode("predict", self._input, "predict")

    def train_dataloader(self) -> DataLoader:
        """Return the training batches, from the place where a resumed run stopped."""
        return self._loader("train", "train", self._train_batches)

    def _train_batches(self) -> Any:
        if self.taken.stream is not None:
            return self.taken.stream.batches(self.place, self.trainer, self.taken.consumed)
        shuffle = self.trainer is None or not self.trainer.overfit_batches  # type: ignore[attr-defined]
        how = self.shape, self.place, shuffle, self.mix, self._parts
        return self.taken.begin(self.batching.of(self._encoded["train"], *how), self.trainer)

    def val_dataloader(self) -> list[DataLoader]:
        """Return the batches of each set to validate on."""
        return [self._eval_loader(split) for split in self.validation_sets]

    def test_dataloader(self) -> DataLoader:
        """Return the test batches."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Return the batches of what is to be predicted; in its order where not all are."""
        limit = 1.0 if self.trainer is None else self.trainer.limit_predict_batches
        return self._loader("predict", "predict", partial(self._eval_batches, "predict", limit))

    @cached_property
    def trained_on(self) -> dict[str, Any]:
        """What tells the encoded training rows from others."""
        return rows_of(self.encoded("train"), self.label_names)

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data (the micro-batches taken from it), and what data it is."""
        place = self.taken.state(self.trainer, self.place)
        return {**place, "trained_on": self.trained_on, **self._order_settings}

    @property
    def _order_settings(self) -> dict[str, Any]:
        return {**self.batching.order_settings(), **self.mix.order_settings()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the place that `state_dict` recorded, on any number of devices.

        Raises:
            UserError: the data, its order or its steps would be others.
        """
        place, now, typed = self.place, self.trained_on, self.batching.batches_per_step
        accumulated = check_order(state_dict, self._order_settings, typed, place)
        self.taken.go_on(state_dict, place)
        check_same(state_dict.get("trained_on"), now)
        if self.trainer is not None:
            self.trainer.accumulate_grad_batches = accumulated

    # ------------------------------------------------------------ batches

    @property
    def place(self) -> Place:
        """This process among those of the trainer; alone where there is no trainer."""
        return place_of(self.trainer)

    @property
    def seed(self) -> int:
        """What is random in a run is drawn from."""
        return self.batching.seed

    @property
    def target_capacity(self) -> int:
        """How many targets a training batch of one device holds, about."""
        return self.batching.batch_size * self.shape.target_capacity

    @property
    def pad_to_multiple_of(self) -> int | None:
        """What lengths are rounded up to."""
        if self.batching.pad_to_multiple_of is not None:
            return self.batching.pad_to_multiple_of
        return 8 if self.trainer is not None and "16" in str(self.trainer.precision) else None

    def collate(self, rows: list[Row], purpose: Purpose = "evaluate") -> Batch:
        """Turn encoded rows into a batch: tensors, and what is kept of its roles as lists."""
        return self._collate(purpose)(rows)

    def _collate(self, purpose: Purpose) -> Callable[[list[Row]], Batch]:
        return partial(
            collate,
            shape=self.shape,
            processor=self.processor,
            seed=self.batching.seed,
            pad_to_multiple_of=self.pad_to_multiple_of,
            purpose=purpose,
        )

    def sample_batch(self, split: str, num_rows: int) -> Batch:
        """Return a few rows of an encoded split as one batch: of several classes, or the first.

        Where an example has a picture, `picture` is a list of them.
        """
        return shown(self.encoded(split), num_rows, self.shape, self.collate)

    def prompts_batch(self, source: str) -> Batch:
        """Return a file of prompts as one batch, for a model to write what follows."""
        if source not in self._encoded:
            self._encode(source, prompts(self.source, source, self.shape), "predict")
        rows = EpochRows(self._encoded[source])
        return self.collate(rows.__getitems__([(0, i) for i in range(len(rows))]), "predict")

    def _eval_loader(self, split: str) -> DataLoader:
        limit: int | float | None = 1.0
        if (trainer := self.trainer) is not None:
            tested = split == "test" and trainer.testing
            limit = trainer.limit_test_batches if tested else trainer.limit_val_batches
        return self._loader(split, "evaluate", partial(self._eval_batches, split, limit))

    def _eval_batches(
        self, split: str, limit: int | float | None = 1.0, place: Place | None = None
    ) -> Batches:
        sizes = self.shape.size(self._encoded[split].with_format("numpy"))
        return self.batching.evaluation(sizes, place or self.place, limit)

    def _loader(self, split: str, purpose: Purpose, batches: Callable[[], Any]) -> DataLoader:
        how = self._collate(purpose), self.batching.num_workers, self.batching.seed
        return loader(self._encoded[split], batches(), *how)
