"""From a recipe to the optimizer of a model."""

import inspect
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from hydralight.adapters import attached_to
from hydralight.errors import UserError, told
from hydralight.optim.groups import SCALE, Grouping, check_values, parameter_groups
from hydralight.optim.projectors import keep_projectors
from hydralight.optim.schedules import counted
from hydralight.quantization import check_it_can_be_trained
from hydralight.shards import is_sharded

WHOLE = ("GaLore", "APOLLO", "SOAP", "Muon", "Adafactor")


@dataclass(frozen=True)
class Grouped:
    """A recipe of an optimizer, and how its parameters are grouped.

    Args:
        make: Called with the parameter groups.
        grouping: How they are made.
    """

    make: Callable[..., Optimizer]
    grouping: Grouping = field(default_factory=Grouping)

    def __call__(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Build the optimizer of these groups, whose rates are scaled where they say so."""
        optimizer = self.make([{k: v for k, v in one.items() if k != SCALE} for one in groups])
        if self.grouping.layer_decay is not None:
            for group, asked in zip(optimizer.param_groups, groups, strict=True):
                if group.get("lr") is None:
                    raise UserError("optimizer.layer_decay needs optimizer.lr, which is null.")
                group["lr"] *= asked.get(SCALE, 1.0)
        keep_projectors(optimizer)
        return optimizer


def grouped(recipe: Callable[..., Optimizer]) -> Grouped:
    """Return a recipe with its grouping; one that has none takes the usual."""
    return recipe if isinstance(recipe, Grouped) else Grouped(recipe)


def groups_for(recipe: Callable[..., Optimizer], model: nn.Module) -> list[dict[str, Any]]:
    """Return the groups of a model's parameters, as a recipe would have them."""
    return parameter_groups(model, grouped(recipe).grouping)


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
    recipe = grouped(recipe)
    groups = groups_for(recipe, model)
    if is_sharded(model):
        check_shards(recipe)
    with told("optimizer"):
        unfused = scaler or (is_sharded(model) and not takes_shards(recipe.make))
        made = recipe if unfused else Grouped(fused(recipe.make), recipe.grouping)
        optimizer = made(groups)
    if scaler and optimizer.defaults.get("fused"):
        raise UserError(
            "optimizer.fused=true does not go with 16-mixed precision, where a fused "
            "optimizer sees scaled gradients: set optimizer.fused=false."
        )
    return optimizer


def rehearse(
    recipe: Callable[..., Optimizer], scheduler: Callable[..., Any] | None, steps: int = 10
) -> None:
    """Build optimizer and schedule around small matrices, and go through the schedule.

    What they refuse is told before any data is read.

    Raises:
        UserError: one of them does not take its arguments, or the optimizer would evaluate the
            loss another number of times than once a step.
    """
    recipe = grouped(recipe)
    check_backward(recipe)
    check_values(recipe.grouping, recipe.make)
    matrices = dict(recipe.grouping.matrices or {})
    weights = [nn.Parameter(torch.zeros(2, 2)) for _ in range(1 + bool(matrices))]
    groups = [{"params": [one]} for one in weights]
    groups[-1] |= matrices
    with told("optimizer"):
        optimizer = recipe(groups)
    if not isinstance(optimizer, Optimizer):
        raise UserError(f"optimizer: {type(optimizer).__name__} is no optimizer of PyTorch's.")
    if scheduler is not None:
        with told("scheduler"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the optimizer stands still
            schedule = counted(scheduler, lambda: 1.0)(optimizer, steps)
            if not hasattr(schedule, "monitor"):
                for _ in range(steps):
                    schedule.step()
    check_closure(optimizer, weights)


def check_backward(recipe: Grouped) -> None:
    """Refuse optimizers that take their steps within backward, as LOMO does (Lv et al., 2023).

    A gradient is known, and clipped, once all micro-batches of its step have been.
    """
    kind = getattr(recipe.make, "func", recipe.make)
    arguments = inspect.signature(kind).parameters
    if "model" in arguments and "params" not in arguments:
        raise UserError(
            f"optimizer: {kind.__name__} takes its steps within backward, before the gradient of a "
            "step is whole: choose optimizer=adafactor or adamw_8bit, which are small too."
        )


def check_closure(optimizer: Optimizer, weights: list[nn.Parameter]) -> None:
    """Check that an optimizer asks for the gradient of a step once.

    It is of micro-batches that have been, and not of a function that could be called again.

    Args:
        optimizer: Of matrices; they may be changed.
        weights: These.

    Raises:
        UserError: it does not.
    """
    calls: list[None] = []

    def closure() -> Any:
        calls.append(None)
        for number, weight in enumerate(weights):
            weight.grad = torch.full_like(weight, 1.0 + number)
        return torch.tensor(1.0)

    with suppress(Exception), warnings.catch_warnings():  # of small matrices, or of a CPU
        warnings.simplefilter("ignore")
        optimizer.step(closure)
    if len(calls) > 1:
        raise UserError(
            f"optimizer: {type(optimizer).__name__} evaluates the loss {len(calls)} times in a "
            "step, whose micro-batches are evaluated once: choose another."
        )


def check_shards(recipe: Grouped) -> None:
    """Refuse optimizers that look at whole matrices, or at memory, where these are in shards."""
    kind = getattr(recipe.make, "func", recipe.make)
    if kind.__module__.startswith("bitsandbytes.") or kind.__name__ in WHOLE:
        raise UserError(
            f"optimizer: {kind.__name__} needs whole matrices, which trainer=fsdp shards: choose "
            "optimizer=adamw, or trainer=ddp."
        )


def trained(*optimizers: Optimizer) -> list[nn.Parameter]:
    """Return the parameters that optimizers train."""
    return [p for one in optimizers for group in one.param_groups for p in group["params"]]


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
