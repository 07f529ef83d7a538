"""What the tasks that choose among labels share: the head's size, and weights of classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydralight.errors import UserError
from hydralight.tasks.losses import ClassWeights, weights_of_classes
from hydralight.tasks.task import Task


@dataclass(kw_only=True, eq=False, repr=False)
class LabelledTask(Task):
    """A task whose labels have names.

    Args:
        class_weights: What each label weighs in the loss: a list in the labels' order, a mapping
            from names (1 where not named), or `balanced`.
    """

    class_weights: ClassWeights | None = None
    weights: Tensor | None = field(init=False)  # (labels,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_weights is not None and self.loss is not None:
            raise UserError("task.loss is a loss of its own: task.class_weights do nothing to it.")
        self.register_buffer("weights", None, persistent=False)

    @property
    def label_names(self) -> Sequence[str]:
        """The labels in the order of their numbers."""
        return self.datamodule.label_names or ()

    def model_arguments(self) -> dict[str, Any]:
        """Return the number of labels and their names."""
        names = dict(enumerate(self.label_names))
        ids = {name: number for number, name in names.items()}
        return {"num_labels": len(names), "id2label": names, "label2id": ids}

    def configure_model(self) -> None:
        """Build the model, and weigh the classes.

        Its config remembers what `balanced` came to, and what stands for the labels in files.
        """
        built = self.model is not None
        super().configure_model()
        if built:
            return
        config = self.model.config
        if self.trainer.state.fn == "fit":
            config.label_values = getattr(self.datamodule.shape, "label_values", None)
            if config.label_values is None:
                del config.label_values
        if self.class_weights is None:
            return
        if self.class_weights == "balanced":
            weights = getattr(config, "class_weights", None)
            if self.trainer.state.fn == "fit" or weights is None:
                weights = self.balanced_weights()
            config.class_weights = weights
        else:
            weights = weights_of_classes(self.class_weights, self.label_names)
        self.weights = torch.tensor(weights, device=self.device)

    def balanced_weights(self) -> list[float]:
        """Return weights that make all classes count alike, as in scikit-learn."""
        counts = label_counts(self.datamodule.encoded("train"), len(self.label_names))
        return [sum(counts) / (len(counts) * max(1, count)) for count in counts]


def label_counts(encoded: Any, num_labels: int) -> list[int]:
    """Return how often each label comes in encoded rows: ids, lists of ids, or lists of 0 and 1."""
    if "labels" not in encoded.column_names:
        raise UserError("task.class_weights=balanced needs labelled training data.")
    counts = np.zeros(num_labels, dtype=np.int64)
    for batch in encoded.select_columns(["labels"]).iter(1000):
        labels = batch["labels"]
        if isinstance(labels[0], list) and isinstance(labels[0][0], float):
            counts += np.asarray(labels).sum(axis=0).astype(np.int64)
        else:
            flat = np.concatenate([np.ravel(row) for row in labels])
            counts += np.bincount(flat[flat >= 0], minlength=num_labels)
    return counts.tolist()
