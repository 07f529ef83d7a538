"""How else a table of text could be read: without its header, or with another separator."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from hydralight.data.columns import paths_of
from hydralight.data.read.faults import refuse
from hydralight.data.read.files import files_of, is_local
from hydralight.data.read.formats import builder_of, suffix
from hydralight.data.read.headers import repeated_name
from hydralight.data.roles import Where, is_text
from hydralight.errors import UserError
from hydralight.packed import opened
from hydralight.stores.fetched import by_their_urls

if TYPE_CHECKING:
    from hydralight.data.source import Source

SEPARATORS = "\t;|,"
SAMPLE = 1000  # rows
NUMBER = re.compile(r"-?\d+(\.\d+)*")


def readings(
    source: "Source", split: str, rows: Dataset
) -> Iterator[tuple[dict[str, Any], Dataset]]:
    """Yield what to add to `data.reader`, and the rows that are read then; the likeliest first.

    Args:
        source: How the rows were read.
        split: Theirs.
        rows: They.
    """
    files, kind = _files(source, split)
    reader = source.reader or {}
    tables = kind == "csv"
    unnamed = tables and "column_names" not in reader and headless(rows)
    if unnamed and (len(rows.column_names) > 1 or not files):
        yield _named(rows)
    elif len(rows.column_names) > 1 or not files or kind not in ("csv", "text"):
        yield {}, rows
    else:
        for separator in _separators(files[0]):
            change = {} if tables else {"format": "csv"}
            change["sep"] = separator
            path = {split: files[0]}
            read = {**reader, **change, "nrows": SAMPLE}
            try:
                other = replace(source, path=path, reader=read, metadata=None).read()[split]
            except UserError:
                continue
            named, other = _named(other) if headless(other) else ({}, other)
            yield {**change, **named}, other
        yield _named(rows) if unnamed else ({}, rows)


@by_their_urls()
def check_names(source: "Source", split: str, rows: Dataset, roles: Collection[str]) -> None:
    """Raise a `UserError` where a role's column is one of several of its name."""
    there, where = rows.column_names, Where("", source.columns_of(split))
    used = {head for role in roles for head, _ in paths_of(where.column(role), there, role)}
    names = [name for name in there if name in used and f"{name}.1" in there]
    if names and (found := _files(source, split))[1] == "csv":
        files, options = found[0], builder_of(found[0], source.reader or {})[1]
        refuse(repeated_name(file, options, names) for file in files)


def headless(rows: Dataset) -> bool:
    """Whether the names of columns look like values: the file has no header then."""
    names = rows.column_names
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    if numbers and numbers != [str(number) for number in range(len(numbers))]:
        return True
    some = rows.select(range(min(len(rows), SAMPLE)))
    return any(_recurs(name, some) or _reads_on(name, some) for name in names)


def _recurs(name: str, rows: Dataset) -> bool:
    """Whether a column has its own name among its values; a second one was numbered by pandas."""
    values = {str(value) for value in rows[name][:]}
    return name in values or name.rpartition(".")[0] in values


def _reads_on(name: str, rows: Dataset) -> bool:
    """Whether a name is a text as long as those of its column."""
    if not is_text(rows.features[name]):
        return False
    words = sorted(len(value.split()) for value in rows[name][:] if value)
    here = len(name.split())
    return here > 3 and bool(words) and here >= words[len(words) // 4]


def _named(rows: Dataset) -> tuple[dict[str, Any], Dataset]:
    """Give names to columns whose names are the first row."""
    own = [_letters(number) for number in range(len(rows.column_names))]
    return {"column_names": own}, rows.rename_columns(
        dict(zip(rows.column_names, own, strict=True))
    )


def _letters(number: int) -> str:
    return ascii_lowercase[number] if number < 26 else f"c{number}"


def _separators(file: str) -> Iterator[str]:
    """Yield what stands as often in each of the first lines."""
    with opened(file) as stream:
        lines = [line.decode("utf-8", "replace").rstrip("\r\n") for line in islice(stream, 100)]
    for separator in SEPARATORS:
        counts = {line.count(separator) for line in lines if line.strip()}
        if len(counts) == 1 and counts != {0}:
            yield separator


def _files(source: "Source", split: str) -> tuple[list[str], str]:
    """Return the local files of a split, and what reads them; no files for a folder."""
    path = source.path.get(split) if isinstance(source.path, Mapping) else source.path
    paths = [path] if isinstance(path, str) else list(path or ())
    if isinstance(path, Mapping) or not all(map(is_local, paths)):
        return [], ""
    files = [file for one in paths for file in files_of(one)]
    if files:
        return files, builder_of(files, source.reader or {})[0]
    inside = [f for one in paths for f in Path(one).expanduser().rglob("*") if f.is_file()]
    tables = any(suffix(str(file)) in (".csv", ".tsv") for file in inside)
    return [], "csv" if tables else ""
