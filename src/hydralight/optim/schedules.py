"""Learning-rate schedules: transformers', by steps or by evaluations."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from hydralight.config.ranges import Fraction, NotNegative, Positive
from hydralight.errors import UserError, did_you_mean, told

STABLE = "warmup_stable_decay"
BY_EVALUATION = ("reduce_lr_on_plateau", "greedy")
OURS = ("optimizer", "num_training_steps", "num_warmup_steps", "last_epoch")
DECAY = 0.2  # of a run
DRAWN = 48  # places of a curve, at most


def schedule(
    optimizer: Optimizer,
    num_training_steps: int,
    *,
    name: str,
    warmup_steps: NotNegative = 0,
    warmup_ratio: Fraction | None = None,
    warmup_tokens: Positive | None = None,
    decay_steps: Positive | None = None,
    decay_ratio: Fraction | None = None,
    decay_tokens: Positive | None = None,
    options: Mapping[str, Any] | None = None,
    tokens_per_step: float | None = None,
) -> LambdaLR:
    """Return one of transformers' schedules, counted in optimizer steps.

    Warm-up, and the decay of `warmup_stable_decay`, are given as steps, as a part of the run, or as
    tokens; by one of the three. A decay that is longer than what warm-up leaves is cut.

    Args:
        optimizer: Whose learning rate is scheduled.
        num_training_steps: Optimizer steps of the whole run.
        name: `linear`, `cosine`, `constant_with_warmup`, … (`transformers.SchedulerType`).
        warmup_steps: Steps of warm-up.
        warmup_ratio: The same as a part of the run.
        warmup_tokens: The same as tokens of the training data.
        decay_steps: Steps of the decay that ends the run; a fifth of it, unless one is said.
        decay_ratio: The same as a part of the run.
        decay_tokens: The same as tokens.
        options: Further arguments of the schedule, such as `{num_cycles: 2}`.
        tokens_per_step: Mean tokens of an optimizer step, which the run finds out.

    Raises:
        UserError: a length is given twice, the name or an option is unknown, or the schedule is one
            that goes by evaluations.
    """
    from transformers import get_scheduler  # which imports peft and bitsandbytes, if they are there

    if name in BY_EVALUATION:
        config = {"reduce_lr_on_plateau": "reduce_on_plateau"}.get(name, name)
        raise UserError(f"scheduler.name={name} goes by evaluations: choose scheduler={config}.")
    given = dict(options or {})
    total = num_training_steps
    warmup = steps_of("warmup", warmup_steps, warmup_ratio, warmup_tokens, total, tokens_per_step)
    decay = steps_of("decay", decay_steps, decay_ratio, decay_tokens, total, tokens_per_step)
    if decay is not None and name != STABLE:
        raise UserError(f"scheduler: only {STABLE} has a decay of its own length, and not {name}.")
    if name == STABLE and "num_decay_steps" not in given:
        decay = math.ceil(total * DECAY) if decay is None else decay
        given = {"num_decay_steps": max(0, min(decay, total - (warmup or 0))), **given}
    with told(f"scheduler.name={name} (scheduler.options={options or {}})"):
        check_options(name, given)
        return get_scheduler(name, optimizer, warmup or 0, total, given)


def on_evaluation(
    optimizer: Optimizer,
    num_training_steps: int,
    *,
    name: Literal["reduce_lr_on_plateau", "greedy"],
    monitor: str,
    mode: Literal["min", "max"],
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Return a schedule that goes by a metric, and takes a step at each evaluation of a run.

    Args:
        optimizer: Whose learning rate is scheduled.
        num_training_steps: Optimizer steps of the whole run, which make no difference.
        name: PyTorch's `ReduceLROnPlateau`, or transformers' `GreedyLR`.
        monitor: Name of a logged validation metric, such as `val/loss`.
        mode: Whether less or more of it is better.
        options: Further arguments, such as `{factor: 0.5, patience: 2}`, which counts evaluations.

    Raises:
        UserError: an option is unknown, or of a wrong value.
    """
    from transformers import get_scheduler

    given = {"mode": mode, **(options or {})}
    with told(f"scheduler.name={name} (scheduler.options={options or {}})"):
        check_options(name, given)
        made: Any = get_scheduler(name, optimizer, scheduler_specific_kwargs=given)
    made.monitor = monitor
    return made


def steps_of(
    what: str,
    steps: int | None,
    ratio: float | None,
    tokens: int | None,
    total: int,
    tokens_per_step: float | None,
) -> int | None:
    """Return a length in optimizer steps; None where none is given.

    Args:
        what: `warmup` or `decay`.
        steps: The length in steps.
        ratio: Or as a part of the run.
        tokens: Or in tokens.
        total: Steps of the run.
        tokens_per_step: Mean tokens of a step.

    Raises:
        UserError: it is given twice, or in tokens where the data has none.
    """
    said = {"steps": steps or None, "ratio": ratio, "tokens": tokens}
    names = [f"{what}_{unit}" for unit, value in said.items() if value is not None]
    if len(names) > 1:
        raise UserError(f"scheduler: give {names[0]} or {names[1]}, not both.")
    if ratio is not None:
        return math.ceil(total * ratio)
    if tokens is not None:
        if not tokens_per_step:
            raise UserError(f"scheduler.{what}_tokens: the examples of this data have no tokens.")
        return math.ceil(tokens / tokens_per_step)
    return steps


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check that a schedule has these options; an unknown name is left to transformers."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR

    classes = {"reduce_lr_on_plateau": ReduceLROnPlateau, "greedy": GreedyLR}
    functions = {kind.value: function for kind, function in TYPE_TO_SCHEDULER_FUNCTION.items()}
    function: Any = classes.get(name, functions.get(name))
    if function is None:
        return
    known = [one for one in inspect.signature(function).parameters if one not in OURS]
    for option in options:
        if option not in known:
            has = f"has {', '.join(known)}" if known else "has none"
            raise UserError(
                f"scheduler.options.{option}: {name} has no such option, and {has}"
                f"{did_you_mean(option, known)}"
            )


def counted(recipe: Callable[..., Any], tokens_per_step: Callable[[], float | None]) -> Any:
    """Return a recipe that knows how many tokens a step has, where it is given in tokens.

    Args:
        recipe: Of a schedule.
        tokens_per_step: Called to count them.
    """
    said = getattr(recipe, "keywords", {})
    if said.get("warmup_tokens") is None and said.get("decay_tokens") is None:
        return recipe
    return partial(recipe, tokens_per_step=tokens_per_step())


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


def rates(recipe: Callable[..., Any], lr: float, total: int, steps: Sequence[int]) -> list[float]:
    """Return the learning rates that a schedule gives to some optimizer steps.

    Args:
        recipe: Called with an optimizer and `total`.
        lr: The rate that it multiplies.
        total: Steps of the run.
        steps: From 0, the first, and rising.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    made = recipe(optimizer, total)
    if isinstance(made, LambdaLR):
        return [lr * made.lr_lambdas[0](step) for step in steps]
    found, at = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer stands still
        for step in steps:
            for _ in range(step - at if isinstance(made, LRScheduler) else 0):
                made.step()
            at = step
            found.append(float(optimizer.param_groups[0]["lr"]))
    return found


def drawn(recipe: Callable[..., Any], lr: float, total: int) -> str:
    """Draw the learning rate over the steps of a run: a line of blocks, and values at marks.

    Args:
        recipe: Of the schedule.
        lr: The rate that it multiplies.
        total: Optimizer steps of the run.
    """
    monitor = getattr(recipe, "keywords", {}).get("monitor")
    if monitor is not None:
        return f"{lr:.3g}, changed at evaluations, by {monitor}"
    places = sorted({round(k * (total - 1) / (DRAWN - 1)) for k in range(DRAWN)})
    values = rates(recipe, lr, total, places)
    top = max(values) or 1.0
    blocks = "".join(" ▁▂▃▄▅▆▇█"[math.ceil(8 * max(0.0, value) / top)] for value in values)
    peak = places[values.index(max(values))]
    marks = sorted({0, peak, total // 2, total - 1})
    said = zip(marks, rates(recipe, lr, total, marks), strict=True)
    return "\n".join([blocks, ", ".join(f"{value:.2g} at step {step + 1}" for step, value in said)])
