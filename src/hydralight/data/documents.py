"""Documents and prompts as tokens."""

from collections.abc import Callable, Sequence
from itertools import chain, compress
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from hydralight.data.encoding import encode_texts

CLEAN: dict[str, Callable[[str], str]] = {"lower": str.lower, "strip": str.strip}


def encode_documents(
    rows: dict[str, list],
    indices: list[int],
    *,
    processor: PreTrainedTokenizerBase,
    clean: list[str],
    append: str | None,
    end: bool,
    max_length: int,
    block_size: int | None,
    columns: list[str],
) -> dict[str, list]:
    """Tokenize documents, and join and cut them into blocks where `block_size` says so.

    The end of a batch of documents is a short block of its own, so that no token is lost.
    `columns` asks for more than `input_ids`: `num_bytes`, the UTF-8 bytes that a row's tokens but
    the first stand for, with the white space before them; `word_ids`, which tell words apart.
    """
    texts = [cleaned(text, clean) + (append or "") for text in rows["text"]]
    if columns:
        encoded: Any = processor(
            texts,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping="num_bytes" in columns,
            verbose=False,
        )
    else:
        encoded, _ = encode_texts(processor, texts, max_length=None)
    documents: dict[str, list[list[int]]] = {"input_ids": encoded["input_ids"]}
    if "num_bytes" in columns:
        spans = encoded["offset_mapping"]
        documents["num_bytes"] = [bytes_of(*pair) for pair in zip(texts, spans, strict=True)]
    if "word_ids" in columns:
        words = [encoded.word_ids(row) for row in range(len(texts))]
        documents["word_ids"] = [[-1 if w is None else w for w in row] for row in words]
    if end and append is None:
        finish = {"input_ids": processor.eos_token_id, "num_bytes": 0, "word_ids": -1}
        unfinished = [ids[-1:] != [processor.eos_token_id] for ids in documents["input_ids"]]
        for name, lists in documents.items():
            for row in compress(lists, unfinished):
                row.append(finish[name])
    if block_size is None:
        too_long = [len(ids) > max_length for ids in documents["input_ids"]]
        pieces = {name: [row[:max_length] for row in lists] for name, lists in documents.items()}
    else:
        joined = {name: list(chain.from_iterable(lists)) for name, lists in documents.items()}
        total = len(joined["input_ids"])
        # a token alone has nothing to predict it from
        starts = [start for start in range(0, total, block_size) if start + 1 < total]
        pieces = {
            name: [row[start : start + block_size] for start in starts]
            for name, row in joined.items()
        }
        too_long, indices = [False] * len(starts), [indices[0]] * len(starts)
    if "num_bytes" in pieces:
        pieces["num_bytes"] = [sum(row[1:]) for row in pieces["num_bytes"]]  # type: ignore[misc]
    lengths = [len(ids) for ids in pieces["input_ids"]]
    return {**pieces, "length": lengths, "too_long": too_long, "row": indices}


def encode_prompts(
    rows: dict[str, list],
    indices: list[int],
    *,
    processor: PreTrainedTokenizerBase,
    clean: list[str],
    end: bool,
    max_length: int,
) -> dict[str, list]:
    """Tokenize texts that are to be continued, or whose masks are to be filled."""
    texts = [cleaned(text, clean) for text in rows["text"]]
    ids = processor(texts, return_token_type_ids=False, verbose=False)["input_ids"]
    if end:
        ids = [without_end(processor, row) for row in ids]
    too_long = [len(row) > max_length for row in ids]
    ids = [row[-max_length:] for row in ids]
    columns = {"input_ids": ids, "text": texts, "prompt": [True] * len(ids)}
    lengths = [len(row) for row in ids]
    return {**columns, "length": lengths, "too_long": too_long, "row": indices}


def without_end(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Take off the end tokens that a tokenizer puts behind a text: a prompt has not ended."""
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id}
    while len(ids) > 1 and ids[-1] in ends:
        ids = ids[:-1]
    return ids


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
