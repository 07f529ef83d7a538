"""ColumnNames by their role in a task, and whether they hold what the task reads."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import MinLen
from datasets import Dataset

from hydralight.config.ranges import Text
from hydralight.errors import UserError, did_you_mean

ColumnNames = Mapping[str, Text | Annotated[Sequence[Text], MinLen(1)]]


@dataclass(frozen=True)
class Where:
    """What messages call a data set and its columns.

    Args:
        name: Of the data set, such as its path and split.
        columns: Roles to the names of their columns, where they differ.
    """

    name: str
    columns: ColumnNames = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @classmethod
    def of(cls, path: Any, split: str, columns: ColumnNames | None = None) -> "Where":
        """Name a split of what `data.path` says."""
        name = path.get(split) if isinstance(path, Mapping) else path
        if isinstance(name, Mapping):  # files that are aligned line by line
            name = " and ".join(map(str, name.values()))
        return cls(f"{'data.source' if name is None else name} ({split})", said(columns))

    def column(self, role: str) -> str | Sequence[str]:
        """Return the name of a role's column, or of its columns."""
        return self.columns.get(role, role)


def said(columns: ColumnNames | None) -> ColumnNames:
    """Return the columns that are named; null unsets a recipe's optional one."""
    return {role: names for role, names in (columns or {}).items() if names is not None}


def rename_roles(
    dataset: Dataset,
    roles: Collection[str],
    where: Where,
    optional: Collection[str] = (),
) -> Dataset:
    """Keep the columns that the roles name, renamed to the roles.

    Args:
        dataset: The rows as they came from the source.
        roles: The roles that the task knows.
        where: Names the column of a role; `translation.en` is the field `en` of `translation`, and
            several names make a list of their values. A role that it does not know has a column
            of its own name.
        optional: Those of the roles that are left out where neither `where` nor the data set
            has them.

    Raises:
        UserError: There are no rows, a role is not known, or a column is not there.
    """
    columns = dict(where.columns)
    if len(dataset) == 0:
        raise UserError(f"{where.name} is empty.")
    roles = list(dict.fromkeys(roles))
    if unknown := [role for role in columns if role not in roles]:
        raise UserError(
            f"data.columns names {unknown[0]!r}, which is no role of this task; its roles are "
            f"{', '.join(roles)}{did_you_mean(unknown[0], roles)}"
        )
    # joined data sets come with a fixed list of columns that they show
    dataset = dataset.with_format(None)
    roles = [r for r in roles if r not in optional or r in columns or r in dataset.column_names]
    lists: dict[str, dict[str, str]] = {}
    for role in roles:
        names = columns.get(role, role)
        if not isinstance(names, str):
            lists[role] = {f"{role} {number}": name for number, name in enumerate(names)}
            columns |= lists[role]
    single = [part for role in roles for part in lists.get(role, [role])]
    flat, used = dataset.flatten(), Counter[str]()
    pieces: dict[tuple[bool, int], dict[str, str]] = {}
    for role in single:
        column = str(columns.get(role, role))
        nested = column not in dataset.column_names
        if nested and column not in flat.column_names:
            there = list(dict.fromkeys([*dataset.column_names, *flat.column_names]))
            raise UserError(
                f"{where} has no column {column!r} for the role {role.split()[0]}; its columns are "
                f"{', '.join(dataset.column_names)}{did_you_mean(column, there)} "
                f"(data.columns={{{role.split()[0]}: …}} names another)."
            )
        pieces.setdefault((nested, used[column]), {})[column] = role
        used[column] += 1
    # One piece as a rule; more where a column serves two roles, or only a field of it is asked for.
    parts = [
        (flat if nested else dataset).select_columns(list(names)).rename_columns(names)
        for (nested, _), names in pieces.items()
    ]
    whole = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts, axis=1)
    for role, numbered in lists.items():
        whole = whole.map(
            _gather, batched=True, fn_kwargs={"role": role, "names": list(numbered)}, desc=role
        )
    return whole.select_columns(roles).with_format(None)


def _gather(rows: dict[str, list], role: str, names: list[str]) -> dict[str, list]:
    return {role: [list(values) for values in zip(*[rows[name] for name in names], strict=True)]}


def is_text(feature: object) -> bool:
    """Whether a column's feature is text, in either of Arrow's sizes."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def check_texts(dataset: Dataset, roles: Collection[str], where: Where) -> None:
    """Check those of the roles that the rows have (`check_text`)."""
    for role in roles:
        if role in dataset.column_names:
            check_text(dataset, role, where)


def check_text(dataset: Dataset, role: str, where: Where) -> None:
    """Raise a `UserError` that names the first row whose text is empty or no text."""
    column = where.column(role)
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


def check_list(dataset: Dataset, role: str, where: Where) -> None:
    """Raise a `UserError` where a role does not hold lists, or a list is missing or empty."""
    column = where.column(role)
    values = dataset.with_format("arrow")[role][:]
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        raise UserError(
            f"{where}: column '{column}' holds {values.type}, and the {role} are lists."
        )
    row = pc.index(pc.equal(pc.fill_null(pc.list_value_length(values), 0), 0), True).as_py()
    if row >= 0:
        raise UserError(f"{where}, row {row + 1}: the {role} (column '{column}') are empty.")
    missing = pc.index(pc.is_null(pc.list_flatten(values)), True).as_py()
    if missing >= 0:
        row = pc.list_parent_indices(values)[missing].as_py()
        raise UserError(f"{where}, row {row + 1}: one of the {role} ('{column}') is missing.")
