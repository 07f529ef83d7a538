"""Groups, and inputs, that are in two splits: told, and taken out of one of them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hydralight.data.naming import is_nothing
from hydralight.data.roles import Where, is_text
from hydralight.errors import UserError, count
from hydralight.nodes.ranks import is_first

log = logging.getLogger(__name__)
Policy = Literal["report", "drop", "move", "refuse"]
FIRST = ("test", "validation")  # these keep what they have, in this order; train gives way to all
MANY = 1_000_000  # rows up to which equal inputs are looked for where they are only told


def groups_apart(
    splits: Mapping[str, Dataset], column: str, policy: Policy, where: Mapping[str, Where]
) -> dict[str, Dataset]:
    """Look for groups that are in two splits, and deal with their rows.

    A group stays in test, or else in validation. Rows without a group are no group.

    Args:
        splits: Ready-made splits.
        column: Of groups; a split that has none is told.
        policy: `report`; `drop` leaves the other splits' rows of such a group out, `move` moves
            them to the split where the group stays; `refuse`.
        where: What messages call the splits.

    Raises:
        UserError: groups are in two splits and the policy is `refuse`, or it leaves no row.
    """
    key = f"data.group_by={column}"
    for split in splits:
        if column not in splits[split].column_names:
            sentence = f"{key}: {where[split]} has no such column, and no groups to compare"
            if policy != "report":
                raise UserError(f"{sentence}: data.group_leaks={policy} cannot be done.")
            _warn(sentence)
    there = {split: rows for split, rows in splits.items() if column in rows.column_names}
    texts = all(is_text(rows.features[column]) for rows in there.values())
    values = {split: _values(rows, column, texts) for split, rows in there.items()}
    return {**splits, **_apart(there, values, policy, key, "group", "data.group_leaks")}


def inputs_apart(
    splits: Mapping[str, Dataset],
    roles: Sequence[str],
    policy: Literal["report", "drop", "refuse"] | None,
) -> dict[str, Dataset]:
    """Look for rows of two splits with the same inputs, and deal with them as with groups.

    Args:
        splits: Ready-made splits.
        roles: The inputs, texts or lists of them.
        policy: As for groups; None looks for none, and neither does `report` beyond `MANY` rows.

    Raises:
        UserError: as for groups.
    """
    rows = sum(map(len, splits.values()))
    if policy is None or not roles or len(splits) < 2 or (policy == "report" and rows > MANY):
        return dict(splits)
    return _apart(
        splits, _shared_inputs(splits, roles), policy, "data.duplicates", "input", "data.duplicates"
    )


def _apart(
    splits: Mapping[str, Dataset],
    values: Mapping[str, pd.Series],
    policy: Policy,
    key: str,
    noun: str,
    option: str,
) -> dict[str, Dataset]:
    """Take what is in two splits out of one of them, by a value for each row."""
    order = _ordered(splits)
    try:
        joined = pd.concat([values[split] for split in order], ignore_index=True)
        codes, names = pd.factorize(joined)  # -1 where there is none
    except TypeError as error:
        raise UserError(f"{key}: this column holds lists or records: name another.") from error
    ends = np.cumsum([len(splits[split]) for split in order])
    parts = dict(zip(order, np.split(codes, ends[:-1]), strict=True))
    keeper = np.full(len(names) + 1, -1)  # of each value, the number of the split; the last is none
    kept = dict(splits)
    moved: dict[str, list[Dataset]] = {split: [] for split in order}
    for number, split in enumerate(order):
        there = keeper[parts[split]]
        for other_number in np.unique(there[there >= 0]):
            other, rows = order[other_number], there == other_number
            shared = np.unique(parts[split][rows])
            sentence = (
                f"{key}: {count(len(shared), noun)} of {other} "
                f"({count(int(np.isin(parts[other], shared).sum()), 'row')} of {len(parts[other])})"
                f" {'is' if len(shared) == 1 else 'are'} in {split} too ({int(rows.sum())} of "
                f"{len(rows)}): {_some(list(names[shared]))}"
            )
            if policy == "refuse":
                raise UserError(f"{sentence} ({option}=refuse).")
            moved[other].append(splits[split].select(np.flatnonzero(rows)))
            _warn(sentence + _then(policy, option, split, other))
        if policy != "report" and (there >= 0).any():
            kept[split] = splits[split].select(np.flatnonzero(there < 0))
            if len(kept[split]) == 0:
                raise UserError(f"{option}={policy} leaves no row of {split}.")
        fresh = parts[split][(there < 0) & (parts[split] >= 0)]
        keeper[fresh] = number
    if policy == "move":
        for split, rows in moved.items():
            kept[split] = _with(kept[split], rows, split)
    return kept


def _ordered(splits: Mapping[str, Dataset]) -> list[str]:
    """Return the splits, the one that keeps its rows first."""
    others = [split for split in splits if split not in (*FIRST, "train")]
    return [split for split in (*FIRST, *others, "train") if split in splits]


def _then(policy: Policy, option: str, split: str, other: str) -> str:
    """Return what is done about it, or could be."""
    if policy == "drop":
        return f"; these rows are left out of {split}"
    if policy == "move":
        return f"; these rows of {split} are moved to {other}"
    moving = f", and move moves them to {other}" if option == "data.group_leaks" else ""
    return f"; {option}=drop leaves these rows out of {split}{moving}"


def _with(rows: Dataset, more: Sequence[Dataset], split: str) -> Dataset:
    for one in more:
        if missing := set(one.column_names) ^ set(rows.column_names):
            raise UserError(
                f"data.group_leaks=move: rows cannot be moved to {split}, as not all of them have "
                f"{', '.join(sorted(missing))}: drop them."
            )
    aligned = [one.select_columns(rows.column_names).cast(rows.features) for one in more]
    return datasets.concatenate_datasets([rows, *aligned]) if aligned else rows


def _warn(sentence: str) -> None:
    if is_first():  # all processes read the same rows
        log.warning("%s", sentence)


def _some(names: Sequence[Any]) -> str:
    """Return the first few of them, in order of their first row."""
    texts = [" ".join(str(name).split()) for name in names[:3]]
    shown = [text if len(text) <= 40 else f"{text[:39]}…" for text in texts]
    return ", ".join([*shown, *(["…"] if len(names) > 3 else [])])


def _values(rows: Dataset, column: str, texts: bool) -> pd.Series:
    """Return the values of a column; as texts where another split has texts."""
    feature = rows.features[column]
    values = rows.with_format(None)[column][:]
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        values = [names[v] if v is not None and v in range(len(names)) else None for v in values]
    elif not texts and any(isinstance(value, list | dict) for value in values[:1]):
        raise UserError(f"data.group_by={column}: it holds lists or records: name another.")
    elif not texts:
        values = [None if is_nothing(value) else _text(value) for value in values]
    return pd.Series(values, dtype=object)


def _text(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()  # integers with a gap are floats
    return str(int(value)) if whole else str(value)


def _shared_inputs(splits: Mapping[str, Dataset], roles: Sequence[str]) -> dict[str, pd.Series]:
    """Return the inputs of each row, as one text, where another split may have them; else None."""
    order = _ordered(splits)
    masks = {split: np.zeros(len(splits[split]), dtype=bool) for split in order}
    for number, split in enumerate(order):
        for other in order[:number]:
            there = _among(splits[split], splits[other], roles)
            masks[split] |= there
            shared = splits[split].select(np.flatnonzero(there))
            if len(shared):
                masks[other] |= _among(splits[other], shared, roles)
    values = {}
    for split, mask in masks.items():
        texts = np.full(len(mask), None, dtype=object)
        if mask.any():
            some = splits[split].select(np.flatnonzero(mask))
            columns = [some.with_format(None)[role][:] for role in roles]
            rows = zip(*columns, strict=True)
            texts[mask] = [" | ".join(_joined(value) for value in row) for row in rows]
        values[split] = pd.Series(texts, dtype=object)
    return values


def _among(rows: Dataset, others: Dataset, roles: Sequence[str]) -> np.ndarray:
    """Return which rows have, in each role, a value that the others have in it; by Arrow."""
    sets = {role: pa.concat_arrays([b[role] for b in _batches(others, [role])]) for role in roles}
    masks = [
        np.logical_and.reduce(
            [
                pc.is_in(batch[role], value_set=sets[role], skip_nulls=True).to_numpy(False)
                for role in roles
            ]
        )
        for batch in _batches(rows, roles)
    ]
    return np.concatenate(masks)


def _batches(rows: Dataset, roles: Sequence[str]) -> Iterator[dict[str, pa.Array]]:
    """Yield the roles of some thousand rows as arrays of texts."""
    for table in rows.select_columns(list(roles)).with_format("arrow").iter(10_000):
        yield {role: _as_texts(table[role].combine_chunks()) for role in roles}


def _as_texts(values: pa.Array) -> pa.Array:
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        listed = values.cast(pa.list_(pa.string()))
        return pc.binary_join(listed, " ")
    return values.cast(pa.string())


def _joined(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
