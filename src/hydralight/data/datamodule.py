"""The base data module: from encoded rows to batches, with an exact place in the data."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from hydralight.data.encoded_data import EncodedData, Purpose
from hydralight.data.padding import rounded_up
from hydralight.data.sampling import EpochBatchSampler, EpochRows, TokenBudgetSampler
from hydralight.errors import UserError

Batch = dict[str, Any]


class DataModule(EncodedData):
    """What the data modules of all tasks share; a subclass says what an example is.

    A subclass names its roles, gives `encode` (a plain function over a batch of rows, so that its
    result can be cached) and `pad` (a list of encoded rows to a batch of tensors).

    Args:
        batch_size: Examples of a batch per device.
        eval_batch_size: The same in evaluation and prediction; `batch_size` unless said.
        max_tokens: Of a training batch per device, padding included: it takes as many examples of
            like lengths as fit, instead of `batch_size`.
        group_by_length: Whether a training batch is of examples of like lengths, which saves
            padding.
        pad_to_multiple_of: What the lengths of batches are rounded up to, such as 64 for few shapes
            under `task.torch_compile`; 8 in 16 bits unless said, for the sake of tensor cores.
        num_workers: Worker processes of each loader.
        seed: Of the training order.
        kwargs: Those of `EncodedData`.
    """

    def __init__(
        self,
        *,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        max_tokens: int | None = None,
        group_by_length: bool = False,
        pad_to_multiple_of: int | None = None,
        num_workers: int = 0,
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if batch_size < 1 or (eval_batch_size or 1) < 1:
            raise UserError("data.batch_size and data.eval_batch_size should be at least 1.")
        if max_tokens is not None and max_tokens < 1:
            raise UserError("data.max_tokens should be at least 1.")
        if num_workers < 0:
            raise UserError("data.num_workers should be 0 or more.")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.max_tokens = max_tokens
        self.group_by_length = group_by_length
        self._pad_to_multiple_of = pad_to_multiple_of
        self.num_workers = num_workers
        self.seed = seed
        self.later_splits: tuple[str, ...] = ()  # evaluated after training; a lack is told before
        self.consumed = 0  # training batches before this process began
        self._batches_per_epoch = 0
        self.allow_zero_length_dataloader_with_multiple_devices = True

    # ------------------------------------------------------------ what a subclass says

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
        """Turn encoded rows into tensors of one length, labels padded with -100."""
        raise NotImplementedError

    @property
    def target_capacity(self) -> int:
        """How many targets a training batch of one device holds, about: it keeps sums in range."""
        raise NotImplementedError

    def vary(self, row: dict[str, Any], rng: np.random.Generator, purpose: Purpose) -> None:
        """Do to a row, in place, whatever is random per example (masking, augmentation).

        In training the generator is seeded by (seed, epoch, index), in evaluation by the latter.
        """

    @property
    def shape(self) -> "DataModule":
        """What an example is; here it is the module itself that says so."""
        return self

    # ------------------------------------------------------------ Lightning's hooks

    def prepare_data(self) -> None:
        """Read, train the tokenizer and encode, on one process; the others find it cached."""
        self.setup(None)

    def setup(self, stage: str | None) -> None:
        """Read and encode the splits that the trainer's stage needs, from the cache if there."""
        assert self.trainer is not None
        limit = getattr(self, self.length_limit, None)
        if limit is not None and limit < 4:
            raise UserError(f"data.{self.length_limit}={limit} leaves nothing of an input.")
        validation = self.validation_sets if self.trainer.limit_val_batches else ()
        wanted = {
            "fit": ("train", *validation, *self.later_splits),
            "validate": validation,
            "test": ("test",),
        }.get(str(self.trainer.state.fn.value) if self.trainer.state.fn else "", ())
        for split in wanted:
            self.encoded(split)
        if self.predict_rows is not None and "predict" not in self._encoded:
            self.load_processor()
            self._encoded["predict"] = self._encode("predict", self.predict_rows)

    @property
    def validation_sets(self) -> tuple[str, ...]:
        """What a validation evaluates: the validation split, and the sets of `extra_eval`."""
        return (self.validation_split, *self.extra_eval)

    def train_dataloader(self) -> DataLoader:
        """Return the training batches, from the place where a resumed run stopped."""
        assert self.trainer is not None
        if len(self._encoded["train"]) < self.trainer.world_size:
            raise UserError(
                f"{len(self._encoded['train'])} training examples are too few for "
                f"{self.trainer.world_size} devices."
            )
        sampler = self._train_sampler()
        limit = self.trainer.limit_train_batches
        taken = int(len(sampler) * limit) if isinstance(limit, float) else min(limit, len(sampler))
        if self.consumed and taken != self._batches_per_epoch:
            raise UserError(
                f"the run had {self._batches_per_epoch} batches an epoch, and now there are "
                f"{taken}: resume with the same training data."
            )
        sampler.epoch, sampler.position = divmod(self.consumed, max(1, taken))
        return self._loader("train", sampler, "train")

    def val_dataloader(self) -> list[DataLoader]:
        """Return the batches of each set to validate on."""
        return [self._eval_loader(split) for split in self.validation_sets]

    def test_dataloader(self) -> DataLoader:
        """Return the test batches."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Return the batches of what is to be predicted."""
        return self._loader("predict", self._eval_sampler("predict"), "predict")

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the data: the batches taken from it in all."""
        assert self.trainer is not None
        return {
            "consumed": self.trainer.fit_loop.epoch_loop.batch_progress.total.ready,
            "batches_per_epoch": int(self.trainer.num_training_batches),
            "global_batch_size": self.global_batch_size,
            **self.order_arguments(),
        }

    def order_arguments(self) -> dict[str, Any]:
        """Return what decides on the order of a run's data, beside the size of its batches."""
        assert self.trainer is not None
        names = ("seed", "group_by_length", "max_tokens")
        arguments: dict[str, Any] = {f"data.{name}": getattr(self, name) for name in names}
        if self.group_by_length:
            name = "accumulate_grad_batches"
            arguments[f"trainer.{name}"] = getattr(self.trainer, name)
        return arguments

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the place that `state_dict` recorded."""
        assert self.trainer is not None
        for name, value in self.order_arguments().items():
            before = state_dict.get(name)
            if value != before:
                raise UserError(
                    f"the run was trained with {name}={before}, and another value "
                    "would change the order of its data: resume without it."
                )
        size, unit = self.global_batch_size, "tokens" if self.max_tokens else "examples"
        if size != state_dict["global_batch_size"]:
            raise UserError(
                f"the run was trained with {state_dict['global_batch_size']} {unit} a batch over "
                f"all devices, and now there are {size}: resume with the same data.batch_size "
                "and number of devices."
            )
        self.consumed = state_dict["consumed"]
        self._batches_per_epoch = state_dict["batches_per_epoch"]

    @property
    def global_batch_size(self) -> int:
        """Examples of a training batch over all devices; or tokens, where `max_tokens` is set."""
        assert self.trainer is not None
        return (self.max_tokens or self.batch_size) * self.trainer.world_size

    # ------------------------------------------------------------ batches

    def longest(self) -> int:
        """Return the length in tokens of the longest input that has been encoded, as padded."""
        encoded = [rows.with_format("numpy") for rows in self._encoded.values()]
        longest = max((int(rows["length"][:].max()) for rows in encoded), default=0)
        return rounded_up(longest, self.pad_to_multiple_of)

    @property
    def pad_to_multiple_of(self) -> int | None:
        """What lengths are rounded up to."""
        if self._pad_to_multiple_of is not None:
            return self._pad_to_multiple_of
        return 8 if self.trainer is not None and "16" in str(self.trainer.precision) else None

    def collate(self, rows: list[dict[str, Any]], purpose: Purpose = "evaluate") -> Batch:
        """Turn encoded rows into a batch: tensors, and what is kept of its roles as lists."""
        if type(self).vary is not DataModule.vary:
            for row in rows:
                place = [row["epoch"], row["index"]] if purpose == "train" else [row["index"]]
                self.vary(row, np.random.default_rng([self.seed, *place]), purpose)
        kept = {role: [row.pop(role) for row in rows] for role in self.roles if role in rows[0]}
        numbers = torch.tensor([row.pop("row", row["index"]) for row in rows])
        for row in rows:
            for name in ("length", "index", "epoch"):
                row.pop(name, None)
        return {**self.pad(rows), "row": numbers, **kept}

    def first_batch(self, split: str, num_rows: int) -> Batch:
        """Return the first rows of an encoded split as one batch."""
        rows = EpochRows(self.encoded(split))
        return self.collate(rows.__getitems__([(0, i) for i in range(min(num_rows, len(rows)))]))

    def lengths(self, split: str) -> np.ndarray:
        """Return what each row of an encoded split takes of `max_tokens`."""
        return self._encoded[split].with_format("numpy")["length"][:]

    def part_lengths(self, split: str) -> np.ndarray:
        """Return the same of the parts of a row that are padded each by itself (rows, parts)."""
        return self.lengths(split)[:, None]

    def eval_lengths(self, split: str) -> np.ndarray:
        """Return by what an evaluation sorts the rows, the largest first."""
        return self.lengths(split)

    def _train_sampler(self) -> EpochBatchSampler:
        assert self.trainer is not None
        shuffle = not self.trainer.overfit_batches  # type: ignore[attr-defined]
        place = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        if self.max_tokens is not None and shuffle:
            if getattr(self, self.length_limit, None) is None:
                raise UserError("data.max_tokens counts tokens, and these examples have none.")
            longest = self.lengths("train").max()
            if longest > self.max_tokens:
                raise UserError(
                    f"data.max_tokens={self.max_tokens} has no room for a training example of "
                    f"{longest} tokens: raise it, or lower data.{self.length_limit}."
                )
            lengths = self.part_lengths("train")
            return TokenBudgetSampler(lengths, self.max_tokens, seed=self.seed, **place)
        return EpochBatchSampler(
            len(self._encoded["train"]),
            self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            lengths=self.lengths("train") if self.group_by_length and shuffle else None,
            batches_per_step=self.trainer.accumulate_grad_batches,
            **place,
        )

    def _eval_sampler(self, split: str, whole: bool = True) -> EpochBatchSampler:
        """Return batches from long to short, or in the source's order where not all are taken."""
        assert self.trainer is not None
        return EpochBatchSampler(
            len(self._encoded[split]),
            self.eval_batch_size,
            shuffle=False,
            lengths=self.eval_lengths(split) if whole else None,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )

    def _eval_loader(self, split: str) -> DataLoader:
        assert self.trainer is not None
        tested = split == "test" and self.trainer.testing
        limit = self.trainer.limit_test_batches if tested else self.trainer.limit_val_batches
        whole = isinstance(limit, float) and limit == 1.0  # an int is a number of batches
        return self._loader(split, self._eval_sampler(split, whole), "evaluate")

    def _loader(self, split: str, sampler: EpochBatchSampler, purpose: Purpose) -> DataLoader:
        return DataLoader(
            EpochRows(self._encoded[split]),
            batch_sampler=sampler,
            collate_fn=partial(self.collate, purpose=purpose),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # its own stream: making an iterator must not draw from the global one
            generator=torch.Generator().manual_seed(self.seed),
        )
