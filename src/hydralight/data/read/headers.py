"""The first row of a csv file: a header that is hidden, or that names a column twice."""

import csv
import io
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from hydralight.errors import UserError
from hydralight.packed import opened
from hydralight.stores.fetched import url_of

log = logging.getLogger(__name__)

SAMPLE = 200  # rows
DIALECT = ("quoting", "quotechar", "escapechar", "doublequote", "skipinitialspace")


def check_header(file: str, options: Mapping[str, Any]) -> None:
    """Tell a first row that is a header, where names of columns are given that make it data.

    One that only looks like a header gets a warning. `header: null` says that there is none.

    Raises:
        UserError: it has a name that is given, or a word above numbers.
    """
    names = options.get("column_names")
    if not names or options.get("skiprows") or "header" in options:
        return
    first, *others = _rows(file, options, SAMPLE) or [[]]
    columns = list(zip(*others, strict=False))
    called = [name for name, cell in zip(names, first, strict=False) if _same(name, cell)]
    numbers = [
        cell
        for cell, values in zip(first, columns, strict=False)
        if cell and not _is_number(cell) and all(map(_is_number, values))
    ]
    row = f"The first row of {url_of(file)} ({', '.join(first)[:60]})"
    leave_out = "leave data.reader.column_names out, or the row with 'data.reader.skiprows=1'"
    if others and (called or numbers):
        raise UserError(
            f"{row} is a header, and data.reader.column_names makes data of it: {leave_out}; where "
            "it is data, say 'data.reader.header=null'."
        )
    if others and _are_names(first, columns):
        log.warning(
            "%s looks like a header and is taken for data: if it is one, %s", row, leave_out
        )


def repeated_name(file: str, options: Mapping[str, Any], names: Collection[str]) -> str | None:
    """Say that the header has a column's name twice, of the names that are asked for."""
    if options.get("column_names") or options.get("skiprows"):
        return None
    header = next(iter(_rows(file, options, 1)), [])
    for name in names:
        if header.count(name) > 1:
            own = [f"{n}_{i}" if header[:i].count(n) else n for i, n in enumerate(header)]
            return (
                f"The header of {file} has the column {name!r} {header.count(name)} times: give "
                f"all of them names, as in 'data.reader={{skiprows: 1, column_names: "
                f"[{', '.join(own)}]}}'."
            )
    return None


def _rows(file: str, options: Mapping[str, Any], number: int) -> Sequence[Sequence[str]]:
    """Return the first rows; none where the file cannot be read as plain csv."""
    separator = options.get("delimiter") or options.get("sep", ",")
    if len(separator) != 1:
        return []
    dialect = {key: options[key] for key in DIALECT if key in options}
    try:
        with io.TextIOWrapper(opened(file), options.get("encoding"), newline="") as text:
            return list(islice(csv.reader(text, delimiter=separator, **dialect), number))
    except (csv.Error, UnicodeError, LookupError, OSError):  # which is told when it is read
        return []


def _are_names(first: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Whether words stand above texts that are longer, and above classes that they are not."""
    pairs = list(zip(first, columns, strict=False))
    words = all(0 < len(cell.split()) < 3 and not _is_number(cell) for cell in first)
    longer = any(min(len(value.split()) for value in values) > 2 for _, values in pairs)
    classes = any(min(Counter(values).values()) > 1 and len(values) > 9 for _, values in pairs)
    other = all(cell not in values for cell, values in pairs)
    return words and longer and classes and other


def _same(name: object, cell: str) -> bool:
    return str(name).strip().lower() == cell.strip().lower()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
