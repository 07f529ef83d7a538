"""JSON lines that were typed or came by standard input; each mistake is told with its line."""

import json
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from hydralight.errors import UserError, ended, first_line

KINDS = {list: "a list", bool: "true or false", type(None): "null", int: "a number"}
KINDS |= {float: "a number", str: "a text", dict: "an object"}


def read_objects(lines: Sequence[str], name: str, role: str) -> tuple[Dataset, list[int]]:
    """Return the objects of JSON lines as rows, and the numbers of their lines, from 1.

    Blank lines are left out. A line that holds a text alone, in quotes, is a row with one role. A
    field that is not in a line is null there.

    Args:
        lines: Of the input.
        name: What messages call it.
        role: What a text alone is.

    Raises:
        UserError: a line is no JSON, or no object, or a field is of another kind than before.
    """
    objects: list[dict[str, Any]] = []
    numbers = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            objects.append(_object(line, f"line {number} of {name}", role))
            numbers.append(number)
    fields = dict.fromkeys(field for one in objects for field in one)
    columns = {field: [one.get(field) for one in objects] for field in fields}
    if objects and not columns:
        raise UserError(f"line {numbers[0]} of {name} is an object without fields.")
    try:
        return Dataset.from_dict(columns), numbers
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        _refuse_mixed(columns, numbers, name, error)
        raise


def _object(line: str, where: str, role: str) -> dict[str, Any]:
    advice = "mend it, or say format=text where lines are texts"
    try:
        value = json.loads(line)
    except ValueError as error:
        said = str(error).partition(": line 1 column")[0]
        place = getattr(error, "colno", None)
        if place is not None and place > len(line.rstrip()):  # it goes on in the next line
            advice += "; an object has one line of its own"
        at = f" at character {place}" if place else ""
        raise UserError(f"{where} is no JSON ({said}{at}): {advice}.") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply: {advice}.") from error
    if isinstance(value, str):
        return {role: value}
    if not isinstance(value, dict):
        raise UserError(
            f"{where} holds {KINDS[type(value)]}, and should hold an object, "
            f'as {{"{role}": …}}: {advice}.'
        )
    return value


def _refuse_mixed(
    columns: dict[str, list], numbers: Sequence[int], name: str, error: Exception
) -> None:
    """Name the first line whose value is of another kind than those before it."""
    for field, values in columns.items():

        def fails(some: list, field: str = field) -> bool:
            try:
                Dataset.from_dict({field: some})
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                return True
            return False

        if fails(values):
            place = bisect_left(range(len(values)), True, key=lambda i: fails(values[: i + 1]))
            what = f"line {numbers[place]} of {name}: '{field}' holds {KINDS[type(values[place])]}"
            if fails([values[place]]):  # half of a character, or a number of too many digits
                raise UserError(
                    f"{what} that cannot be read: {ended(first_line(error))}"
                ) from error
            raise UserError(f"{what} that does not go with those of the lines before.") from error
