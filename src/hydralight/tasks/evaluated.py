"""Evaluation by streaming metrics, for one set or several."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from hydralight.errors import UserError, first_line
from hydralight.metrics.loss import TargetMean

Batch = dict[str, Any]
Rows = list[dict[str, Any]]


class EvaluatedModule(LightningModule):
    """Logs loss and metrics as `val/<name>` and `test/<name>`; nothing of the outputs is kept.

    Args:
        metrics: Further metrics by name, updated with what the task says of itself as `preds` and
            `target` (`update_further_metrics`).
    """

    sample_columns: ClassVar[Sequence[str]] = ("prediction", "reference")

    def __init__(self, metrics: Mapping[str, Metric] | None = None) -> None:
        super().__init__()
        self.eval_loss = TargetMean()
        self.metrics = nn.ModuleDict()
        self.further_metrics = nn.ModuleDict()
        for name, metric in (metrics or {}).items():
            if not isinstance(metric, Metric):
                raise UserError(f"task.metrics.{name} should be {{_target_: a metric}}.")
            if "." in name or hasattr(self.further_metrics, name):
                raise UserError(f"task.metrics.{name}: a metric cannot have this name.")
            self.further_metrics[name] = metric
        self._evaluated: list[dict[str, Tensor]] = []  # the values of each set, as it ends

    # ------------------------------------------------------------ what a subclass says

    @property
    def metric_names(self) -> Sequence[str]:
        """The metrics that `build_metrics` leads to, or globs for them; known before the data."""
        return ()

    def build_metrics(self) -> dict[str, Metric]:
        """Return the task's metrics; the data module and the model are there by now.

        A metric whose value is a dict is logged under the names in it.
        """
        return {}

    def loss_and_weight(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch and its weight, the number of targets (scalars)."""
        raise NotImplementedError

    def update_metrics(self, outputs: Any, batch: Batch) -> Rows:
        """Update the metrics with a batch, and return its predictions, a dict a row."""
        raise NotImplementedError

    # ------------------------------------------------------------ evaluation

    @property
    def datamodule(self) -> Any:
        """The data module in use."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Update loss and metrics, and return the predictions."""
        self._end_sets(dataloader_idx)
        return self.evaluation_step(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Any:
        """Update loss and metrics, and return the predictions."""
        return self.evaluation_step(batch)

    def evaluation_step(self, batch: Batch) -> Rows:
        """Update loss and metrics, and return the predictions."""
        outputs = self(batch)
        self.eval_loss.update(*self.loss_and_weight(outputs, batch))
        return self.update_metrics(outputs, batch)

    def update_further_metrics(self, preds: Any, target: Any) -> None:
        """Update the metrics that the config adds, with scores or texts and what is right."""
        for name, metric in self.further_metrics.items():
            try:
                metric.update(preds, target)  # type: ignore[operator]
            except Exception as error:
                raise UserError(f"task.metrics.{name}: {first_line(error)}.") from error

    def on_validation_epoch_end(self) -> None:
        """Log `val/…`, and `val/<name>/…` for each set of `data.extra_eval`."""
        sets = ["", *(f"{name}/" for name in self.datamodule.extra_eval)]
        self._end_sets(len(sets))
        evaluated, self._evaluated = self._evaluated, []
        for name, values in zip(sets, evaluated, strict=True):
            self.log_evaluation(f"val/{name}", values)

    def on_test_epoch_end(self) -> None:
        """Log `test/…`."""
        self.log_evaluation("test/", self._compute())

    def log_evaluation(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        """Log the values of one set."""
        self.log_dict({f"{prefix}{name}": value.float() for name, value in values.items()})
        if self.trainer.state.fn != "validate":
            self.log("step", float(self.trainer.global_step))  # loggers count optimizer steps

    def _end_sets(self, number: int) -> None:
        """Compute the values of the sets before that number; a rank may have no batch of one."""
        while len(self._evaluated) < number:
            self._evaluated.append(self._compute())

    def compute_metrics(self) -> dict[str, Tensor]:
        """Return the metrics' values by name, those of many values under their own names."""
        values: dict[str, Tensor] = {}
        for name, metric in self.metrics.items():
            value = metric.compute()  # type: ignore[operator]
            values |= value if isinstance(value, dict) else {name: value}
        for name, metric in self.further_metrics.items():
            value = metric.compute()  # type: ignore[operator]
            several = value if isinstance(value, dict) else {name: value}
            for key, one in several.items():
                if torch.as_tensor(one).numel() != 1:
                    raise UserError(f"task.metrics.{name} has more than one value: not a number.")
                own = key in values or key == "loss"
                if own and not isinstance(value, dict):
                    raise UserError(f"task.metrics.{name}: the task has a metric of that name.")
                values[f"{name}/{key}" if own else key] = torch.as_tensor(one)
        return values

    def _compute(self) -> dict[str, Tensor]:
        values = {"loss": self.eval_loss.compute(), **self.compute_metrics()}
        for metric in (self.eval_loss, *self.metrics.values(), *self.further_metrics.values()):
            metric.reset()  # type: ignore[operator]
        return values

    def rows(self, batch: Batch, *roles: str, **columns: Sequence[Any]) -> Rows:
        """Lay columns out as one dict a row, beside the row's number and those roles' texts."""
        table = {"row": batch["row"].tolist()}
        table |= {role: batch[role] for role in roles if role in batch}
        table |= {name: list(column) for name, column in columns.items()}
        return [
            dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)
        ]
