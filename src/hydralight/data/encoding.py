"""Encoding a data set once, and finding it again."""

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from hydralight.config import UserError

log = logging.getLogger(__name__)


def encode_cached(
    dataset: Dataset,
    function: Callable[..., dict[str, list]],
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_key: str,
    arguments: Mapping[str, Any],
    keep_columns: bool,
    desc: str,
) -> Dataset:
    """Map a plain function over a data set, or find the result of the same call.

    The cache's key is made here, from the data, the tokenizer as it was loaded, the function's
    source and its arguments: `datasets`' own key would change with the tokenizer's use, and not
    with the function's code.

    Args:
        dataset: The rows.
        function: Called with a batch of rows, their indices, the tokenizer and the arguments.
        tokenizer: The tokenizer.
        tokenizer_key: Its `tokenizer_id`.
        arguments: Further arguments of the function.
        keep_columns: Whether the rows keep what they had before.
        desc: Title of the progress bar.
    """
    source = inspect.getsource(inspect.getmodule(function) or function)
    key = Hasher.hash([dataset._fingerprint, tokenizer_key, source, arguments, keep_columns])
    return dataset.map(
        function,
        batched=True,
        with_indices=True,
        fn_kwargs={"tokenizer": tokenizer, **arguments},
        remove_columns=None if keep_columns else dataset.column_names,
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


def tokenizer_id(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of all that decides what a tokenizer makes of a text."""
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        content = tokenizer.backend_tokenizer.to_str()
    else:
        content = Hasher.hash(tokenizer)
    names = [
        type(tokenizer).__name__,
        str(tokenizer.special_tokens_map),
        str(tokenizer.init_kwargs),
    ]
    return hashlib.sha256(json.dumps([content, *names]).encode()).hexdigest()


def cache_folder(kind: str) -> Path:
    """Return (and make) one of our folders in the cache of `datasets` (HF_HOME moves it)."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hydralight" / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder
