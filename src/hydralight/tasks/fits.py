"""Whether a checkpoint is of the same training as the one that is to go on from it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from hydralight.errors import UserError
from hydralight.optim.build import grouped

NEEDED = ("state_dict", "optimizer_states", "lr_schedulers", "loops")
KERNELS = ("fused", "foreach", "capturable", "differentiable")  # how, not what


def trained_by(task: Any, optimizer: Optimizer, scheduler: Any) -> dict[str, Any]:
    """Return what a checkpoint says of the optimizer and the schedule whose states it holds.

    Args:
        task: Whose parameters are trained, with the recipes that have built these.
        optimizer: The optimizer.
        scheduler: The schedule; None where there is none.

    Returns:
        Plain values: the classes, what they were built with, the names of the parameters of each
        group, and how many parameters have a state.
    """
    names = {id(p): name for name, p in task.named_parameters()}
    return {
        "optimizer": class_of(optimizer),
        "scheduler": kind_of(scheduler),
        "parameters": [
            [names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups
        ],
        "states": len(optimizer.state),
        "settings": settings_of(task, optimizer),
    }


def settings_of(task: Any, optimizer: Optimizer) -> dict[str, Any]:
    """Return what an optimizer and its schedule were built with, as plain values by key.

    Args:
        task: With the recipe of the optimizer, and of the schedule if there is one.
        optimizer: Its `defaults` are neither changed by a schedule nor by loading a state.
    """
    recipe = task.scheduler
    arguments = {} if recipe is None else inspect.signature(recipe).parameters
    options = {name: one.default for name, one in arguments.items()}
    options |= getattr(recipe, "keywords", {})
    values = {f"optimizer.{n}": v for n, v in optimizer.defaults.items() if n not in KERNELS}
    values |= {f"scheduler.{name}": value for name, value in options.items()}
    values |= grouped(task.optimizer).grouping.settings()
    return {n: _plain(v) for n, v in values.items() if v is not inspect.Parameter.empty}


def _plain(value: Any) -> Any:
    """Return a value that a checkpoint can hold and that can be compared."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else getattr(value, "__qualname__", class_of(value))


def class_of(thing: object) -> str:
    """Return a class by its dotted name."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def kind_of(scheduler: Any) -> str | None:
    """Return the kind of a schedule: its class, and the functions that it multiplies by."""
    if scheduler is None:
        return None
    functions = [getattr(f, "func", f) for f in getattr(scheduler, "lr_lambdas", ())]
    names = sorted({getattr(f, "__qualname__", class_of(f)) for f in functions})
    return " ".join([class_of(scheduler), *names])


def check_loaded(checkpoint: Mapping[str, Any], own: Mapping[str, Any], callbacks: Any) -> None:
    """Compare the names and shapes of weights, and which callbacks keep a state.

    Args:
        checkpoint: A loaded checkpoint.
        own: The `state_dict` of what is to go on.
        callbacks: The trainer's. One that is new begins anew.

    Raises:
        UserError: something is missing, or the first thing that differs.
    """
    for key in NEEDED:
        if key not in checkpoint:
            raise UserError(f"the checkpoint has no {key}: nothing can go on from it.")
    saved = checkpoint["state_dict"]
    for name in [*own, *(name for name in saved if name not in own)]:
        if name not in saved:
            raise _different(f"it has no weight {name}, and the model has")
        if name not in own:
            raise _different(f"it has a weight {name}, and the model has not")
        before, now = _shape(saved[name]), _shape(own[name])
        if before != now:
            raise _different(f"{name} is {before} in it, and {now} in the model")
    there = {_name(callback.state_key) for callback in callbacks}
    for key in map(_name, checkpoint.get("callbacks", {})):
        if key not in there:
            raise _different(f"it holds the state of {key}, which is no callback now")


def check_training(
    checkpoint: Mapping[str, Any],
    task: Any,
    optimizer: Optimizer,
    scheduler: Any,
) -> None:
    """Compare what is trained and by what, before the states of a checkpoint are loaded.

    Loading them overwrites what an optimizer was built with, as its learning rate.

    Raises:
        UserError: the first thing that differs, or states are missing.
    """
    now = trained_by(task, optimizer, scheduler)
    saved = checkpoint.get("trained", {**now, "states": 0})  # earlier versions did not say
    for what in ("optimizer", "scheduler"):
        if saved[what] != now[what]:
            raise _different(f"its {what} is {saved[what]}, and now it is {now[what]}")
    was, became = saved.get("settings", now["settings"]), now["settings"]
    for key in sorted(was.keys() & became.keys()):  # a library's new argument is no difference
        if was[key] != became[key]:
            raise _different(f"its {key} is {was[key]}, and now it is {became[key]}")
    before, after = (
        {name: place for place, group in enumerate(one["parameters"]) for name in group}
        for one in (saved, now)
    )
    for name in {**after, **before}:
        if (name in before) != (name in after):
            how = (
                "was trained, and now is frozen" if name in before else "was frozen, and now is not"
            )
            raise _different(f"{name} {how}")
    if saved["parameters"] != now["parameters"]:
        raise _different("the parameters are in other groups now")
    states = checkpoint["optimizer_states"]
    if len(states) != 1 or len(states[0].get("state", ())) < saved["states"]:
        raise UserError("states of the optimizer are missing in the checkpoint: nothing can go on.")
    if len(checkpoint["lr_schedulers"]) != (scheduler is not None):
        raise UserError("the state of the schedule is missing in the checkpoint.")


def _name(state_key: str) -> str:
    return state_key.partition("{")[0]  # behind it are the arguments, which may change


def _shape(weight: Any) -> str:
    shape: Sequence[int] = getattr(weight, "shape", ())
    return " by ".join(map(str, shape)) or "one number"


def _different(how: str) -> UserError:
    return UserError(
        f"the checkpoint is of another training: {how}; resume it as it was, or begin another run."
    )
