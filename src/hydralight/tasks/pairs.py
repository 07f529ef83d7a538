"""What tasks of pairs have in common: means over pairs, of evaluations and of each step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import Metric

from hydralight.errors import UserError
from hydralight.metrics.loss import TargetMean
from hydralight.tasks.data import Batch
from hydralight.tasks.evaluation import Scores
from hydralight.tasks.losses import number
from hydralight.tasks.task import Task

NAMES = ("accuracy", "margin", "rewards_chosen", "rewards_rejected")


class PairMetrics(Task):
    """Means over pairs: `accuracy`, `margin`, `rewards_chosen`, `rewards_rejected`.

    A pair counts as accurate where the chosen answer has the higher reward; the margin is that of
    rewards. Steps log them as `train/…`, over the pairs of all their micro-batches.
    """

    _noted: list[Tensor]

    def setup(self, stage: str) -> None:
        """See that there are pairs."""
        if "chosen" not in self.datamodule.shape.roles:
            raise UserError("this task learns from pairs of answers: take data=preference.")

    def rewards(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """Return the rewards of chosen and rejected answers (pairs,)."""
        raise NotImplementedError

    def build_metrics(self) -> dict[str, Metric]:
        """Return the means over pairs."""
        return {name: TargetMean() for name in NAMES}

    def score(self, outputs: Any, batch: Batch, columns: Mapping[str, list]) -> Scores:
        """Sum up over pairs; further metrics get margins, and 1 for each."""
        chosen, rejected = self.rewards(outputs)
        pairs = number(len(chosen), chosen)
        sums = dict(zip(NAMES, sums_of(chosen, rejected), strict=False))
        margins = chosen - rejected
        further = margins, torch.ones_like(margins, dtype=torch.long)
        return {**{name: (one, pairs) for name, one in sums.items()}, "further": further}

    def on_fit_start(self) -> None:
        """Begin to note what the steps make of their pairs."""
        super().on_fit_start()
        self._noted = []

    def loss_and_weight(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the configured loss's sum and weight, the number of pairs."""
        if self.training:
            chosen, rejected = (one.detach() for one in self.rewards(outputs))
            self._noted.append(sums_of(chosen, rejected))
        return Task.loss_and_weight(self, outputs, batch)

    def configure_gradient_clipping(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
        """Finish the step, and say what it made of its pairs, on all devices."""
        super().configure_gradient_clipping(optimizer, *args, **kwargs)
        sums, self._noted = torch.stack(self._noted), []
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.all_gather(sums).flatten(0, -2)  # in their order
        *values, pairs = sums.double().sum(dim=0)
        means = {f"train/{n}": v / pairs for n, v in zip(NAMES, values, strict=True)}
        self._step_metrics = {**self._step_metrics, **means}


def sums_of(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the sums of `NAMES` over pairs, and the number of pairs (5,)."""
    margins = chosen - rejected
    rows = torch.stack([(margins > 0).float(), margins, chosen, rejected, torch.ones_like(chosen)])
    return rows.sum(dim=1)
