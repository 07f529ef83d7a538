"""The base data module: from sources to batches, with an exact place in the data."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from datasets import Dataset
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from hydralight.config import UserError
from hydralight.data.encoding import (
    cache_folder,
    encode_cached,
    tokenizer_id,
    without_too_long,
)
from hydralight.data.inputs import read_input
from hydralight.data.roles import check_text, rename_roles
from hydralight.data.sampling import EpochBatchSampler
from hydralight.data.sources import load_splits
from hydralight.data.splits import carve

Batch = dict[str, Any]


class DataModule(LightningDataModule):
    """What the data modules of all tasks share; a subclass says what an example is.

    A subclass names its roles, gives `encode` (a plain function over a batch of rows, so that its
    result can be cached) and `pad` (a list of encoded rows to a batch of tensors).

    Args:
        tokenizer: Recipe: called with the training texts, a key for them and a cache folder.
        path: Hub id, local file, glob or folder; or a mapping from split to such.
        name: Config name of a hub data set.
        revision: Branch, tag or commit of a hub data set.
        splits: For hub data: split to HF's split expression, such as `{train: "train[:1%]"}`.
            Local data is used whole, or sliced in its own path: `my.csv[:100]`.
        columns: Role to column name, where they differ.
        reader: Options for the `datasets` builder of local files, such as `{sep: ";"}`.
        validation_fraction: Part of train that becomes validation where the source has none.
        test_fraction: The same for test.
        split_seed: Seed of that division.
        stratify_by: Column whose values keep their proportions in it.
        group_by: Column whose groups stay together in it.
        too_long: What happens to an example that is longer than the maximum.
        batch_size: Examples of a batch per device.
        eval_batch_size: The same in evaluation and prediction; `batch_size` unless said.
        num_workers: Worker processes of each loader.
        seed: Of the training order.
    """

    roles: ClassVar[tuple[str, ...]]
    targets: ClassVar[tuple[str, ...]]  # the roles that prediction does without
    encode: ClassVar[Callable[..., dict[str, list]]]

    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        *,
        tokenizer: Callable[..., PreTrainedTokenizerBase],
        path: str | Mapping[str, Any] | None = None,
        name: str | None = None,
        revision: str | None = None,
        splits: Mapping[str, str] | None = None,
        columns: Mapping[str, str] | None = None,
        reader: Mapping[str, Any] | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int = 42,
        stratify_by: str | None = None,
        group_by: str | None = None,
        too_long: Literal["truncate", "drop", "refuse"] = "truncate",
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 42,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (eval_batch_size or 1) < 1:
            raise UserError("data.batch_size and data.eval_batch_size should be at least 1.")
        self.make_tokenizer = tokenizer
        self.path = path
        self.name = name
        self.revision = revision
        self.source_splits = splits
        self.columns = dict(columns or {})
        self.reader = dict(reader or {})
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.stratify_by = stratify_by
        self.group_by = group_by
        self.too_long = too_long
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.validation_split = "validation"
        self.later_splits: tuple[str, ...] = ()  # evaluated after training; a lack is told before
        self.predict_rows: Dataset | None = None
        self.consumed = 0  # training batches before this process began
        self._batches_per_epoch = 0
        self.too_long_counts: dict[str, int] = {}
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._sources: dict[str, Dataset] | None = None
        self._encoded: dict[str, Dataset] = {}

    # ------------------------------------------------------------ what a subclass says

    def encode_arguments(self) -> dict[str, Any]:
        """Return the arguments of `encode` other than the rows and the tokenizer."""
        raise NotImplementedError

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
        """Turn encoded rows into tensors of one length, labels padded with -100."""
        raise NotImplementedError

    @property
    def target_capacity(self) -> int:
        """How many targets a training batch of one device can hold."""
        raise NotImplementedError

    def read_sources(self) -> dict[str, Dataset]:
        """Return the source's splits with its own columns; override it for data of your own."""
        if self.path is None:
            raise UserError("data.path has no value: give data.path=<hub id, file or folder>.")
        return load_splits(
            self.path,
            name=self.name,
            revision=self.revision,
            splits=self.source_splits,
            reader=self.reader,
        )

    # ------------------------------------------------------------ Lightning's hooks

    def prepare_data(self) -> None:
        """Read, train the tokenizer and encode, on one process; the others find it cached."""
        self.setup(None)

    def setup(self, stage: str | None) -> None:
        """Read and encode the splits that the trainer's stage needs, from the cache if there."""
        assert self.trainer is not None
        validation = (self.validation_split,) if self.trainer.limit_val_batches else ()
        wanted = {
            "fit": ("train", *validation, *self.later_splits),
            "validate": (self.validation_split,),
            "test": ("test",),
        }.get(str(self.trainer.state.fn.value) if self.trainer.state.fn else "", ())
        for split in wanted:
            self.encoded(split)
        if self.predict_rows is not None and "predict" not in self._encoded:
            self.load_tokenizer()
            self._encoded["predict"] = self._encode("predict", self.predict_rows)

    def train_dataloader(self) -> DataLoader:
        """Return the training batches, from the place where a resumed run stopped."""
        assert self.trainer is not None
        if len(self._encoded["train"]) < self.trainer.world_size:
            raise UserError(
                f"{len(self._encoded['train'])} training examples are too few for "
                f"{self.trainer.world_size} devices."
            )
        sampler = self._sampler("train", self.batch_size, shuffle=not self.trainer.overfit_batches)  # type: ignore[attr-defined]
        limit = self.trainer.limit_train_batches
        taken = int(len(sampler) * limit) if isinstance(limit, float) else min(limit, len(sampler))
        if self.consumed and taken != self._batches_per_epoch:
            raise UserError(
                f"the run had {self._batches_per_epoch} batches an epoch, and now there are "
                f"{taken}: resume with the same training data."
            )
        sampler.epoch, sampler.position = divmod(self.consumed, max(1, taken))
        return self._loader("train", sampler)

    def val_dataloader(self) -> DataLoader:
        """Return the validation batches, in the source's order."""
        return self._eval_loader(self.validation_split)

    def test_dataloader(self) -> DataLoader:
        """Return the test batches, in the source's order."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Return the batches of what is to be predicted."""
        return self._eval_loader("predict")

    def state_dict(self) -> dict[str, int]:
        """Return the place in the data: the batches taken from it in all."""
        assert self.trainer is not None
        return {
            "consumed": self.trainer.fit_loop.epoch_loop.batch_progress.total.ready,
            "batches_per_epoch": int(self.trainer.num_training_batches),
            "global_batch_size": self.batch_size * self.trainer.world_size,
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take up the place that `state_dict` recorded."""
        assert self.trainer is not None
        size = self.batch_size * self.trainer.world_size
        if size != state_dict["global_batch_size"]:
            raise UserError(
                f"the run was trained with {state_dict['global_batch_size']} examples a batch over "
                f"all devices, and now there are {size}: resume with the same data.batch_size "
                "and number of devices."
            )
        self.consumed = state_dict["consumed"]
        self._batches_per_epoch = state_dict["batches_per_epoch"]

    # ------------------------------------------------------------ sources

    def sources(self) -> dict[str, Dataset]:
        """Return the splits with their columns named by role, checked and carved; read once."""
        if self._sources is None:
            splits = self.read_sources()
            by = [column for column in (self.stratify_by, self.group_by) if column]
            named = {}
            for split, dataset in splits.items():
                where = self.path if not isinstance(self.path, Mapping) else self.path.get(split)
                where = f"{where} ({split})"
                if len(dataset) == 0:
                    raise UserError(f"{where} is empty.")
                columns = [*self.roles, *(by if split == "train" else [])]
                named[split] = rename_roles(
                    dataset, self.columns, list(dict.fromkeys(columns)), where
                )
                self.check_rows(named[split], where)
            carved = carve(
                named,
                validation_fraction=self.validation_fraction,
                test_fraction=self.test_fraction,
                seed=self.split_seed,
                stratify_by=self.stratify_by,
                group_by=self.group_by,
            )
            extra = set(by) - set(self.roles)
            self._sources = {
                split: dataset.remove_columns([c for c in dataset.column_names if c in extra])
                for split, dataset in carved.items()
            }
        return self._sources

    def check_rows(self, dataset: Dataset, where: str) -> None:
        """Refuse rows that the task cannot use; text roles by default have to hold some text."""
        for role in self.roles:
            if role in dataset.column_names:
                check_text(dataset, role, self.columns.get(role, role), where)

    def texts(self) -> Iterator[str]:
        """Yield the texts of the training split, role by role, to train a tokenizer on."""
        for role in self.roles:
            for batch in self.sources()["train"].select_columns([role]).iter(1000):
                yield from batch[role]

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load or train the tokenizer once, and return it."""
        if not hasattr(self, "tokenizer"):
            train = (self._sources or {}).get("train")
            key = "" if train is None else train._fingerprint
            self.tokenizer = self.make_tokenizer(
                self.texts, cache_key=key, cache_dir=cache_folder("tokenizers")
            )
            # its state changes with use, so that it is identified now
            self._tokenizer_id = tokenizer_id(self.tokenizer)
        return self.tokenizer

    def predict_from(self, source: str) -> None:
        """Take what is to be predicted from a file, standard input ("-") or a text."""
        inputs = [role for role in self.roles if role not in self.targets]
        self.predict_rows = read_input(source, inputs, self.columns, self.reader)

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
                raise UserError(
                    f"there is no '{split}' split (there are: {', '.join(sources)}): "
                    f"name one in data.path or set data.{split}_fraction."
                )
            self.load_tokenizer()
            self._encoded[split] = self._encode(split, sources[split])
        return self._encoded[split]

    def _encode(self, split: str, dataset: Dataset) -> Dataset:
        arguments = self.encode_arguments()
        encoded = encode_cached(
            dataset,
            type(self).encode,
            self.tokenizer,
            self._tokenizer_id,
            arguments,
            # references stay beside the rows that are evaluated
            keep_columns=split != "train" or split == self.validation_split,
            desc=f"encoding {split}",
        )
        encoded, self.too_long_counts[split] = without_too_long(
            encoded,
            "truncate" if split == "predict" and self.too_long == "drop" else self.too_long,
            f"{split} examples",
            arguments,
        )
        return encoded

    def longest(self) -> int:
        """Return the length in tokens of the longest input that has been encoded."""
        encoded = [rows.with_format("numpy") for rows in self._encoded.values()]
        return max((int(rows["length"][:].max()) for rows in encoded), default=0)

    # ------------------------------------------------------------ batches

    def collate(self, rows: list[dict[str, Any]]) -> Batch:
        """Turn encoded rows into a batch: tensors, and the texts of its roles as lists."""
        texts = {role: [row.pop(role) for row in rows] for role in self.roles if role in rows[0]}
        numbers = torch.tensor([row.pop("row") for row in rows])
        for row in rows:
            row.pop("length")
        return {**self.pad(rows), "row": numbers, **texts}

    def first_batch(self, split: str, num_rows: int) -> Batch:
        """Return the first rows of an encoded split as one batch."""
        dataset = self.encoded(split)
        return self.collate(dataset.select(range(min(num_rows, len(dataset)))).to_list())

    def _sampler(self, split: str, batch_size: int, shuffle: bool) -> EpochBatchSampler:
        assert self.trainer is not None
        return EpochBatchSampler(
            len(self._encoded[split]),
            batch_size,
            seed=self.seed,
            shuffle=shuffle,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )

    def _eval_loader(self, split: str) -> DataLoader:
        return self._loader(split, self._sampler(split, self.eval_batch_size, shuffle=False))

    def _loader(self, split: str, sampler: EpochBatchSampler) -> DataLoader:
        return DataLoader(
            self._encoded[split],
            batch_sampler=sampler,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # its own stream: making an iterator must not draw from the global one
            generator=torch.Generator().manual_seed(self.seed),
        )
