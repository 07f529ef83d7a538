"""The column of labels, in the forms that files and the hub give it, turned into names."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from datasets import ClassLabel, Dataset, List, Value

from hydralight.data.naming import Labels, called, is_nothing, written
from hydralight.data.roles import is_text
from hydralight.errors import UserError

ProblemType = Literal[
    "single_label_classification", "multi_label_classification", "regression"
]  # as in HF's model configs


def named_labels(
    dataset: Dataset,
    problem_type: ProblemType,
    names: Sequence[str] | None,
    delimiter: str | None,
    where: str,
    labels: Labels = None,
) -> Dataset:
    """Turn the column `label` into names (or a list of them; or, in regression, numbers).

    A missing label, also the -1 of unlabelled hub splits, becomes None.

    Args:
        dataset: Rows with a `label`: a `ClassLabel`, a text or a number; for several labels a list
            of these, a text that joins them, or a list of 0 and 1, one of each name (N-hot).
        problem_type: As in the model's config.
        names: All labels in order, where they are known.
        delimiter: What joins several labels in a text.
        where: What messages call the data set.
        labels: What the labels are called, where it is a mapping.

    Raises:
        UserError: The column is of another kind.
    """
    feature = dataset.features["label"]
    several, inner = isinstance(feature, List), inner_of(feature)
    if not isinstance(inner, ClassLabel | Value):
        kinds = [type(label).__name__ for label in dataset["label"][:]]
        other = next((row for row, kind in enumerate(kinds) if kind != kinds[0]), None)
        if other is None:
            raise UserError(
                f"{where}: labels are texts, numbers or lists of them, and not of {kinds[0]}: "
                "name a field or an item in data.columns, as {label: label.name}."
            )
        raise UserError(
            f"{where}: labels are texts, numbers or lists of them, all of one kind; that of row 1 "
            f"is {kinds[0]}, that of row {other + 1} {kinds[other]}."
        )
    if problem_type == "multi_label_classification":
        if not several and delimiter is None:
            raise UserError(
                f"{where}: several labels are a list, or a text that data.label_delimiter parts."
            )
    elif several:
        raise UserError(
            f"{where}: the label is a list: set data.problem_type=multi_label_classification."
        )
    if problem_type == "regression" and is_text(inner):
        raise UserError(
            f"{where}: the label is text; regression needs numbers "
            "(data.problem_type=single_label_classification takes names)."
        )
    arguments: dict[str, Any] = {"problem_type": problem_type, "delimiter": delimiter}
    is_class = isinstance(inner, ClassLabel)
    arguments["class_names"] = called(inner.names, labels) if is_class else None
    arguments["labels"] = labels if isinstance(labels, Mapping) and not is_class else None
    if several and not is_class:
        arguments["hot_names"] = hot_names_of(dataset, names)
    kind: Any = Value("float64") if problem_type == "regression" else Value("string")
    if problem_type == "multi_label_classification":
        kind = List(kind)
    features = dataset.features.copy()
    features["label"] = kind
    return dataset.map(_named, batched=True, fn_kwargs=arguments, features=features, desc="labels")


def hot_names_of(dataset: Dataset, names: Sequence[str] | None) -> list[str] | None:
    """The names that the places of an N-hot list stand for; None where labels are listed."""
    rows = [row for row in dataset["label"][:] if row is not None]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or (names is not None and widths != {len(names)}):
        return None
    if not all(value in (0, 1) and not isinstance(value, str) for row in rows for value in row):
        return None
    return list(names) if names is not None else [str(i) for i in range(widths.pop())]


def _named(
    rows: dict[str, list],
    problem_type: ProblemType,
    delimiter: str | None,
    class_names: list[str] | None,
    hot_names: list[str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, list]:
    names = labels or {}

    def name(value: Any) -> str | None:
        if is_nothing(value) or (class_names is not None and value == -1):
            return None
        if class_names is not None:
            return class_names[value]
        text = written(value)
        return names.get(text, text if text.strip() else None)

    def several(value: Any) -> list[str | None] | None:
        if is_nothing(value):
            return [] if delimiter is not None else None  # an empty cell joins no label
        if not isinstance(value, list):  # a number too, where no row of a file joins several
            parts = written(value).split(delimiter)
            return [name(part.strip()) for part in parts if part.strip()]
        if hot_names is not None:
            return [name(label) for label, hot in zip(hot_names, value, strict=True) if hot]
        return [name(part) for part in value]

    if problem_type == "regression":
        return {"label": rows["label"]}
    function = several if problem_type == "multi_label_classification" else name
    return {"label": [function(value) for value in rows["label"]]}


def inner_of(feature: Any) -> Any:
    """Return the feature of a label, or of the items of a list of labels."""
    return feature.feature if isinstance(feature, List) else feature


def distinct(dataset: Dataset, column: str = "label") -> list[str]:
    """Return the distinct values of a column of names, or of lists of them, in order.

    Names that are all numbers are ordered as numbers.
    """
    found: set[str] = set()
    for batch in dataset.select_columns([column]).iter(1000):
        for value in batch[column]:
            found.update(value if isinstance(value, list) else [value])
    names = [name for name in found if name is not None]
    if all(name.lstrip("-").isdigit() for name in names):
        return sorted(names, key=int)
    return sorted(names)
