"""What the data modules of classification share."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from hydralight.data.datamodule import DataModule, Purpose
from hydralight.data.labels import ProblemType, distinct, named_labels
from hydralight.data.roles import check_text
from hydralight.errors import UserError


class ClassificationData(DataModule):
    """What text and image classification share: the forms of labels.

    Args:
        problem_type: As in the model's config.
        labels: All labels, in the order of their numbers; unless said, what the source declares,
            or the distinct ones of the training split.
        label_delimiter: What joins several labels in one text.
    """

    targets = ("label",)

    def __init__(
        self,
        *,
        problem_type: ProblemType = "single_label_classification",
        labels: Sequence[str] | None = None,
        label_delimiter: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.problem_type: ProblemType = problem_type
        self.label_delimiter = label_delimiter
        columns = self.columns.get("label")
        self._declared = columns if columns is None or not isinstance(columns, str) else None
        self._labels = [str(label) for label in labels] if labels else None
        if self._labels and len(set(self._labels)) < len(self._labels):
            raise UserError(f"data.labels names a label twice: {', '.join(self._labels)}.")

    @property
    def label_names(self) -> list[str] | None:  # type: ignore[override]
        """The labels in the order of their numbers; None in regression."""
        if self.problem_type == "regression":
            return None
        if self._labels is None:
            train = self.sources().get("train")  # reading it may declare them
            if train is None and not self._declared:
                raise UserError("the labels are not known without training data: set data.labels.")
            self._labels = list(self._declared or distinct(train))
            if len(self._labels) < 2 and self.problem_type == "single_label_classification":
                raise UserError(
                    f"there is only one label in the training data, {self._labels[0]!r}: name "
                    "those that there can be in data.labels."
                )
        return self._labels

    def checked(self, dataset: Dataset, where: str) -> Dataset:
        """Check the texts, and name the labels."""
        for role in self.text_roles:
            if role in dataset.column_names:
                check_text(dataset, role, self.columns.get(role, role), where)
        if "label" not in dataset.column_names:
            return dataset
        feature = dataset.features["label"]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names is not None and self._declared is None:
            self._declared = names
        return named_labels(
            dataset, self.problem_type, self._labels or self._declared, self.label_delimiter, where
        )

    def encode_arguments(self, purpose: Purpose) -> dict[str, Any]:
        """Return what the labels' encoding needs."""
        names = self.label_names if purpose != "predict" else None
        return {"label_names": names, "problem_type": self.problem_type}

    @property
    def target_capacity(self) -> int:
        """Examples of a batch, each with one target, or one a label."""
        several = self.problem_type == "multi_label_classification"
        return self.batch_size * (len(self.label_names or ()) if several else 1)
