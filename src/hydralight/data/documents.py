"""Texts, as the models that read nothing but text see them."""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from annotated_types import Ge
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hydralight.config.ranges import Positive
from hydralight.data.ends import left_off, left_open, without_end
from hydralight.data.padding import pad, pad_inputs
from hydralight.data.roles import NoRows, Where, check_is_text
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.tokens import encode_texts
from hydralight.errors import UserError, did_you_mean

log = logging.getLogger(__name__)
CLEAN: dict[str, Callable[[str], str]] = {"lower": str.lower, "strip": str.strip}


@dataclass(frozen=True, kw_only=True)
class Documents(Shape):
    """What causal and masked language modelling share: documents, in rows or blocks.

    A batch holds `input_ids` and `attention_mask` (batch, length) and `labels` (-100 where there
    is no target); in the evaluation of causal models also `num_bytes` (batch,).

    Args:
        clean: Steps on each text, in order: `lower`, `strip`.
        append: Marker behind each text; the tokenizer's end token unless said.
        block_size: Join all texts and cut them into blocks of that many tokens, with no padding;
            one text an example unless said.
        max_length: In tokens, without blocks; longer texts fall under `too_long`.
    """

    clean: Sequence[str] = ()
    append: str | None = None
    block_size: Annotated[int, Ge(2)] | None = None
    max_length: Positive = 1024

    roles = ("text",)
    text_roles = ("text",)
    kept = ()  # a block is no longer one text
    ends: ClassVar[bool]  # whether a text ends with the end token

    def __post_init__(self) -> None:
        for step in self.clean or ():
            if step not in CLEAN:
                raise UserError(
                    f"data.clean: there is no step '{step}'{did_you_mean(step, CLEAN)} (there are: "
                    f"{', '.join(CLEAN)})"
                )

    @property
    def length_limit(self) -> str:  # type: ignore[override]
        """The field that bounds an input's tokens."""
        return "max_length" if self.block_size is None else "block_size"

    @property
    def target_capacity(self) -> int:
        """Tokens of the longest example."""
        return self.block_size or self.max_length

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Leave out texts that are empty once they are cleaned; a corpus has such lines."""
        check_is_text(rows, "text", where)
        checked = rows.filter(_has_text, batched=True, desc="texts")
        if len(checked) == 0:
            raise NoRows(f"{where} holds no text.")
        return checked

    def settled(self, train: Dataset | None, declared: Sequence[str]) -> Self:
        """Return the shape; say so where texts would be trained on in part, or end too early."""
        if train is not None and len(train) == 1 and self.block_size is None:
            words = len(train[0]["text"].split())
            if words > self.max_length:
                packing = " data.packing=false" if getattr(self, "packing", False) else ""
                log.warning(
                    "the training data is one text of %s words, of which data.max_length=%s keeps "
                    "the beginning: data.block_size=%s%s makes blocks of all of it",
                    *(f"{words:,}", *[self.max_length] * 2, packing),
                )
        marker = self.append or None
        if train is not None and marker is not None and not marker.isspace():
            some = train[:1000]["text"]
            having = sum(marker in self.text_of(text) for text in some)
            if having:
                log.warning(
                    "data.append=%s ends a text, and is inside %d of the first %d training texts: "
                    "what is written will end there too; take what no text has, as '<|eos|>'",
                    *(marker, having, len(some)),
                )
        return self

    def text_of(self, value: Any) -> str:
        """Return the cleaned text."""
        return cleaned(value, self.clean)

    def ready(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Refuse a tokenizer without an end token where that ends the texts.

        Where texts are continued, return a tokenizer that leaves them open: with the model it is
        exported, and there it reads prompts.
        """
        if self.ends and self.append is None and processor.eos_token_id is None:
            raise UserError("the tokenizer has no end token: say what ends a text in data.append.")
        return left_open(processor) if self.ends else processor

    def unjoined(self, processor: Any) -> Self | None:
        """Return the shape of whole texts, whose tokens alone make the blocks of training."""
        if self.block_size is None or self.extra_columns(processor, "train"):
            return None
        return replace(self, block_size=None, max_length=sys.maxsize)

    def extra_columns(self, processor: Any, purpose: Purpose) -> Sequence[str]:
        """Return what else is to be told of the tokens: `num_bytes`, `word_ids`."""
        return ()

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize documents, or prompts that are to be continued or filled in.

        Without `block_size` a row is a document. With it, the end of a batch of documents is a
        short block of its own, so that no token is lost. `num_bytes` are the UTF-8 bytes that a
        row's tokens except the first stand for, with the white space before them; `word_ids` tell
        words apart.
        """
        texts = [cleaned(text, self.clean) for text in rows["text"]]
        if purpose == "predict":
            return self._encode_prompts(texts, processor)
        more = self.extra_columns(processor, purpose)
        documents = self._tokenize([text + (self.append or "") for text in texts], processor, more)
        if self.block_size is None:
            limit = self.max_length
            too_long = [len(ids) > limit for ids in documents["input_ids"]]
            pieces: Columns = {
                name: [row[:limit] for row in lists] for name, lists in documents.items()
            }
        else:
            pieces = in_blocks(documents, self.block_size)
            too_long = [False] * len(pieces["input_ids"])
            indices = [indices[0]] * len(too_long)
        if "num_bytes" in pieces:
            pieces["num_bytes"] = [sum(row[1:]) for row in pieces["num_bytes"]]
        lengths = [len(ids) for ids in pieces["input_ids"]]
        return {**pieces, "length": lengths, "too_long": too_long, "row": indices}

    def _tokenize(
        self, texts: list[str], processor: Any, more: Sequence[str]
    ) -> dict[str, list[list[int]]]:
        """Return the tokens of each text, its end included, and what `more` asks for."""
        if more:
            encoded: Any = processor(
                texts,
                return_attention_mask=False,
                return_token_type_ids=False,
                return_offsets_mapping="num_bytes" in more,
                verbose=False,
            )
        else:
            encoded, _ = encode_texts(processor, texts, max_length=None)
        documents: dict[str, list[list[int]]] = {"input_ids": encoded["input_ids"]}
        if "num_bytes" in more:
            spans = encoded["offset_mapping"]
            documents["num_bytes"] = [bytes_of(*pair) for pair in zip(texts, spans, strict=True)]
        if "word_ids" in more:
            words = [encoded.word_ids(row) for row in range(len(texts))]
            documents["word_ids"] = [[-1 if w is None else w for w in row] for row in words]
        if self.ends:
            for end in left_off(processor):  # what prompts do without
                _append(documents, end, [True] * len(texts))
            if self.append is None:
                end = processor.eos_token_id
                _append(documents, end, [ids[-1:] != [end] for ids in documents["input_ids"]])
        return documents

    def _encode_prompts(self, texts: list[str], processor: Any) -> Columns:
        limit = self.block_size or self.max_length
        ids = processor(texts, return_token_type_ids=False, verbose=False)["input_ids"]
        if self.ends:
            ids = [without_end(processor, row) for row in ids]
        too_long = [len(row) > limit for row in ids]
        ids = [row[-limit:] for row in ids]
        columns: Columns = {"input_ids": ids, "text": texts, "prompt": [True] * len(ids)}
        return {**columns, "length": [len(row) for row in ids], "too_long": too_long}

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of each row."""
        return rows["length"][:][:, None]

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad on the right; prompts, which are to be continued, on the left."""
        prompts = "prompt" in rows[0]
        multiple = None if prompts else pad_to_multiple_of
        batch: Batch = pad_inputs(rows, processor, multiple, left=prompts and self.ends)
        if prompts:
            return batch
        if "num_bytes" in rows[0]:
            batch["num_bytes"] = torch.tensor([row["num_bytes"] for row in rows])
        labels = [row["labels"] if "labels" in row else row["input_ids"] for row in rows]
        batch["labels"] = pad(labels, batch["input_ids"].shape[1], -100)
        return batch


def _has_text(rows: dict[str, list]) -> list[bool]:
    return [bool(text and text.strip()) for text in rows["text"]]


def _append(documents: dict[str, list[list[int]]], end: int, which: list[bool]) -> None:
    """Put an end token behind some documents; it has no bytes, and is of no word."""
    for name, lists in documents.items():
        for row in compress(lists, which):
            row.append({"input_ids": end, "num_bytes": 0, "word_ids": -1}[name])


def in_blocks(documents: dict[str, list[list[int]]], size: int) -> dict[str, list]:
    """Join documents and cut them into blocks of `size` tokens."""
    joined = {name: list(chain.from_iterable(lists)) for name, lists in documents.items()}
    total = len(joined["input_ids"])
    # a token alone has nothing to predict it from
    starts = [start for start in range(0, total, size) if start + 1 < total]
    return {name: [row[start : start + size] for start in starts] for name, row in joined.items()}


def cleaned(text: str, steps: Sequence[str]) -> str:
    """Apply the steps named in `CLEAN` to a text."""
    for step in steps:
        text = CLEAN[step](text)
    return text


def bytes_of(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the UTF-8 bytes between the end of the token before and that of each token."""
    stops = np.array([0, *(stop if stop > start else 0 for start, stop in spans)])
    stops = np.maximum.accumulate(stops)
    if not text.isascii():
        codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        sizes = 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF)
        stops = np.concatenate([[0], np.cumsum(sizes)])[stops]
    return np.diff(stops).tolist()
