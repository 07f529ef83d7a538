"""What is to be predicted: a file, standard input, or a text."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from hydralight.data.faults import suffix
from hydralight.data.roles import Columns, rename_roles
from hydralight.data.sources import FORMATS
from hydralight.errors import UserError


def read_input(
    source: str, role: str, load: Callable[..., dict[str, Dataset]], reader: Mapping[str, Any]
) -> tuple[Dataset, str]:
    """Return the rows of an input with their own columns, and what messages call it.

    Args:
        source: A file of any format that training reads; "-" for lines on standard input; or a
            text itself.
        role: What lines and texts are.
        load: Reads a mapping from splits to files.
        reader: Options of the reader of files.

    Raises:
        UserError: there is no such file, or nothing in it.
    """
    if source == "-":
        lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
        dataset, where = Dataset.from_dict({role: lines}), "standard input"
    elif looks_like_a_file(source):
        if not Path(source).expanduser().exists():
            raise UserError(f"input={source}: there is no such file.")
        options = reader
        if suffix(source) in (".txt", ".text"):  # the training data may have been of another format
            options = {k: v for k, v in reader.items() if k in ("encoding", "sample_by")}
        (dataset,) = load({"predict": source}, reader=options).values()
        where = source
        if suffix(source) in (".txt", ".text"):
            dataset = dataset.rename_columns({"text": role} if role != "text" else {})
    else:
        dataset, where = Dataset.from_dict({role: [source]}), "input"
    if len(dataset) == 0:
        raise UserError(f"{where} is empty: there is nothing to predict.")
    return dataset, where


def input_roles(
    dataset: Dataset,
    roles: Sequence[str],
    columns: Columns,
    where: str,
    optional: Sequence[str] = (),
) -> Dataset:
    """Name the columns by role: those of the training data, or the roles' own names.

    Raises:
        UserError: there is no such column.
    """
    flat = {*dataset.column_names, *dataset.flatten().column_names}
    there = {
        role: names
        for role, names in columns.items()
        if role in roles and flat.issuperset([names] if isinstance(names, str) else names)
    }
    # what training used is needed, what it did without is taken where it is there
    left = [r for r in optional if r not in columns and r not in dataset.column_names]
    return rename_roles(dataset, there, [r for r in roles if r not in left], where)


def looks_like_a_file(source: str) -> bool:
    """Whether an input names a file, there or not, rather than being a text itself."""
    try:
        if Path(source).expanduser().exists():
            return True
    except OSError:  # too long for a name
        return False
    return " " not in source and (
        suffix(source) in FORMATS or source.startswith(("./", "../", "/", "~"))
    )
