"""The rows of `metrics.csv`: read by a program that does not take the file to be whole."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from hydralight.errors import UserError, first_line

ANEW = "restore it from a copy, or delete it"  # what can be done with a damaged file


class Count:
    """How many rows there are, and the checksum of their values; empty ones do not count."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.number, self._sum = 0, xxhash.xxh3_128()
        self.add(rows)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count further rows: columns may come later, so what is empty is left out."""
        for row in rows:
            values = {c: str(v) for c, v in row.items() if v not in (None, "")}
            self._sum.update(json.dumps(values, sort_keys=True).encode())
            self.number += 1

    def __str__(self) -> str:
        return f"{self.number}:{self._sum.hexdigest()}"


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return a CSV file's columns and its rows as text; a torn last line is left out.

    Raises:
        UserError: the file is damaged; the sentence names the line.
    """
    rows: list[dict[str, str]] = []
    columns: list[str] = []
    try:
        lines = path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # it may be torn in its last value
            lines.pop()
        columns = _values(lines[0]) if lines else []
        if "step" not in columns:
            raise ValueError("it has no column 'step'" if columns else "it is empty")
        for line in lines[1:]:
            row = dict(zip(columns, _values(line), strict=True))
            int(row["step"] or 0)
            rows.append(row)
    except (ValueError, csv.Error) as error:
        number = len(rows) + (2 if "step" in columns else 1)
        raise UserError(
            f"{path} is damaged in line {number} ({first_line(error)}): {ANEW}."
        ) from error
    return columns, rows


def _values(line: bytes) -> list[str]:
    text = line.decode("utf-8")
    if "\0" in text:
        raise ValueError("it has a NUL byte")
    (values,) = csv.reader([text], strict=True)
    return values
