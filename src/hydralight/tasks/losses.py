"""Losses as a sum over targets and their weight."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from hydralight.errors import UserError, did_you_mean, first_line
from hydralight.tasks.projection import Unprojected

Weight = Annotated[float, Ge(0)]
ClassWeights = Sequence[Weight] | Mapping[str, Weight] | Literal["balanced"]


def token_cross_entropy(
    logits: Tensor | Unprojected,
    labels: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy and the number of labels that are not -100.

    With class weights that is the sum of the labels' weights.

    Args:
        logits: (batch, …, classes), or what stands in their place.
        labels: (batch, …).
        label_smoothing: Part of the probability that is spread over the classes.
        class_weights: (classes,).
    """
    if isinstance(logits, Unprojected):
        assert class_weights is None, "tokens have no weights"
        return logits.losses(labels, label_smoothing).sum(), (labels != -100).sum()
    flat = labels.reshape(-1)
    loss_sum = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(),
        flat,
        weight=class_weights,
        ignore_index=-100,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    there = flat != -100
    if class_weights is None:
        return loss_sum, there.sum()
    # choosing the labels that are there would wait for the device to say how many they are
    return loss_sum, class_weights[flat.clamp(min=0)].masked_fill(~there, 0).sum()


def label_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the summed binary cross-entropy of labels that may be there or not, and their number.

    Args:
        logits: (batch, labels).
        labels: (batch, labels), 0.0 or 1.0.
        label_smoothing: How far these move towards 0.5, twice over.
        class_weights: (labels,), what a label that is there weighs in the sum.
    """
    targets = labels * (1 - label_smoothing) + label_smoothing / 2
    loss_sum = F.binary_cross_entropy_with_logits(
        logits.float(), targets, pos_weight=class_weights, reduction="sum"
    )
    return loss_sum, number(labels.numel(), labels)


def focal_loss(
    outputs: Any, batch: Mapping[str, Tensor], gamma: Annotated[float, Ge(0)] = 2.0
) -> tuple[Tensor, Tensor]:
    """Return the summed focal loss (Lin et al., 2017), and the number of its targets.

    It weighs easy examples down, and is chosen by config:
    `task.loss._target_=hydralight.tasks.losses.focal_loss`.

    Args:
        outputs: With `logits` (batch, …, classes).
        batch: With `labels` (batch, …), -100 where there is no target; or of the logits' shape.
        gamma: 0 is the cross-entropy.
    """
    logits, labels = outputs.logits.float(), batch["labels"]
    if labels.shape == logits.shape:
        nll = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
        return ((1 - (-nll).exp()) ** gamma * nll).sum(), number(nll.numel(), nll)
    flat = labels.reshape(-1)
    nll = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), flat, ignore_index=-100, reduction="none"
    )
    return ((1 - (-nll).exp()) ** gamma * nll).sum(), (flat != -100).sum()


def custom_loss(
    loss: Callable[[Any, dict[str, Any]], tuple[Tensor, Tensor]],
    outputs: Any,
    batch: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Return the sum and the weight of a loss that the config has chosen.

    Raises:
        UserError: it cannot be called with these, or returns something else.
    """
    try:
        loss_sum, weight = loss(outputs, batch)
        return loss_sum, weight.to(loss_sum.device)
    except Exception as error:
        name = getattr(loss, "func", loss).__name__
        raise UserError(
            f"task.loss: {name} does not go with this task, or does not return a sum and a "
            f"weight as tensors ({first_line(error)})."
        ) from error


def number(value: int, beside: Tensor) -> Tensor:
    """Return a number as a scalar on a tensor's device, which `torch.tensor` would wait for."""
    return torch.full((), value, device=beside.device)


def weights_of_classes(weights: ClassWeights, names: Sequence[str]) -> list[float]:
    """Return a weight for each class, in order.

    Args:
        weights: A list in that order; or by name, 1 where not named.
        names: The classes.

    Raises:
        UserError: the weights do not go with the classes.
    """
    if isinstance(weights, str):
        raise UserError(f"task.class_weights={weights} should be balanced, or a list or mapping.")
    if isinstance(weights, Mapping):
        for name in weights:
            if str(name) not in names:
                raise UserError(
                    f"task.class_weights: there is no label '{name}'"
                    f"{did_you_mean(str(name), names)} (there are: {', '.join(names)})"
                )
        by_name = {str(name): weight for name, weight in weights.items()}
        weights = [by_name.get(name, 1.0) for name in names]
    if len(weights) != len(names):
        raise UserError(
            f"task.class_weights has {len(weights)} values for {len(names)} labels: "
            f"{', '.join(names)}."
        )
    numbers = [isinstance(weight, int | float) and weight >= 0 for weight in weights]
    if not all(numbers) or not any(weights):
        raise UserError(
            f"task.class_weights={list(weights)} should be numbers, none below 0 and not all 0."
        )
    return [float(weight) for weight in weights]
