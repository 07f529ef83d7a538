"""The rows of a split, encoded once and found again."""

import hashlib
import inspect
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import datasets
import numpy as np
import xxhash
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from hydralight.cached import cache_folder
from hydralight.data.parts import BATCH, in_parts
from hydralight.data.shape import Columns, Purpose, Shape
from hydralight.errors import UserError
from hydralight.tokenizers import all_cores, check_words

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How rows are encoded.

    Args:
        too_long: What happens to an example that is longer than the maximum.
    """

    too_long: Literal["truncate", "drop", "refuse"] = "truncate"

    def encode(
        self,
        rows: Dataset,
        shape: Shape,
        processor: Any,
        processor_key: str,
        purpose: Purpose,
        split: str,
    ) -> tuple[Dataset, int]:
        """Encode a split's rows, or find them in the cache; and count those that are too long.

        The cache's key is made here, from the data, the tokenizer as it was loaded, the shape's
        settings and the source of its module: `datasets`' own key would change with the
        tokenizer's use, and not with the code. Rows are kept in parts (`in_parts`), so that an
        encoding that was interrupted goes on.

        Args:
            rows: The prepared rows.
            shape: What an example is.
            processor: The tokenizer, or the image processor.
            processor_key: Its `processor_id`.
            purpose: What for.
            split: The split's name.

        Raises:
            UserError: a row cannot be used, or is too long and `too_long` is `refuse`.
        """
        beside = [role for role in shape.file_roles if role in rows.column_names]
        table = rows.remove_columns(beside)
        if not table.column_names:  # files alone, which are to be predicted
            table = Dataset.from_dict({"row": list(range(len(rows)))})
        roles = () if purpose == "train" else shape.roles if shape.kept is None else shape.kept
        kept = sorted(set(roles) & set(table.column_names))
        settings = {
            field.name: getattr(shape, field.name)
            for field in fields(shape)
            if field.name not in shape.not_encoded
        }
        source = [*sources_of(type(shape)), type(shape).__qualname__, purpose, kept]
        key = Hasher.hash([table._fingerprint, processor_key, source, settings])
        removed = [name for name in table.column_names if name not in kept]

        def make(start: int, stop: int, path: Path, step: Callable[[int], None]) -> None:
            def encode(rows: Columns, indices: list[int]) -> Columns:
                numbers = [start + index for index in indices]
                columns = _encode(rows, numbers, shape=shape, processor=processor, purpose=purpose)
                step(len(indices))
                return columns

            table.select(range(start, stop)).map(
                encode,
                batched=True,
                batch_size=BATCH,
                with_indices=True,
                remove_columns=removed,
                cache_file_name=str(path),
                new_fingerprint=f"{key}-{start}",
            )

        with all_cores():
            folder, shown = cache_folder("encoded") / key, purpose != "predict"
            encoded = in_parts(table, folder, make, f"encoding {split}", shown)
        policy = self.too_long
        if purpose == "predict" and policy == "drop":
            policy = "truncate"
        encoded, number = without_too_long(encoded, policy, f"{split} examples", settings)
        if beside:
            files = rows.select_columns(beside)
            encoded = datasets.concatenate_datasets([encoded, files], axis=1)
        return encoded, number


def _encode(
    rows: Columns, indices: list[int], *, shape: Shape, processor: Any, purpose: Purpose
) -> Columns:
    for role in shape.text_roles:
        for index, value in zip(indices, rows.get(role, ()), strict=False):
            for text in [value] if isinstance(value, str) else value or ():
                check_words(text, index)
    encoded = shape.encode(rows, indices, processor, purpose)
    return {"too_long": [False] * len(encoded["length"]), "row": indices, **encoded}


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


@cache
def sources_of(kind: type) -> list[str]:
    """Return the sources that decide on what a shape encodes: its module's, and those it uses.

    These are the modules of its base classes, and those of the same package, or of this one, that
    functions and classes have been taken from.
    """
    found: dict[str, str] = {}
    own = kind.__module__.partition(".")[0]
    packages = ("hydralight.data.",) if own == "hydralight" else (f"{own}.", "hydralight.data.")
    waiting = [m for base in kind.__mro__ if (m := inspect.getmodule(base)) is not None]
    while waiting:
        module = waiting.pop()
        if module.__name__ in found or not f"{module.__name__}.".startswith(packages):
            continue
        try:
            found[module.__name__] = inspect.getsource(module)
        except (OSError, TypeError):  # a notebook's
            code = kind.encode.__code__  # type: ignore[attr-defined]
            found[module.__name__] = repr((code.co_code, code.co_consts))
        waiting += _used_by(module)
    return [found[name] for name in sorted(found)]


def _used_by(module: ModuleType) -> Sequence[ModuleType]:
    values = [v for v in vars(module).values() if inspect.isfunction(v) or inspect.isclass(v)]
    return [sys.modules[v.__module__] for v in values if v.__module__ in sys.modules]


def content_of_processor(processor: Any) -> str:
    """Return what tells what a tokenizer or image processor does, wherever it was loaded from."""
    if not isinstance(processor, PreTrainedTokenizerBase) or not processor.is_fast:
        return processor_id(processor)
    backend = processor.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    said = [backend.to_str(), str(processor.special_tokens_map), str(processor.chat_template)]
    return xxhash.xxh3_128_hexdigest(json.dumps(said).encode())


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
        *([str(processor.chat_template)] if processor.chat_template else []),
    ]
    return hashlib.sha256(json.dumps([content, *names]).encode()).hexdigest()
