"""JSON that any reader takes: it has no word for numbers that are not finite.

In a record they are the texts `NaN`, `Infinity` and `-Infinity`, as in the JSON of protocol
buffers, and are numbers again when it is read. In rows of predictions, whose texts may be anything,
they are null.
"""

import json
import math
from typing import Any

SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def as_json(content: Any, **options: Any) -> str:
    """Return a record as JSON; `options` are those of `json.dumps`."""
    return json.dumps(spelled(content), allow_nan=False, **options)


def row_as_json(row: Any) -> str:
    """Return a row of predictions as a line of JSON, whose letters are as they are."""
    return json.dumps(_replaced(row, lambda number: None), allow_nan=False, ensure_ascii=False)


def spelled(content: Any) -> Any:
    """Return plain values with texts in the place of numbers that are not finite."""
    return _replaced(content, lambda x: "NaN" if x != x else "Infinity" if x > 0 else "-Infinity")


def unspelled(content: Any) -> Any:
    """Return what `spelled` was given."""
    if isinstance(content, dict):
        return {key: unspelled(value) for key, value in content.items()}
    if isinstance(content, list):
        return [unspelled(value) for value in content]
    return SPELLED.get(content, content) if isinstance(content, str) else content


def _replaced(content: Any, by: Any) -> Any:
    if isinstance(content, dict):
        return {key: _replaced(value, by) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_replaced(value, by) for value in content]
    return by(content) if isinstance(content, float) and not math.isfinite(content) else content
