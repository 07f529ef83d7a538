"""Optimizers that evaluate other weights than they train: schedule-free ones."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hydralight.optim.build import trained


def averages(optimizer: Optimizer) -> bool:
    """Whether an optimizer has weights to evaluate, an average of its own.

    Schedule-free ones (Defazio et al., 2024) say so by the methods `train` and `eval`.
    """
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


class EvaluationWeights:
    """Puts the average of an optimizer into the model, and takes exactly the others back.

    The optimizer's own way back is a computation, whose rounding would make a training depend on
    how often it is evaluated.

    Args:
        optimizers: Those of the training; others than schedule-free ones are left alone.
    """

    def __init__(self, optimizers: list[Optimizer]) -> None:
        self.optimizers: list[Any] = [one for one in optimizers if averages(one)]
        self._kept: list[Tensor] | None = None

    @torch.no_grad()
    def put(self) -> None:
        """Put the average in, unless it is there."""
        if self._kept is None and self.optimizers:
            self._kept = [p.detach().clone() for p in trained(*self.optimizers)]
            for one in self.optimizers:
                one.eval()

    @torch.no_grad()
    def take_back(self) -> None:
        """Put the weights back that are trained."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            for one in self.optimizers:
                one.train()
            for parameter, before in zip(trained(*self.optimizers), kept, strict=True):
                parameter.copy_(before)
