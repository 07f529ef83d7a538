"""A model with its data, ready to be trained by both sides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedModel,
)

from benchmarks import lengths, models, ours, trainer
from benchmarks.measure import PassOn
from benchmarks.recorder import Recorder

# what both sides are told; Trainer's own default of the rest is ours too
LR, WEIGHT_DECAY = 2e-5, 0.01
SAME: tuple[str, ...]
SAME = (f"optimizer.lr={LR}", f"optimizer.weight_decay={WEIGHT_DECAY}", "scheduler.warmup_steps=0")
SAME += ("scheduler=linear", "trainer.log_every_n_steps=10")

# batches of a fixed size, in an order that knows nothing of lengths
FIXED_BATCHES = ("data.group_by_length=false", "data.max_tokens=null")


@dataclass(frozen=True)
class Case:
    """A model with its data.

    Args:
        folder: For what is written.
        checkpoint: The model's folder.
        overrides: The recipe, its checkpoint and its files.
        auto_class: The model's, for Trainer's side.
        seq2seq: Whether labels are tokens of their own.
    """

    folder: Path
    checkpoint: Path
    overrides: Sequence[str]
    auto_class: Any
    seq2seq: bool = False

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer."""
        return AutoTokenizer.from_pretrained(self.checkpoint)

    @cached_property
    def rows(self) -> Dataset:
        """The training split, encoded; for Trainer's side, which need not encode anew."""
        _, data, _ = ours.built(self.overrides, self.folder / "encoding")
        return data.encoded("train")

    def override(self, name: str) -> str:
        """Return the value of one of the overrides."""
        values = dict(o.split("=", 1) for o in self.overrides if "=" in o)
        return values[name]

    @property
    def train(self) -> Path:
        """The training split's file."""
        return self.folder / "train.jsonl"

    def recorder(self, warmup: int, turn: PassOn | None = None, block: int = 1) -> Recorder:
        """Return a new recorder."""
        return Recorder(warmup, self.tokenizer.pad_token_id, self.seq2seq, turn, block)

    def model(self) -> PreTrainedModel:
        """Load the model in float32, as our side does."""
        return self.auto_class.from_pretrained(self.checkpoint, dtype="float32")

    def train_ours(
        self, overrides: Sequence[str], warmup: int, turn: PassOn | None = None, block: int = 1
    ) -> Recorder:
        """Train by the recipe and these overrides."""
        recorder = self.recorder(warmup, turn, block)
        folder = Path(mkdtemp(prefix="ours-", dir=self.folder))
        ours.train([*self.overrides, *overrides], folder, recorder)
        return recorder

    def train_reference(
        self,
        warmup: int,
        order: Sequence[int] | None = None,
        collator: Callable[..., Any] | None = None,
        turn: PassOn | None = None,
        block: int = 1,
        **values: Any,
    ) -> Recorder:
        """Train by Trainer, with these training arguments.

        Args:
            warmup: Steps that are not timed.
            order: The rows' order, instead of Trainer's own.
            collator: Instead of the usual one for such a model.
            turn: Where sides take turns: passes on to the others.
            block: Steps of a turn.
            values: Training arguments.
        """
        recorder = self.recorder(warmup, turn, block)
        model = self.model()
        trainer.train(
            lambda: model,
            self.rows,
            collator or self.collator(model),
            Path(mkdtemp(prefix="trainer-", dir=self.folder)),
            recorder,
            order,
            self.tokenizer,
            **values,
        )
        return recorder

    def collator(self, model: PreTrainedModel) -> Callable[..., Any]:
        """Return the collator that transformers has for such a model: padded to the longest."""
        if self.seq2seq:
            return DataCollatorForSeq2Seq(self.tokenizer, model=model)
        if self.auto_class is AutoModelForCausalLM:
            return DataCollatorForLanguageModeling(self.tokenizer, mlm=False)
        return DataCollatorWithPadding(self.tokenizer)


def classification(
    shape: str, number: int, folder: Path, real: bool = True, checkpoint: Path | None = None
) -> Case:
    """Return a BERT on pairs of sentences.

    Args:
        shape: Of the model.
        number: Training examples.
        folder: For what is written.
        real: Whether to take real texts where they are at hand.
        checkpoint: A model of one's own, instead of a random one.
    """
    return pair_classification(shape, lengths.pairs(number, real), folder, checkpoint)


def pair_classification(
    shape: str, rows: lengths.Rows, folder: Path, checkpoint: Path | None = None
) -> Case:
    """Return a BERT on these pairs."""
    path = lengths.write(rows, folder / "train.jsonl")
    checkpoint = checkpoint or models.checkpoint(shape, rows, folder)
    overrides = ["experiment=bert_mrpc", f"checkpoint={checkpoint}", *_files(path, rows)]
    overrides += ["data.name=null", "data.splits=null"]
    return Case(folder, checkpoint, overrides, AutoModelForSequenceClassification)


def summarization(
    shape: str,
    number: int,
    folder: Path,
    real: bool = True,
    max_source_length: int = 1024,
    max_target_length: int = 128,
) -> Case:
    """Return a BART on articles."""
    rows = lengths.articles(number, real)
    path = lengths.write(rows, folder / "train.jsonl")
    checkpoint = models.checkpoint(shape, rows, folder)
    overrides = ["experiment=bart_cnn", f"checkpoint={checkpoint}", *_files(path, rows)]
    overrides += ["data.name=null", "data.splits=null"]
    overrides += [f"data.max_source_length={max_source_length}"]
    overrides += [f"data.max_target_length={max_target_length}"]
    return Case(folder, checkpoint, overrides, AutoModelForSeq2SeqLM, seq2seq=True)


def language_modeling(
    shape: str,
    rows: lengths.Rows,
    folder: Path,
    max_length: int = 256,
    vocabulary: int | None = None,
) -> Case:
    """Return a GPT-2 on documents, one an example."""
    path = lengths.write(rows, folder / "train.jsonl")
    checkpoint = models.checkpoint(shape, rows, folder, vocabulary)
    overrides = ["experiment=distilgpt2_sonnets", f"checkpoint={checkpoint}", *_files(path, rows)]
    overrides += ["data.append=null", "data.clean=[]", f"data.max_length={max_length}"]
    overrides += ["generation.stop_strings=null", "generation.max_new_tokens=8"]
    return Case(folder, checkpoint, overrides, AutoModelForCausalLM)


def _files(train: Path, rows: lengths.Rows) -> list[str]:
    """Name the training file, and a small one for validation, which training does not read."""
    validation = lengths.write(rows[:4], train.with_name(f"few-{train.name}"))
    return [ours.files(train=train, validation=validation)]
