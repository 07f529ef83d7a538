"""Labels of examples, in the forms that files and the hub give them."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from datasets import ClassLabel, Dataset, List, Value

from hydralight.data.naming import (
    Labels,
    as_said,
    called,
    in_order,
    is_nothing,
    names_of,
    unknown,
    written,
)
from hydralight.data.roles import Where, check_texts, is_text
from hydralight.data.shape import Columns, Shape
from hydralight.errors import UserError

log = logging.getLogger(__name__)
ProblemType = Literal[
    "single_label_classification", "multi_label_classification", "regression"
]  # as in HF's model configs


@dataclass(frozen=True, kw_only=True)
class Labelled(Shape):
    """What the shapes of classification share: the forms of labels.

    Args:
        problem_type: As in the model's config.
        labels: All labels, in the order of their numbers, or a mapping from what stands in the file
            to names; unless said, what the source declares, or the distinct ones of the training
            split.
        label_delimiter: What joins several labels in one text.
    """

    problem_type: ProblemType = "single_label_classification"
    labels: Labels = None
    label_delimiter: str | None = None

    targets = ("label",)

    def __post_init__(self) -> None:
        labels = as_said(self.labels)
        names = names_of(labels)
        if self.label_delimiter == "":
            raise UserError("data.label_delimiter is empty: give what parts two labels, as '|'.")
        if len(names) == 1 and self.problem_type != "regression":
            raise UserError(f"data.labels names {names[0]} alone: there are two labels or more.")
        object.__setattr__(self, "labels", labels)

    @property
    def label_names(self) -> list[str] | None:
        """The labels in the order of their numbers; None in regression."""
        return None if self.known is None else names_of(self.known)

    @property
    def known(self) -> Labels:
        """The labels, in order or by what stands in the file; None in regression."""
        if self.problem_type == "regression":
            return None
        if self.labels is None:
            raise UserError("the labels are not known without training data: set data.labels.")
        return self.labels

    @property
    def label_values(self) -> dict[str, str] | None:
        """What stands in files to the labels' names; None where these themselves do."""
        return dict(self.labels) if isinstance(self.labels, Mapping) else None

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

    def named(self, rows: Mapping[str, Dataset], where: Mapping[str, Where]) -> Self:
        """Return the shape with the number that each label stands for, where files hold numbers."""
        if not isinstance(self.labels, list) or self.problem_type == "regression":
            return self
        found = {s: self._values(one) for s, one in rows.items() if "label" in one.column_names}
        values = ordered_values(found, self.labels)
        split = next(iter(rows), "")
        declared = isinstance(_inner(rows[split].features.get("label")), ClassLabel)
        labels = in_order(self.labels, values, where[split], declared=declared, gaps=False)
        return self if labels is None else replace(self, labels=labels)

    def _values(self, rows: Dataset) -> list[str]:
        """Return the distinct labels as they stand in a file; none where they are N-hot."""
        feature = rows.features["label"]
        if not isinstance(feature, List):
            inner = feature
            values = rows.unique("label") if isinstance(feature, Value) else []
        elif isinstance(feature.feature, Value) and _hot_names(rows, names_of(self.labels)):
            return []
        else:
            inner = feature.feature
            values = [value for row in rows["label"][:] for value in row or ()]
        if isinstance(inner, ClassLabel):
            return list(inner.names)
        texts = [written(value) for value in values if not is_nothing(value)]
        if self.problem_type == "multi_label_classification" and not isinstance(feature, List):
            delimiter = self.label_delimiter
            texts = [part.strip() for text in texts for part in text.split(delimiter)]
        return list(dict.fromkeys(text for text in texts if text))

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Check the texts, and name the labels."""
        if "label" in rows.column_names:
            kind, delimiter = self.problem_type, self.label_delimiter
            said = None if isinstance(self.labels, Mapping) else self.labels
            names = said or self.declared(rows, where) or None  # which a mapping has as keys
            rows = named_labels(rows, kind, names, delimiter, where.name, self.labels)
            if kind != "multi_label_classification" and "-1" not in (self.labels or names or ()):
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
        encode_labels(rows["label"], self.known, self.problem_type, 0)


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
    is_class = isinstance(inner, ClassLabel)
    arguments["class_names"] = called(inner.names, labels) if is_class else None
    arguments["labels"] = labels if isinstance(labels, Mapping) and not is_class else None
    if several and not is_class:
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


def _unlabelled(rows: Dataset, where: Where) -> Dataset:
    """Take -1 for no label where all rows have it, and say where some have it."""
    found = Counter(rows["label"][:])
    number = found.pop("-1", 0) or found.pop(-1.0, 0)  # a number in regression
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


def ordered_values(found: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[str]:
    """Return the labels of the training split, or of all splits where those are not as many.

    Args:
        found: The distinct labels of each split; a split that has none but -1 is not labelled.
        names: Those that they are to have.
    """
    there = {split: one for split, one in found.items() if list(one) != ["-1"]}
    if len(there.get("train", ())) == len(names):
        return list(there["train"])
    return list(dict.fromkeys(value for one in there.values() for value in one))


def _inner(feature: Any) -> Any:
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


def encode_labels(
    values: Sequence[Any], labels: Labels, problem_type: ProblemType, first_row: int
) -> list[int] | list[float] | list[list[float]]:
    """Turn names into class ids, or into 0.0 and 1.0 by name; numbers stay numbers.

    Args:
        values: The labels of rows, by name.
        labels: All labels in order, or a mapping to their names; None in regression.
        problem_type: As in the model's config.
        first_row: Of the values.

    Raises:
        UserError: A label is missing or unknown.
    """
    ids = {name: number for number, name in enumerate(names_of(labels))}

    def check(row: int, label: Any) -> int:
        if label is None:
            raise UserError(f"row {first_row + row + 1}: one of the labels is missing")
        if label not in ids:
            raise UserError(f"row {first_row + row + 1}: {unknown('label', label, labels)}")
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
    present = [{check(row, label) for label in value} for row, value in enumerate(values)]
    return [[float(number in one) for number in range(len(ids))] for one in present]
