"""Parameter groups and learning-rate schedules."""

import inspect
import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from hydralight.adapters import attached_to
from hydralight.config.ranges import Fraction, NotNegative
from hydralight.errors import UserError, told
from hydralight.quantization import check_it_can_be_trained
from hydralight.shards import is_sharded

# Classes of norms: LayerNorm, LlamaRMSNorm, BatchNorm2d; not NormedEmbedding, whose norm is fixed.
NORM = re.compile(r"Norm(?!ed|al)")


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return two groups of trainable parameters: all but biases and norms, and those.

    The first takes the optimizer's own weight decay, the second none. A norm is known by its
    class, whatever the model calls it (transformers' Trainer goes by names, and decays `norm1` and
    `norm_f`); a bias by its name, also where that is a table, as T5's `relative_attention_bias` is.
    """
    norms = (module for module in model.modules() if NORM.search(type(module).__name__))
    spared = {id(p) for norm in norms for p in norm.parameters(recurse=False)}
    spared |= {id(p) for name, p in model.named_parameters() if "bias" in name.lower()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise UserError("model.freeze leaves no parameter to train.")
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if id(p) not in spared]},
        {"params": [p for p in trainable if id(p) in spared], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def take_up(scheduler: Any) -> None:
    """Set the learning rates of a restored schedule to its own values at its step.

    Those that were saved are of the schedule that was restored from: that of a run that has been
    extended since is longer.
    """
    if isinstance(scheduler, LambdaLR):
        groups = zip(
            scheduler.optimizer.param_groups,
            scheduler.base_lrs,
            scheduler.lr_lambdas,
            strict=True,
        )
        for group, base, factor in groups:
            group["lr"] = base * factor(scheduler.last_epoch)


def trained(*optimizers: Optimizer) -> list[nn.Parameter]:
    """Return the parameters that optimizers train."""
    return [p for one in optimizers for group in one.param_groups for p in group["params"]]


def build(recipe: Callable[..., Optimizer], model: nn.Module, *, scaler: bool) -> Optimizer:
    """Return the optimizer of a model's trainable parameters, fused where that can be.

    Args:
        recipe: Called with the parameter groups.
        model: The model.
        scaler: Whether gradients are scaled (16-mixed); a fused optimizer would get them so, and
            they could not be clipped.

    Raises:
        UserError: the recipe refuses its arguments, or asks for a fused optimizer there.
    """
    check_it_can_be_trained(model, attached_to(model) is not None)
    groups = parameter_groups(model)
    with told("optimizer"):
        unfused = scaler or (is_sharded(model) and not takes_shards(recipe))
        optimizer = (recipe if unfused else fused(recipe))(groups)
    if scaler and optimizer.defaults.get("fused"):
        raise UserError(
            "optimizer.fused=true does not go with 16-mixed precision, where a fused "
            "optimizer sees scaled gradients: set optimizer.fused=false."
        )
    return optimizer


def rehearse(
    recipe: Callable[..., Optimizer], scheduler: Callable[..., Any] | None, steps: int = 10
) -> None:
    """Build optimizer and schedule around one small matrix, and go through the schedule.

    What they refuse is told before any data is read.

    Raises:
        UserError: one of them does not take its arguments.
    """
    weight = nn.Parameter(torch.zeros(2, 2))
    with told("optimizer"):
        optimizer = recipe([{"params": [weight]}])
    if scheduler is not None:
        with told("scheduler"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the optimizer stands still
            schedule = scheduler(optimizer, steps)
            for _ in range(steps):
                schedule.step()


def fused(recipe: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Return a recipe that takes the optimizer's fused kernels, unless it says how it computes."""
    said = {"fused", "foreach", "capturable", "differentiable"} & getattr(
        recipe, "keywords", {}
    ).keys()
    has = "fused" in inspect.signature(getattr(recipe, "func", recipe)).parameters
    return partial(recipe, fused=True) if has and not said else recipe


def takes_shards(recipe: Callable[..., Optimizer]) -> bool:
    """Whether the fused kernels of an optimizer know what to do with sharded tensors."""
    kind = getattr(recipe, "func", recipe)
    return isinstance(kind, type) and issubclass(kind, torch.optim.Adam)  # AdamW too


def schedule(
    optimizer: Optimizer,
    num_training_steps: int,
    *,
    name: str,
    warmup_steps: NotNegative = 0,
    warmup_ratio: Fraction | None = None,
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
    with told(f"scheduler.name={name} (scheduler.options={options or {}})"):
        return get_scheduler(name, optimizer, warmup_steps, num_training_steps, options or {})
