"""What `${…}` can ask for in a config: the direction of a metric, an id of a run."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from hydralight.config.project import choices_of
from hydralight.config.typed import Typed
from hydralight.config.whitelist import allowed
from hydralight.errors import UserError
from hydralight.runs.secrets import is_secret_variable

# Variables that recipes ask for, and that say nothing of their user but places and jobs.
HARMLESS = re.compile(
    r"HOME|USER|LOGNAME|PWD|HOSTNAME|LANG|TZ|SCRATCH|WORK|STORE|TMPDIR|TMP|TEMP|XDG_\w+_(HOME|DIR)"
    r"|HF_HOME|HF_DATASETS_CACHE|HF_HUB_CACHE|TORCH_HOME|CUDA_VISIBLE_DEVICES|OMP_NUM_THREADS"
    r"|RANK|LOCAL_RANK|WORLD_SIZE|NODE_RANK|(SLURM|PBS|LSB|SGE)_\w+"
)


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


def variable(typed: Typed) -> Callable[..., Any]:
    """Return what `${oc.env:NAME}` and `${oc.env:NAME,default}` ask.

    It answers in the place of OmegaConf's own, which gives a config every variable there is, and
    so to the run's files and to dashboards.

    Args:
        typed: What was typed; the variables that are named there, or in `configs/local`, are given.
    """

    def env(name: str, *default: Any) -> Any:
        if name not in os.environ:
            return oc.env(name, *default)
        harmless = HARMLESS.fullmatch(name) and not is_secret_variable(name)
        if not (harmless or typed.trusts("environment") or name in named_variables(typed)):
            raise UserError(
                f"a config asks for the environment's {name}: type trust=[environment] to give it "
                "what it asks for, or name the variable in configs/local."
            )
        return os.environ[name]

    return env


def named_variables(typed: Typed) -> set[str]:
    """Return the variables that are asked for by what was typed, and in `configs/local`."""
    texts = list(typed.arguments)
    texts += [path.read_text() for path in choices_of("local")]
    return {name for text in texts for name in re.findall(r"\$\{\s*oc\.env:\s*(\w+)", text)}


def register_resolvers(typed: Typed | None = None) -> None:
    """Make `${direction:<metric>}` and `${run_id:<run dir>}` known to OmegaConf, and our `oc.env`.

    Args:
        typed: What was typed.
    """
    OmegaConf.register_resolver("direction", direction, replace=True)
    OmegaConf.register_resolver("run_id", run_id, replace=True)
    OmegaConf.register_resolver("oc.env", variable(typed or Typed()), replace=True)
