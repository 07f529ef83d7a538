"""Losses and metrics of evaluated sets, and the callbacks that wait for one of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.wrappers import ClasswiseWrapper

from hydralight.errors import UserError, did_you_mean, first_line
from hydralight.metrics.loss import TargetMean
from hydralight.tasks.shared_batches import SharedBatches

Scores = Mapping[str, tuple[Any, ...]]  # what each metric is updated with, by its name


class Evaluation(nn.Module):
    """The mean loss and the metrics, updated by batches, of one evaluated set after the other.

    Nothing of the batches is kept.

    Args:
        further: Metrics by name beside the task's own (`task.metrics` of the config).

    Raises:
        UserError: one is no metric, or cannot have its name.
    """

    def __init__(self, further: Mapping[str, Metric] | None = None) -> None:
        super().__init__()
        self.loss = TargetMean()
        self.metrics = nn.ModuleDict()
        self.further = nn.ModuleDict()
        for name, metric in (further or {}).items():
            if not isinstance(metric, Metric):
                raise UserError(f"task.metrics.{name} should be {{_target_: a metric}}.")
            if "." in name or hasattr(self.further, name):
                raise UserError(f"task.metrics.{name}: a metric cannot have this name.")
            self.further[name] = metric
        self._sets: list[dict[str, Tensor]] = []  # the values of each set, as it ends
        self._shared: SharedBatches | None = None

    def share(self, rounds: Sequence[int]) -> None:
        """Let all processes be updated with the batches of all, in their order.

        Each then has, to the bit, the values that one process alone would have.

        Args:
            rounds: Of each set that is evaluated next, how many batches this process has.
        """
        self._shared = SharedBatches(rounds, self.loss.device)
        for module in self.modules():
            if isinstance(module, Metric):  # there is nothing to bring together in the end
                module.distributed_available_fn = alone

    def update(self, loss_sum: Tensor, weight: Tensor, scores: Scores) -> None:
        """Add a batch of this process.

        Args:
            loss_sum: The sum of its losses (scalar).
            weight: The number of its targets (scalar).
            scores: The arguments of each metric's `update`, by the metric's name; and as `further`
                those of the further metrics, scores or texts and what is right. Scores are given
                to these in 32 bits at least.

        Raises:
            UserError: a further metric does not go with what it is given.
        """
        if self._shared is None:
            self._update(loss_sum, weight, scores)
            return
        for batch in self._shared.add((loss_sum, weight, scores)):
            self._update(*batch)

    def _update(self, loss_sum: Tensor, weight: Tensor, scores: Scores) -> None:
        self.loss.update(loss_sum, weight)
        for name, metric in self.metrics.items():
            metric.update(*scores[name])  # type: ignore[operator]
        for name, metric in self.further.items():
            if "further" not in scores:
                raise UserError(f"task.metrics.{name}: this task has nothing to update it with.")
            preds, target = scores["further"]
            if isinstance(preds, Tensor) and preds.is_floating_point():
                preds = preds.float()
            try:
                metric.update(preds, target)  # type: ignore[operator]
            except Exception as error:
                raise UserError(f"task.metrics.{name}: {first_line(error)}.") from error

    def compute(self) -> dict[str, Tensor]:
        """Return `loss` and the metrics' values by name, and begin anew.

        A metric whose value is a dict is there under the names in it; that of a further one stands
        behind the metric's own name where the task has such a name too.

        Raises:
            UserError: a further metric's value is not a number, or its name is another's.
        """
        for batch in self._shared.end() if self._shared is not None else ():
            self._update(*batch)
        values = {"loss": self.loss.compute()}
        for name, metric in self.metrics.items():
            values |= by_name(name, metric.compute())  # type: ignore[operator]
        own = set(values)
        for name, metric in self.further.items():
            value = metric.compute()  # type: ignore[operator]
            for key, one in by_name(name, value).items():
                if torch.as_tensor(one).numel() != 1:
                    raise UserError(f"task.metrics.{name} has more than one value: not a number.")
                if key in own and not isinstance(value, dict):
                    raise UserError(f"task.metrics.{name}: the task has a metric of that name.")
                values[f"{name}/{key}" if key in values else key] = torch.as_tensor(one)
        for metric in (self.loss, *self.metrics.values(), *self.further.values()):
            metric.reset()  # type: ignore[operator]
        return values

    def end_sets(self, number: int) -> None:
        """Compute the values of the sets before that number; a rank may have no batch of one."""
        while len(self._sets) < number:
            self._sets.append(self.compute())

    def take_sets(self, number: int) -> list[dict[str, Tensor]]:
        """Return the values of that many sets, and forget them."""
        self.end_sets(number)
        sets, self._sets = self._sets, []
        return sets

    def names(self) -> tuple[list[str], bool]:
        """Return the names that `compute` gives, and whether there may be others.

        A metric of many values says what they are called as `names`; a further one need not.
        """
        names, others = ["loss"], False
        for name, metric in self.metrics.items():
            names += names_of(metric) or [name]
        for name, metric in self.further.items():
            known = names_of(metric)
            others = others or known is None
            names += [f"{name}/{key}" if key in names else key for key in known or [name]]
        return names, others


def alone() -> bool:
    """Return what a metric asks, whether there are other processes."""
    return False


def by_name(name: str, value: Any) -> dict[str, Any]:
    """Return a metric's values by name; a single one has the metric's."""
    return value if isinstance(value, dict) else {name: value}


def names_of(metric: Any) -> list[str] | None:
    """Return what the values of a metric are called, if it says so."""
    if isinstance(metric, ClasswiseWrapper) and metric.labels is not None:
        return list(metric._convert_output(torch.zeros(len(metric.labels))))
    names = getattr(metric, "names", None)
    return None if names is None else list(names)


def rows_of(table: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Lay columns of one length out as one dict a row."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


class Evaluated(Protocol):
    """What logs the values of an evaluation."""

    def evaluated_names(self) -> tuple[list[str], bool]:
        """Return the names of what is logged, and whether there may be others."""


def check_monitors(callbacks: Iterable[Any], task: Evaluated) -> None:
    """Check that callbacks monitor what is logged; the task's metrics have been built by then.

    Raises:
        UserError: one monitors what a validation does not log.
    """
    known, others = task.evaluated_names()
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor is None or monitor in known or (others and monitor.startswith("val/")):
            continue
        raise UserError(
            f"{type(callback).__name__} monitors '{monitor}' (optimized_metric), which is never "
            f"logged: it is not among the metrics of this data: {', '.join(known)}"
            f"{did_you_mean(monitor, known) or '.'}"
        )
