"""Texts as tokens."""

from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


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
