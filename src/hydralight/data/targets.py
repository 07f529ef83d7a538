"""The tokens of texts of which some characters are trained on."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Spans = Sequence[tuple[int, int]]


def tokens_of(
    tokenizer: Any, texts: Sequence[str], spans: Sequence[Spans]
) -> list[tuple[list[int], list[int]]]:
    """Return the tokens of rendered texts, and the number of the span that each is of.

    A text holds its special tokens already: none is added. Where a token would lie on both sides
    of the border of a span, the text is cut there: so is it when it is generated.

    Args:
        tokenizer: A fast one.
        texts: As a chat template renders them.
        spans: Of each text, the first character of what is trained on and the one behind it.

    Returns:
        Of each text `input_ids`, and as many numbers: -1 outside of all spans.
    """
    encoded = _encoded(tokenizer, texts)
    found = []
    for text, borders, ids, offsets in zip(texts, spans, *encoded, strict=True):
        numbers = numbers_of(text, borders, offsets)
        found.append(_in_pieces(tokenizer, text, borders) if numbers is None else (ids, numbers))
    return found


def numbers_of(text: str, spans: Spans, offsets: Sequence[tuple[int, int]]) -> list[int] | None:
    """Return the span of each token; None where a token is on both sides of a border.

    Args:
        text: The text.
        spans: In order.
        offsets: Of each token, its first character and the one behind it. Some tokenizers leave
            out the white space before it, which is of the token too.
    """
    numbers, behind, span = [], 0, 0
    for start, stop in offsets:
        if start > behind and text[behind:start].isspace():
            start = behind
        behind = max(behind, stop)
        while span < len(spans) and start >= spans[span][1]:
            span += 1
        begin, end = spans[span] if span < len(spans) else (len(text) + 1, len(text) + 1)
        if start < begin < stop or start < end < stop:
            return None
        numbers.append(span if begin <= start and stop <= end else -1)
    return numbers


def _in_pieces(tokenizer: Any, text: str, spans: Spans) -> tuple[list[int], list[int]]:
    """Return the tokens of a text that is cut at each border."""
    cuts = [0, *(border for span in spans for border in span), len(text)]
    pieces = [text[start:stop] for start, stop in pairwise(cuts)]
    ids, numbers = [], []
    for place, piece in enumerate(_encoded(tokenizer, pieces)[0]):
        ids += piece
        numbers += [place // 2 if place % 2 else -1] * len(piece)
    return ids, numbers


def _encoded(tokenizer: Any, texts: Sequence[str]) -> tuple[list[list[int]], list[list]]:
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    return encoded["input_ids"], encoded["offset_mapping"]
