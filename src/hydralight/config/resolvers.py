"""What `${…}` can ask for in a config: the direction of a metric, an id of a run."""

import hashlib
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hydralight.config.whitelist import allowed
from hydralight.errors import UserError


def direction(metric: str, *, _root_: Any = None) -> str:
    """Say whether a metric is to be minimised ("min") or maximised ("max").

    A metric of `task.metrics` knows it itself; others are told by their names.

    Raises:
        UserError: the metric cannot tell.
    """
    name = metric.rpartition("/")[2]
    from hydra.utils import get_object

    own = OmegaConf.select(_root_, f"task.metrics.{name}._target_") if _root_ is not None else None
    if own is not None and allowed(str(own)):
        higher_is_better = getattr(get_object(str(own)), "higher_is_better", None)
        if higher_is_better is None:
            raise UserError(
                f"whether more of {metric} is better is not known: say "
                "callbacks.best_model.mode=min or max."
            )
        return "max" if higher_is_better else "min"
    smaller_is_better = r"(loss|perplexity|per_byte|error|rate|wer|cer|ter|mse|mae|rmse|time)$"
    return "min" if re.search(smaller_is_better, metric) else "max"


def run_id(run_dir: str) -> str:
    """Return an id for W&B that is the same whenever a run directory goes on."""
    path = Path(run_dir)
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', path.name)[:40]}-{digest}"


def register_resolvers() -> None:
    """Make `${direction:<metric>}` and `${run_id:<run dir>}` known to OmegaConf."""
    OmegaConf.register_resolver("direction", direction, replace=True)
    OmegaConf.register_resolver("run_id", run_id, replace=True)
