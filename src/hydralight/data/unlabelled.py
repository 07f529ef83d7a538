"""Splits without targets, such as the test splits of GLUE: told where they are evaluated."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset

from hydralight.data.columns import NoColumn, rename_roles
from hydralight.data.naming import is_nothing
from hydralight.data.roles import Where
from hydralight.data.shape import Shape

NONE = (None, "", "-1", -1)  # what says in a file that there is no target


def targets_that_lack(rows: Dataset, shape: Shape, where: Where) -> list[str]:
    """Return the targets that no row has: there is no column for them, or nothing is in it.

    Args:
        rows: With the source's own columns.
        shape: What an example is.
        where: Names the columns of the roles.
    """
    lacking = []
    known = shape.labels if hasattr(shape, "labels") else None
    joined = getattr(shape, "label_delimiter", None) is not None  # an empty cell has no label then
    for role in shape.targets:
        if role not in where.columns and role in shape.optional_roles:
            continue
        column = Where(where.name, {role: where.columns.get(role) or role})
        try:
            values = rename_roles(rows, [role], column)[role][:]
        except NoColumn:
            lacking.append(role)
            continue
        nothing = [value for value in NONE if str(value) not in (known or ())]
        if not joined and all(_is_none(value, nothing) for value in values):
            lacking.append(role)
    return lacking


def without(roles: Sequence[str], where: Where) -> Where:
    """Return what names the columns of a data set, except those of some roles."""
    kept = {role: names for role, names in where.columns.items() if role not in roles}
    return replace(where, columns=kept)


def _is_none(value: Any, nothing: Sequence[Any]) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_none(one, nothing) for one in value)
    return not isinstance(value, dict) and (is_nothing(value) or value in nothing)
