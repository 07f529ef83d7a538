"""Several references for one input: an evaluation compares what is written with each of them."""

from collections.abc import Sequence

from datasets import Dataset

from hydralight.data.roles import Where, check_is_text, is_text
from hydralight.errors import UserError


def is_list(rows: Dataset, role: str) -> bool:
    """Whether a role holds lists."""
    return getattr(rows.features.get(role), "feature", None) is not None


def references(rows: Dataset, role: str, where: Where) -> Dataset:
    """Return rows whose references are the texts that are there: rows may have more, or fewer.

    Raises:
        UserError: they are no texts, or a row has none.
    """
    if not is_text(rows.features[role].feature):
        check_is_text(rows, role, where)  # says what else there is
    kept = rows.map(_there, batched=True, fn_kwargs={"role": role}, desc=role)
    for start, batch in enumerate(kept.select_columns([role]).iter(1000)):
        for number, texts in enumerate(batch[role]):
            if not texts:
                row = 1000 * start + number + 1
                raise UserError(
                    f"{where}, row {row}: the {role} ({_written(role, where)}) is empty."
                )
    return kept


def firsts(values: Sequence[str | Sequence[str]]) -> list[str]:
    """Return the first reference of each row, or the only one."""
    return [value if isinstance(value, str) else value[0] for value in values]


def one_is_trained_on(role: str, where: Where) -> str:
    """Return the sentence on several references in training."""
    column = where.column(role)
    if isinstance(column, str):
        first, all_of = f'"{column}[0]"', column
    else:
        first, all_of = str(column[0]), f"[{', '.join(map(str, column))}]"
    return (
        f"{where}: the {role} is a list ({_written(role, where)}), and training takes one text: "
        f"name it, as in 'data.columns={{{role}: {first}}}', and all of them for the splits "
        f"that are only evaluated, as in 'data.columns_by_split={{test: {{{role}: {all_of}}}}}'."
    )


def _written(role: str, where: Where) -> str:
    column = where.column(role)
    names = f"'{column}'" if isinstance(column, str) else ", ".join(map(str, column))
    return f"column {names}" if isinstance(column, str) else f"columns {names}"


def _there(rows: dict[str, list], role: str) -> dict[str, list]:
    return {role: [[t for t in texts or () if t and t.strip()] for texts in rows[role]]}
