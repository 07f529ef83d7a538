"""Pairs of texts: a source and the target that a seq2seq model is to write."""

from typing import Any, ClassVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from hydralight.data.datamodule import Batch, DataModule, Purpose
from hydralight.data.encoding import encode_texts
from hydralight.data.padding import pad, pad_inputs, width_of
from hydralight.errors import UserError, did_you_mean


def encode_pairs(
    rows: dict[str, list],
    indices: list[int],
    *,
    processor: PreTrainedTokenizerBase,
    source: str,
    target: str,
    source_prefix: str,
    max_source_length: int,
    max_target_length: int,
) -> dict[str, list]:
    """Tokenize sources, and targets where there are any, and note which of them are too long."""
    inputs, too_long = encode_texts(
        processor, [source_prefix + text for text in rows[source]], max_length=max_source_length
    )
    encoded: dict[str, list] = {"input_ids": inputs["input_ids"]}
    if target in rows:
        targets, target_too_long = encode_texts(
            processor, text_target=rows[target], max_length=max_target_length
        )
        encoded["labels"] = targets["input_ids"]
        encoded["target_length"] = [len(ids) for ids in targets["input_ids"]]
        too_long = [a or b for a, b in zip(too_long, target_too_long, strict=True)]
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return {**encoded, "length": lengths, "too_long": too_long, "row": indices}


class Seq2SeqData(DataModule):
    """Data of seq2seq tasks.

    A batch holds `input_ids` and `attention_mask` (batch, source length) and `labels`
    (batch, target length, -100 where padded), each as long as its longest row.

    Args:
        max_source_length: In tokens; longer sources fall under `too_long`.
        max_target_length: In tokens; the same for targets, and the default for generation.
        source_prefix: Put before each source, such as T5's "summarize: ".
    """

    source: ClassVar[str]
    target: ClassVar[str]
    length_limit = "max_source_length"
    encode = staticmethod(encode_pairs)

    def __init__(
        self,
        *,
        max_source_length: int = 1024,
        max_target_length: int = 128,
        source_prefix: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self.source_prefix = source_prefix

    def encode_arguments(self, purpose: Purpose) -> dict[str, Any]:
        """Return the arguments of `encode_pairs`."""
        return {
            "source": self.source,
            "target": self.target,
            "source_prefix": self.source_prefix,
            "max_source_length": self.max_source_length,
            "max_target_length": self.max_target_length,
        }

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
        """Pad sources with the tokenizer's padding token and targets with -100."""
        batch = pad_inputs(rows, self.processor, self.pad_to_multiple_of)
        if "labels" in rows[0]:
            labels = [row["labels"] for row in rows]
            left = self.processor.padding_side == "left"
            batch["labels"] = pad(labels, width_of(labels, self.pad_to_multiple_of), -100, left)
        return batch

    def lengths(self, split: str) -> np.ndarray:
        """Return the tokens of source and target together."""
        return self.part_lengths(split).sum(axis=1)

    def part_lengths(self, split: str) -> np.ndarray:
        """Return the tokens of source and target (rows, 2)."""
        return np.stack(self._both_lengths(split), axis=1)

    def eval_lengths(self, split: str) -> np.ndarray:
        """Sort by target, as generation lasts until the longest has ended, then by source."""
        sources, targets = self._both_lengths(split)
        return targets * (sources.max() + 1) + sources

    def _both_lengths(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = self._encoded[split].with_format("numpy")
        sources = np.asarray(rows["length"][:])
        if "target_length" not in rows.features:  # to be predicted
            return sources, np.zeros_like(sources)
        return sources, np.asarray(rows["target_length"][:])

    @property
    def target_capacity(self) -> int:
        """Tokens of the longest targets that fit into a batch."""
        return self.batch_size * self.max_target_length


class SummarizationData(Seq2SeqData):
    """Texts and their summaries."""

    roles = ("text", "summary")
    text_roles = ("text", "summary")
    targets = ("summary",)
    source = "text"
    target = "summary"


class TranslationData(Seq2SeqData):
    """Texts in one language and another.

    Args:
        source_lang: The tokenizer's code of the source language, where it has codes (mBART's
            `en_XX`, NLLB's `eng_Latn`).
        target_lang: The same for the target.
        kwargs: Those of `Seq2SeqData`.
    """

    roles = ("source", "target")
    text_roles = ("source", "target")
    targets = ("target",)
    source = "source"
    target = "target"

    def __init__(
        self, *, source_lang: str | None = None, target_lang: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.source_lang = source_lang
        self.target_lang = target_lang

    def prepared(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
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
