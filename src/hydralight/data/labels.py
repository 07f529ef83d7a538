"""Labels of examples, in the forms that files and the hub give them."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from datasets import ClassLabel, Dataset, List, Value

from hydralight.data.roles import Where, check_texts, is_text
from hydralight.data.shape import Columns, Shape
from hydralight.errors import UserError, did_you_mean

log = logging.getLogger(__name__)
ProblemType = Literal[
    "single_label_classification", "multi_label_classification", "regression"
]  # as in HF's model configs


@dataclass(frozen=True, kw_only=True)
class Labelled(Shape):
    """What the shapes of classification share: the forms of labels.

    Args:
        problem_type: As in the model's config.
        labels: All labels, in the order of their numbers; unless said, what the source declares,
            or the distinct ones of the training split.
        label_delimiter: What joins several labels in one text.
    """

    problem_type: ProblemType = "single_label_classification"
    labels: Sequence[Any] | None = None
    label_delimiter: str | None = None

    targets = ("label",)

    def __post_init__(self) -> None:
        names = [str(label) for label in self.labels] if self.labels else None
        if names and len(set(names)) < len(names):
            raise UserError(f"data.labels names a label twice: {', '.join(names)}.")
        if names and len(names) == 1 and self.problem_type != "regression":
            raise UserError(f"data.labels names {names[0]} alone: there are two labels or more.")
        object.__setattr__(self, "labels", names)

    @property
    def label_names(self) -> list[str] | None:
        """The labels in the order of their numbers; None in regression."""
        if self.problem_type == "regression":
            return None
        if self.labels is None:
            raise UserError("the labels are not known without training data: set data.labels.")
        return list(self.labels)

    @property
    def target_capacity(self) -> int:
        """One target an example, or one a label."""
        several = self.problem_type == "multi_label_classification"
        return len(self.label_names or ()) if several else 1

    def declared(self, rows: Dataset, where: Where) -> Sequence[str]:
        """Return the names of a `ClassLabel`, or of the columns that make up the label."""
        columns = where.column("label")
        if not isinstance(columns, str):
            return columns
        feature = rows.features.get("label")
        return getattr(getattr(feature, "feature", feature), "names", None) or ()

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Check the texts, and name the labels."""
        if "label" in rows.column_names:
            names, delimiter = (
                self.labels or self.declared(rows, where) or None,
                self.label_delimiter,
            )
            rows = named_labels(rows, self.problem_type, names, delimiter, where.name)
            if self.problem_type == "single_label_classification" and "-1" not in (names or ()):
                rows = _unlabelled(rows, where)
        check_texts(rows, self.text_roles, where)
        return rows

    def settled(self, train: Dataset | None, declared: Sequence[str]) -> Self:
        """Return the shape with its labels."""
        if self.problem_type == "regression" or self.labels is not None:
            return self
        if not declared and (train is None or "label" not in train.column_names):
            return self
        names = list(declared or distinct(train))
        if not names:
            raise UserError(f"none of the {len(train or ())} training rows has a label.")
        if len(names) < 2:
            there = f"only one label in the training data, {names[0]!r}"
            raise UserError(f"there is {there}: name those that there can be in data.labels.")
        return replace(self, labels=names)

    def check_targets(self, rows: Columns) -> None:
        """Look the labels up."""
        encode_labels(rows["label"], self.label_names, self.problem_type, 0)


def named_labels(
    dataset: Dataset,
    problem_type: ProblemType,
    names: Sequence[str] | None,
    delimiter: str | None,
    where: str,
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

    Raises:
        UserError: The column is of another kind.
    """
    feature = dataset.features["label"]
    several = isinstance(feature, List)
    inner = feature.feature if several else feature
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
    arguments["class_names"] = inner.names if isinstance(inner, ClassLabel) else None
    if several and not isinstance(inner, ClassLabel):
        arguments["hot_names"] = _hot_names(dataset, names)
    kind: Any = Value("float64") if problem_type == "regression" else Value("string")
    if problem_type == "multi_label_classification":
        kind = List(kind)
    features = dataset.features.copy()
    features["label"] = kind
    return dataset.map(_named, batched=True, fn_kwargs=arguments, features=features, desc="labels")


def _hot_names(dataset: Dataset, names: Sequence[str] | None) -> list[str] | None:
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
) -> dict[str, list]:
    def name(value: Any) -> str | None:
        if value is None or (class_names is not None and value == -1):
            return None
        if class_names is not None:
            return class_names[value]
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of integers with a gap is read as floats
        return str(value)

    def several(value: Any) -> list[str | None] | None:
        if value is None:
            return [] if delimiter is not None else None  # an empty cell joins no label
        if isinstance(value, str):
            return [part.strip() for part in value.split(delimiter) if part.strip()]
        if hot_names is not None:
            return [label for label, hot in zip(hot_names, value, strict=True) if hot]
        return [name(part) for part in value]

    if problem_type == "regression":
        return {"label": rows["label"]}
    function = several if problem_type == "multi_label_classification" else name
    return {"label": [function(value) for value in rows["label"]]}


def _unlabelled(rows: Dataset, where: Where) -> Dataset:
    """Take -1 for no label where all rows have it, and say where some have it."""
    found = Counter(rows["label"][:])
    number = found.pop("-1", 0)
    if number and not found:
        none: dict[str, list[None]] = {"label": [None] * len(rows)}
        return rows.map(lambda _: none, batched=True, batch_size=None, features=rows.features)
    if number and len(found) > 1 and set(found) == set(map(str, range(len(found)))):
        log.warning(
            "%s: %d of %d rows have the label -1, which is taken for a class: where it says that "
            "they have none, leave them out of the file",
            *(where, number, len(rows)),
        )
    return rows


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


def encode_labels(
    values: Sequence[Any], names: Sequence[str] | None, problem_type: ProblemType, first_row: int
) -> list[int] | list[float] | list[list[float]]:
    """Turn names into class ids, or into 0.0 and 1.0 by name; numbers stay numbers.

    Raises:
        UserError: A label is missing or unknown.
    """
    ids = {name: number for number, name in enumerate(names or ())}

    def check(row: int, label: Any) -> int:
        if label not in ids:
            raise UserError(_unknown(first_row + row, label, ids))
        return ids[label]

    for row, value in enumerate(values):
        if value is None:
            raise UserError(f"row {first_row + row + 1}: the label is missing")
    if problem_type == "regression":
        for row, value in enumerate(values):
            if not math.isfinite(value):
                raise UserError(f"row {first_row + row + 1}: the label {value} is no number")
        return [float(value) for value in values]
    if problem_type == "single_label_classification":
        return [check(row, value) for row, value in enumerate(values)]
    hot = []
    for row, labels in enumerate(values):
        present = {check(row, label) for label in labels}
        hot.append([float(number in present) for number in range(len(ids))])
    return hot


def _unknown(row: int, label: Any, ids: Mapping[str, int]) -> str:
    known = list(ids)
    some = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return (
        f"row {row + 1}: the label {label!r} is not known{did_you_mean(str(label), known)} "
        f"(there are: {some}; data.labels names others)"
    )
