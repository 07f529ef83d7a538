"""What columns are called by their role in a task, and whether they hold what the task reads."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import MinLen
from datasets import Dataset

from hydralight.config.ranges import Text
from hydralight.errors import UserError, count

ColumnName = Annotated[
    str,
    MinLen(1),
    "the name of a column (data.reader.column_names gives names where a file has none)",
]
ColumnNames = Mapping[str, ColumnName | Annotated[Sequence[Text], MinLen(1)] | None]


class NoRows(UserError):
    """Of the rows at hand none is left; where they are a part of all, others may be."""


@dataclass(frozen=True)
class Where:
    """What messages call a data set and its columns.

    Args:
        name: Of the data set, such as its path and split.
        columns: Roles to the names of their columns, where they differ; None is no column.
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
        return cls(f"{'data.source' if name is None else name} ({split})", columns or {})

    def column(self, role: str) -> str | Sequence[str]:
        """Return the name of a role's column, or of its columns."""
        return self.columns.get(role) or role


def switched_off(columns: ColumnNames | None) -> set[str]:
    """Return the roles that null is said for: they are not taken, whatever columns there are."""
    return {role for role, names in (columns or {}).items() if names is None}


def is_text(feature: object) -> bool:
    """Whether a column's feature is text, in either of Arrow's sizes."""
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def check_texts(dataset: Dataset, roles: Collection[str], where: Where) -> None:
    """Check those of the roles that the rows have (`check_text`)."""
    for role in roles:
        if role in dataset.column_names:
            check_text(dataset, role, where)


def check_is_text(dataset: Dataset, role: str, where: Where) -> None:
    """Raise a `UserError` where a role's column is of another kind, and say how to make it text."""
    feature, column = dataset.features[role], where.column(role)
    if is_text(feature):
        return
    if getattr(feature, "dtype", "") == "null":
        raise UserError(f"{where}, row 1: the {role} (column '{column}') is empty.")
    item = getattr(feature, "feature", None)
    if not isinstance(column, str):
        joined = " ".join(f"{{{name}}}" for name in column)
        raise UserError(
            f"{where}: data.columns.{role}=[{', '.join(column)}] is a list of columns, and the "
            f"{role} is text: 'data.columns={{{role}: \"{joined}\"}}' joins them."
        )
    if any(sign in column for sign in "[{"):
        how = "name what is text in them"
    elif isinstance(item, Mapping):
        fields = [name for name, one in item.items() if is_text(one)] or list(item)
        name = next((n for n in ("content", "value", "text") if n in fields), fields[0])
        how = f"name one as '{column}[0].{name}', or join them as '{{{column}[*].{name}}}'"
    elif item is not None:
        how = f"name one as '{column}[0]', or join them as '{{{column}[*]}}'"
    elif isinstance(feature, Mapping):
        how = f"name a field as '{column}.{next(iter(feature))}'"
    else:
        how = f"name it as '{{{column}}}' to write it as text"
    what = "lists" if item is not None else dataset.with_format("arrow")[role][:1].type
    raise UserError(f"{where}: column '{column}' holds {what}, and the {role} is text: {how}.")


def check_text(dataset: Dataset, role: str, where: Where) -> None:
    """Raise a `UserError` that names the first row whose text is empty or no text."""
    check_is_text(dataset, role, where)
    column = where.column(role)
    values = dataset.with_format("arrow")[role][:]
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), True)
    row = pc.index(empty, True).as_py()
    if row >= 0:
        raise UserError(f"{where}, row {row + 1}: the {role} (column '{column}') is empty.")


def check_single(dataset: Dataset, role: str, where: Where) -> None:
    """Raise a `UserError` where a role's column holds lists or records, and not single values."""
    feature, column = dataset.features[role], where.column(role)
    if not isinstance(feature, datasets.Value | datasets.ClassLabel):
        kind = dataset.with_format("arrow")[role][:1].type
        raise UserError(
            f"{where}: column '{column}' holds {kind}, and the {role} is a single value: name it, "
            f"as '{column}[0]' or '{column}.…'."
        )


def check_list(dataset: Dataset, role: str, where: Where, of_texts: bool = False) -> None:
    """Raise a `UserError` where a role does not hold lists, or a list is missing or empty."""
    column = where.column(role)
    values = dataset.with_format("arrow")[role][:]
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        text = is_text(dataset.features[role])
        how = " (JSON lines can hold them, and CoNLL files words and tags)" if text else ""
        raise UserError(
            f"{where}: column '{column}' holds {'text' if text else values.type}, and the {role} "
            f"are lists{how}."
        )
    if pa.types.is_nested(values.type.value_type):
        raise UserError(
            f"{where}: column '{column}' holds lists of {values.type.value_type}, and the {role} "
            f"are lists of texts: name a field of each, as '{column}[*].…'."
        )
    inner = values.type.value_type
    if of_texts and not (pa.types.is_string(inner) or pa.types.is_large_string(inner)):
        raise UserError(
            f"{where}: column '{column}' holds lists of {inner}, and the {role} are lists of "
            "texts: put them in quotes."
        )
    row = pc.index(pc.equal(pc.fill_null(pc.list_value_length(values), 0), 0), True).as_py()
    if row >= 0:
        raise UserError(f"{where}, row {row + 1}: the {role} (column '{column}') are empty.")
    missing = pc.index(pc.is_null(pc.list_flatten(values)), True).as_py()
    if missing >= 0:
        row = pc.list_parent_indices(values)[missing].as_py()
        raise UserError(f"{where}, row {row + 1}: one of the {role} ('{column}') is missing.")


def check_lines(
    dataset: Dataset, roles: Collection[str], where: Where, lines: Sequence[int]
) -> None:
    """Raise a `UserError` that names the first line in which a role is missing or empty.

    Args:
        dataset: Rows by role.
        roles: Those that each row has to have.
        where: Names the input.
        lines: The number of each row's line.
    """
    values = {role: dataset[role][:] for role in roles}
    for row, number in enumerate(lines):
        for role in roles:
            value = values[role][row]
            if value is None or (isinstance(value, str | list) and not value):
                raise UserError(
                    f"line {number} of {where}: the {role} (field '{where.column(role)}') is "
                    "missing or empty."
                )


def check_targets_there(dataset: Dataset, targets: Collection[str], where: Where) -> None:
    """Raise a `UserError` where no row of a split that is to be trained on or evaluated has any."""
    for role in targets:
        there = role in dataset.column_names
        if not there or dataset.with_format("arrow")[role][:].null_count == len(dataset):
            raise UserError(
                f"{where}: none of its {count(len(dataset), 'row')} has a {role} (no column, null, "
                "and -1 in all rows, say so): it can be predicted on, and neither trained on nor "
                "evaluated."
            )
