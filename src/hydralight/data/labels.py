"""Labels of examples, in the forms that files and the hub give them."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from datasets import ClassLabel, Dataset, List, Value

from hydralight.data.label_column import (
    ProblemType,
    distinct,
    hot_names_of,
    inner_of,
    named_labels,
)
from hydralight.data.naming import (
    Labels,
    as_said,
    check_whole_numbers,
    in_order,
    is_nothing,
    names_of,
    tell_of_two,
    unknown,
    written,
)
from hydralight.data.roles import Where, check_texts
from hydralight.data.shape import Columns, Shape
from hydralight.errors import UserError

log = logging.getLogger(__name__)


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
        declared = isinstance(inner_of(rows[split].features.get("label")), ClassLabel)
        labels = in_order(self.labels, values, where[split], declared=declared, gaps=False)
        return self if labels is None else replace(self, labels=labels)

    def _values(self, rows: Dataset) -> list[str]:
        """Return the distinct labels as they stand in a file; none where they are N-hot."""
        feature = rows.features["label"]
        if not isinstance(feature, List):
            inner = feature
            values = rows.unique("label") if isinstance(feature, Value) else []
        elif isinstance(feature.feature, Value) and hot_names_of(rows, names_of(self.labels)):
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
            one = isinstance(rows.features["label"], Value)
            if one and kind == "single_label_classification" and self.labels is None:
                check_whole_numbers(rows.unique("label"), where)
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
        if not declared and self.problem_type == "single_label_classification":
            tell_of_two(names)
        return replace(self, labels=names)

    def check_targets(self, rows: Columns) -> None:
        """Look the labels up."""
        encode_labels(rows["label"], self.known, self.problem_type, 0)


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
