"""What is to be predicted: a file, standard input, or a text."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from hydralight.config import UserError
from hydralight.data.faults import suffix
from hydralight.data.roles import check_text, rename_roles
from hydralight.data.sources import FORMATS, load_splits


def read_input(
    source: str, roles: Sequence[str], columns: Mapping[str, str], reader: Mapping[str, Any]
) -> Dataset:
    """Return rows with the roles that a task predicts from.

    Args:
        source: A file of any format that training reads, with the columns of the training data
            or of the roles' own names; "-" for lines on standard input; or a text itself.
        roles: The task's input roles; lines and texts are the first of them.
        columns: Role to column name, as in training.
        reader: Options of the reader of files.

    Raises:
        UserError: there is no such file or column, or nothing in it.
    """
    if source == "-":
        lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
        dataset, where = Dataset.from_dict({roles[0]: lines}), "standard input"
    elif looks_like_a_file(source):
        options = reader
        if suffix(source) in (".txt", ".text"):  # the training data may have been of another format
            options = {k: v for k, v in reader.items() if k in ("encoding", "sample_by")}
        (dataset,) = load_splits({"predict": source}, reader=options).values()
        where = source
    else:
        dataset, where = Dataset.from_dict({roles[0]: [source]}), "input"
    if len(dataset) == 0:
        raise UserError(f"{where} is empty: there is nothing to predict.")
    there = {
        role: column
        for role, column in columns.items()
        if role in roles and column in dataset.column_names
    }
    rows = rename_roles(dataset, there, roles, where)
    for role in roles:
        check_text(rows, role, there.get(role, role), where)
    return rows


def looks_like_a_file(source: str) -> bool:
    """Whether an input names a file, there or not, rather than being a text itself."""
    try:
        if Path(source).expanduser().exists():
            return True
    except OSError:  # too long for a name
        return False
    if suffix(source) in FORMATS:
        return True
    return " " not in source and (source.startswith(("./", "/", "~")) or "." in source[-12:-1])
