"""Columns by their role in a task, and whether they hold what the task reads."""

from collections import Counter
from collections.abc import Collection, Mapping

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hydralight.config import UserError, did_you_mean


def rename_roles(
    dataset: Dataset, columns: Mapping[str, str], roles: Collection[str], where: str
) -> Dataset:
    """Keep the columns that the roles name, renamed to the roles.

    Args:
        dataset: The rows as they came from the source.
        columns: Roles to column names; `translation.en` is the field `en` of `translation`. A role
            that is not in here has a column of its own name.
        roles: The roles that the task needs.
        where: What messages call the data set, such as its path and split.

    Raises:
        UserError: A role is not known, or a column is not there.
    """
    if unknown := [role for role in columns if role not in roles]:
        raise UserError(
            f"data.columns names {unknown[0]!r}, which is no role of this task; its roles are "
            f"{', '.join(roles)}{did_you_mean(unknown[0], roles)}"
        )
    flat, used = dataset.flatten(), Counter[str]()
    pieces: dict[tuple[bool, int], dict[str, str]] = {}
    for role in roles:
        column = columns.get(role, role)
        nested = column not in dataset.column_names
        if nested and column not in flat.column_names:
            there = list(dict.fromkeys([*dataset.column_names, *flat.column_names]))
            raise UserError(
                f"{where} has no column {column!r} for the role {role}; its columns are "
                f"{', '.join(dataset.column_names)}{did_you_mean(column, there)} "
                f"(data.columns={{{role}: …}} names another)."
            )
        pieces.setdefault((nested, used[column]), {})[column] = role
        used[column] += 1
    # One piece as a rule; more where a column serves two roles, or only a field of it is asked for.
    parts = [
        (flat if nested else dataset).select_columns(list(names)).rename_columns(names)
        for (nested, _), names in pieces.items()
    ]
    whole = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts, axis=1)
    return whole.select_columns(list(roles))


def check_text(dataset: Dataset, role: str, column: str, where: str) -> None:
    """Raise a `UserError` that names the first row whose text is empty or no text."""
    values = dataset.with_format("arrow")[role][:]
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_null(values.type):
        raise UserError(f"{where}, row 1: the {role} (column '{column}') is empty.")
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        raise UserError(f"{where}: column '{column}' holds {values.type}, and the {role} is text.")
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)
    row = pc.index(empty, True).as_py()
    if row >= 0:
        raise UserError(f"{where}, row {row + 1}: the {role} (column '{column}') is empty.")
