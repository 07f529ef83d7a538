"""Encoding a data set once, and finding it again."""

import hashlib
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hydralight.errors import UserError

log = logging.getLogger(__name__)

PARALLELISM = os.environ.get("TOKENIZERS_PARALLELISM")  # the user's own, before ours


def encode_cached(
    dataset: Dataset,
    function: Callable[..., dict[str, list]],
    processor: Any,
    processor_key: str,
    arguments: Mapping[str, Any],
    kept_columns: Collection[str],
    desc: str,
) -> Dataset:
    """Map a plain function over a data set, or find the result of the same call.

    The cache's key is made here, from the data, the tokenizer as it was loaded, the function's
    source and its arguments: `datasets`' own key would change with the tokenizer's use, and not
    with the function's code.

    Args:
        dataset: The rows.
        function: Called with a batch of rows, their indices, the processor and the arguments.
        processor: The tokenizer, or the image processor.
        processor_key: Its `processor_id`.
        arguments: Further arguments of the function.
        kept_columns: What the rows keep of what they had before.
        desc: Title of the progress bar.
    """
    kept = sorted(kept_columns)
    key = Hasher.hash([dataset._fingerprint, processor_key, source_of(function), arguments, kept])
    with parallel_tokenizers():
        return dataset.map(
            function,
            batched=True,
            with_indices=True,
            fn_kwargs={"processor": processor, **arguments},
            remove_columns=[name for name in dataset.column_names if name not in kept],
            cache_file_name=str(cache_folder("encoded") / f"{key}.arrow"),
            new_fingerprint=key,
            desc=desc,
        )


def without_too_long(
    encoded: Dataset,
    policy: Literal["truncate", "drop", "refuse"],
    what: str,
    limits: Mapping[str, Any],
) -> tuple[Dataset, int]:
    """Deal with the rows whose `too_long` is set; return the rest without that column, and a count.

    Raises:
        UserError: the policy is `refuse`, or no row is left.
    """
    too_long = np.asarray(encoded.with_format("numpy")["too_long"][:], dtype=bool)
    encoded = encoded.remove_columns("too_long")
    number = int(too_long.sum())
    if number == 0:
        return encoded, 0
    lengths = ", ".join(f"data.{k}={v}" for k, v in limits.items() if k.startswith("max_"))
    how_many = f"{number} of {len(too_long)} {what} are longer than {lengths}"
    if policy == "refuse":
        row = int(np.flatnonzero(too_long)[0])
        raise UserError(
            f"{how_many} (the first is row {row + 1}): raise the limit, or set data.too_long to "
            "truncate or drop."
        )
    log.info("%s: %s", how_many, "truncated" if policy == "truncate" else "dropped")
    if policy == "truncate":
        return encoded, number
    if number == len(too_long):
        raise UserError(f"{how_many}, and data.too_long=drop leaves none.")
    return encoded.select(np.flatnonzero(~too_long)), number


def encode_texts(
    tokenizer: PreTrainedTokenizerBase,
    text: list[str] | None = None,
    text_pair: list[str] | None = None,
    *,
    text_target: list[str] | None = None,
    max_length: int | None,
) -> tuple[dict[str, list], list[bool]]:
    """Tokenize texts or pairs, cut at `max_length` tokens if given, and say which were longer.

    Returns:
        `input_ids`, and `token_type_ids` for pairs where the model reads them.
    """
    types = text_pair is not None and "token_type_ids" in tokenizer.model_input_names
    if text is not None and has_plain_backend(tokenizer):
        return encode_by_backend(tokenizer, text, text_pair, types, max_length)
    columns = {"text": text, "text_pair": text_pair, "text_target": text_target}
    given = {name: column for name, column in columns.items() if column is not None}
    options: dict[str, Any] = {"return_attention_mask": False, "verbose": False}
    options["return_token_type_ids"] = types
    whole = dict(tokenizer(**given, **options))
    too_long = [max_length is not None and len(ids) > max_length for ids in whole["input_ids"]]
    if any(too_long):
        longer = {
            name: [value for value, is_longer in zip(column, too_long, strict=True) if is_longer]
            for name, column in given.items()
        }
        cut = tokenizer(**longer, truncation=True, max_length=max_length, **options)
        for name, values in whole.items():
            shorter = iter(cut[name])
            whole[name] = [
                next(shorter) if is_longer else value
                for value, is_longer in zip(values, too_long, strict=True)
            ]
    return whole, too_long


def encode_by_backend(
    tokenizer: Any,
    text: list[str],
    text_pair: list[str] | None,
    types: bool,
    max_length: int | None,
) -> tuple[dict[str, list], list[bool]]:
    """Do the same without what a tokenizer's call adds, which takes as long as the tokens do."""
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    side = tokenizer.truncation_side
    backend.no_truncation()
    if max_length is not None:
        backend.enable_truncation(max_length, strategy="longest_first", direction=side)
    inputs = text if text_pair is None else list(zip(text, text_pair, strict=True))
    encodings = backend.encode_batch_fast(inputs)
    backend.no_truncation()
    columns: dict[str, list] = {"input_ids": [encoding.ids for encoding in encodings]}
    if types:
        columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
    return columns, [bool(encoding.overflowing) for encoding in encodings]


def has_plain_backend(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer's call does nothing to texts but what its backend does."""
    own = getattr(type(tokenizer), "_encode_plus", None)
    return own is PreTrainedTokenizerFast._encode_plus


@contextmanager
def parallel_tokenizers() -> Iterator[None]:
    """Let tokenizers use all cores here, but not in what is forked later, where it could hang."""
    os.environ["TOKENIZERS_PARALLELISM"] = PARALLELISM or "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = PARALLELISM or "false"


def source_of(function: Callable[..., Any]) -> list[str]:
    """Return the source of a function's module, and of ours that it takes functions from."""
    module = inspect.getmodule(function)
    if module is None:
        return [inspect.getsource(function)]
    names = {
        value.__module__
        for value in vars(module).values()
        if inspect.isfunction(value) and value.__module__.startswith("hydralight.data.")
    }
    return [inspect.getsource(sys.modules[name]) for name in sorted({module.__name__, *names})]


def processor_id(processor: Any) -> str:
    """Return a hash of all that decides what a tokenizer or image processor makes of a row."""
    if not isinstance(processor, PreTrainedTokenizerBase):
        return Hasher.hash(processor.to_dict())
    if processor.is_fast:
        processor.backend_tokenizer.no_truncation()
        processor.backend_tokenizer.no_padding()
        content = processor.backend_tokenizer.to_str()
    else:
        content = Hasher.hash(processor)
    names = [
        type(processor).__name__,
        str(processor.special_tokens_map),
        str(processor.init_kwargs),
    ]
    return hashlib.sha256(json.dumps([content, *names]).encode()).hexdigest()


def cache_folder(kind: str) -> Path:
    """Return (and make) one of our folders in the cache of `datasets` (HF_HOME moves it)."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hydralight" / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder
