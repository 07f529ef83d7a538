"""Any metric of Hugging Face's `evaluate`."""

from typing import Any

import evaluate

from hydralight.errors import UserError, first_line
from hydralight.metrics.gathered import GatheredMetric


class Evaluate(GatheredMetric):
    """A metric of `evaluate`, computed once from what all processes have seen.

    Args:
        path: Its name on the hub, such as `bleu`, or a local script or folder.
        config_name: A configuration of it, such as `mrpc` of `glue`.
        compute: Arguments of its `compute`, such as `{average: macro}`.

    Raises:
        UserError: it cannot be loaded.
    """

    higher_is_better = None  # each has its own direction

    def __init__(
        self, path: str, config_name: str | None = None, compute: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.arguments = dict(compute or {})
        try:
            self.module = evaluate.load(path, config_name)
        except Exception as error:
            raise UserError(f"the metric {path} cannot be loaded: {first_line(error)}.") from error

    def score(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        """Return those of the metric's values that are numbers."""
        values = self.module.compute(
            predictions=predictions, references=references, **self.arguments
        )
        return {n: v for n, v in (values or {}).items() if isinstance(v, int | float)}
