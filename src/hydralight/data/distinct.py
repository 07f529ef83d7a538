"""Whether the texts of a pair are two: one that is given for both parts is a mistake."""

from itertools import combinations

from datasets import Dataset

from hydralight.data.roles import Where
from hydralight.data.shape import Shape
from hydralight.errors import UserError


def check_distinct(rows: Dataset, shape: Shape, where: Where, values: bool = True) -> None:
    """Compare the parts of a pair: what columns they have, and what is in these.

    Args:
        rows: Named by role.
        shape: Says which roles are parts of a pair.
        where: What messages call the rows and their columns.
        values: Whether parts that are the same in all of several rows are refused too.

    Raises:
        UserError: two parts are one text.
    """
    there = [role for role in shape.distinct_roles if role in rows.column_names]
    for role, other in combinations(there, 2):
        column, second = where.column(role), where.column(other)
        pair = f"the {role} and the {other}, which are two texts of a pair"
        if column == second:
            raise UserError(f"{where}: column '{column}' is both {pair}: give each its own column.")
        if values and len(rows) > 1 and _same(rows, role, other):
            raise UserError(
                f"{where}: columns '{column}' and '{second}' are the same in all {len(rows)} rows, "
                f"and they are {pair}: give each its own column."
            )


def _same(rows: Dataset, role: str, other: str) -> bool:
    batches = rows.select_columns([role, other]).iter(1000)
    return all(batch[role] == batch[other] for batch in batches)  # ends at the first that differs
