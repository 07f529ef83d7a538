"""Parameter groups and learning-rate schedules."""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from hydralight.errors import UserError

# The names by which transformers' Trainer knows biases and norm weights.
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return two groups of trainable parameters: all but biases and norms, and those.

    The first takes the optimizer's own weight decay, the second none, as in transformers'
    `Trainer.get_decay_parameter_names`.
    """
    decayed = set(get_parameter_names(model, [nn.LayerNorm], NO_DECAY))
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise UserError("model.freeze leaves no parameter to train.")
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in trainable if name in decayed]},
        {"params": [p for name, p in trainable if name not in decayed], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def fused(recipe: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Return a recipe that takes the optimizer's fused kernels, unless it says how it computes."""
    said = {"fused", "foreach", "capturable", "differentiable"} & getattr(
        recipe, "keywords", {}
    ).keys()
    has = "fused" in inspect.signature(getattr(recipe, "func", recipe)).parameters
    return partial(recipe, fused=True) if has and not said else recipe


def schedule(
    optimizer: Optimizer,
    num_training_steps: int,
    *,
    name: str,
    warmup_steps: int = 0,
    warmup_ratio: float | None = None,
    options: dict[str, Any] | None = None,
) -> LambdaLR:
    """Return one of transformers' schedules, counted in optimizer steps.

    Args:
        optimizer: Whose learning rate is scheduled.
        num_training_steps: Optimizer steps of the whole run.
        name: `linear`, `cosine`, `constant_with_warmup`, … (`transformers.SchedulerType`).
        warmup_steps: Steps of linear warm-up.
        warmup_ratio: The same as a part of the run; only one of the two may be given.
        options: Further arguments of the schedule, such as `{num_cycles: 2}`.

    Raises:
        UserError: both kinds of warm-up, or an unknown name.
    """
    if warmup_ratio is not None:
        if warmup_steps:
            raise UserError("scheduler: give warmup_steps or warmup_ratio, not both.")
        warmup_steps = math.ceil(num_training_steps * warmup_ratio)
    try:
        return get_scheduler(name, optimizer, warmup_steps, num_training_steps, options or {})
    except ValueError as error:
        raise UserError(f"scheduler.name={name}: {error}") from error
