"""Pairs of texts: a source and the target that a seq2seq model is to write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hydralight.config.ranges import Positive
from hydralight.data.padding import pad, pad_inputs, width_of
from hydralight.data.references import firsts, is_list, one_is_trained_on, references
from hydralight.data.roles import Where, check_texts
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.tokens import encode_texts
from hydralight.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Seq2Seq(Shape):
    """A source and a target.

    A batch holds `input_ids` and `attention_mask` (batch, source length) and `labels`
    (batch, target length, -100 where padded), each as long as its longest row. Where a row has
    several references, `labels`, and so the loss, are of the first one; the metrics read all.

    Args:
        max_source_length: In tokens; longer sources fall under `too_long`.
        max_target_length: In tokens; the same for targets, and the default for generation.
        source_prefix: Put before each source, such as T5's "summarize: ".
    """

    max_source_length: Positive = 1024
    max_target_length: Positive = 128
    source_prefix: str = ""

    length_limit = "max_source_length"
    source: ClassVar[str]  # the role
    target: ClassVar[str]

    @property
    def target_capacity(self) -> int:
        """Tokens of the longest target."""
        return self.max_target_length

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Refuse empty texts; a target may be a list of references, for an evaluation."""
        several = is_list(rows, self.target)
        check_texts(rows, [self.source] if several else self.roles, where)
        return references(rows, self.target, where) if several else rows

    def check_trainable(self, rows: Dataset, where: Where) -> None:
        """Refuse several references: training takes one target."""
        if is_list(rows, self.target):
            raise UserError(one_is_trained_on(self.target, where))

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize sources, and targets where there are any; of several references the first."""
        sources = [self.source_prefix + text for text in rows[self.source]]
        encoded, too_long = encode_texts(processor, sources, max_length=self.max_source_length)
        columns: Columns = {"input_ids": encoded["input_ids"]}
        if self.target in rows:
            targets, target_too_long = encode_texts(
                processor, text_target=firsts(rows[self.target]), max_length=self.max_target_length
            )
            columns["labels"] = targets["input_ids"]
            columns["target_length"] = [len(ids) for ids in targets["input_ids"]]
            too_long = [a or b for a, b in zip(too_long, target_too_long, strict=True)]
        lengths = [len(ids) for ids in columns["input_ids"]]
        return {**columns, "length": lengths, "too_long": too_long}

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of source and target."""
        if "target_length" not in rows.column_names:  # to be predicted
            return rows["length"][:][:, None]
        return np.stack([rows["length"][:], rows["target_length"][:]], axis=1)

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad sources with the tokenizer's padding token and targets with -100."""
        batch = pad_inputs(rows, processor, pad_to_multiple_of)
        if "labels" in rows[0]:
            labels = [row["labels"] for row in rows]
            width, left = width_of(labels, pad_to_multiple_of), processor.padding_side == "left"
            batch["labels"] = pad(labels, width, -100, left)
        return batch


@dataclass(frozen=True, kw_only=True)
class Summarization(Seq2Seq):
    """Texts and their summaries."""

    roles = ("text", "summary")
    text_roles = distinct_roles = ("text", "summary")
    targets = ("summary",)
    source = "text"
    target = "summary"


@dataclass(frozen=True, kw_only=True)
class Translation(Seq2Seq):
    """Texts in one language and another.

    Args:
        source_lang: The tokenizer's code of the source language, where it has codes (mBART's
            `en_XX`, NLLB's `eng_Latn`).
        target_lang: The same for the target.
    """

    source_lang: str | None = None
    target_lang: str | None = None

    roles = ("source", "target")
    text_roles = distinct_roles = ("source", "target")
    targets = ("target",)
    source = "source"
    target = "target"

    def ready(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Tell the tokenizer the languages.

        Raises:
            UserError: it has no such language code, or needs one.
        """
        coded = hasattr(processor, "src_lang")
        codes = _codes(processor) if coded else []
        for name in ("source_lang", "target_lang"):
            code = getattr(self, name)
            if code is None and coded:
                raise UserError(
                    f"data.{name} has no value, and this tokenizer writes the languages' codes "
                    f"into the text: name one of {_some(codes)}."
                )
            if code is not None and not coded:
                raise UserError(f"data.{name}={code}: the tokenizer has no codes; leave it out.")
            if code is not None and code not in codes:
                raise UserError(
                    f"data.{name}={code} is no language code of the tokenizer"
                    f"{did_you_mean(code, codes)} (there are: {_some(codes)})"
                )
        if coded:
            processor.tgt_lang = self.target_lang
            processor.src_lang = self.source_lang
        return processor


def _codes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    named = set(map(str, tokenizer.special_tokens_map.values()))
    return sorted({*map(str, tokenizer.all_special_tokens), *tokenizer.get_added_vocab()} - named)


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
