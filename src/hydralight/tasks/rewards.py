"""Functions that say how good completions are, as TRL's `reward_funcs` are called."""

import inspect
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydralight.errors import UserError, first_line

log = logging.getLogger(__name__)
Reward = Callable[..., Sequence[float | None]]
OWN = ("prompts", "completions", "completion_ids")  # what functions are called with beside columns


def made(reward: Any) -> Reward:
    """Return a reward function; one that is an object of a class is made here."""
    if isinstance(getattr(reward, "func", None), type):
        return reward()
    return reward


def names_of(rewards: Sequence[Reward]) -> list[str]:
    """Return a name for each function; several of one name are numbered."""
    found: list[str] = []
    for reward in rewards:
        function = getattr(reward, "func", reward)
        name = getattr(function, "__name__", type(function).__name__)
        same = [one for one in found if one == name or one.startswith(f"{name}_")]
        found.append(f"{name}_{len(same) + 1}" if same else name)
    return found


def judge(
    rewards: Sequence[Reward],
    said: Sequence[str],
    rest: Sequence[str],
    texts: Sequence[str],
    ids: Sequence[list[int]],
) -> Tensor:
    """Return what each function gives each completion (completions, functions) in float32.

    It is NaN where a function does not judge. A function gets `prompts` and `completions`, texts,
    or lists of messages where the prompt is one; `completion_ids`; and the columns of the data that
    it takes, as lists. All lists are as long as there are completions.

    Args:
        rewards: The functions.
        said: The prompt of each completion, as JSON.
        rest: All columns of its row, as JSON.
        texts: The completions.
        ids: Their tokens.

    Raises:
        UserError: a function needs what the data has not, fails, or returns something else.
    """
    prompts = [json.loads(one) for one in said]
    completions: list[Any] = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    rows = [json.loads(one) for one in rest]
    names = dict.fromkeys(name for row in rows for name in row)
    skipped = {*OWN, "prompt", "completion"}
    columns = {name: [row.get(name) for row in rows] for name in names if name not in skipped}
    given = {"prompts": prompts, "completions": completions, "completion_ids": list(ids), **columns}
    values = [
        values_of(reward, name, given)
        for reward, name in zip(rewards, names_of(rewards), strict=True)
    ]
    return torch.tensor(values, dtype=torch.float32).reshape(len(rewards), len(texts)).T


def values_of(reward: Reward, name: str, given: Mapping[str, list]) -> list[float]:
    """Return what a function gives, NaN for None.

    Args:
        reward: The function.
        name: What messages call it.
        given: What there is to call it with, as lists of one length.
    """
    number = len(given["completions"])
    try:
        values = reward(**arguments_of(reward, name, given))
        if isinstance(values, Mapping):
            raise TypeError("it returns a mapping, whose keys are no rewards")
        values = values.tolist() if isinstance(values, Tensor) else list(values)
        # a number of NumPy's, or a tensor of one
        values = [v.item() if isinstance(v, Tensor | np.generic) else v for v in values]
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task.rewards: {name} fails ({first_line(error)}).") from error
    if len(values) != number:
        raise UserError(
            f"task.rewards: {name} returns {len(values)} rewards for {number} completions: it "
            "should return one for each, or None for one that it does not judge."
        )
    for value in values:
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise UserError(
                f"task.rewards: {name} returns {value!r:.40}, which is no finite number: None is "
                "for a completion that it does not judge."
            )
    return [math.nan if value is None else float(value) for value in values]


@cache
def warn_unjudged(functions: str) -> None:
    """Say, once, that there are completions that no function has judged."""
    log.warning(
        "task.rewards: %s judged none of a batch's completions, which teach nothing then", functions
    )


def arguments_of(reward: Reward, name: str, given: Mapping[str, list]) -> dict[str, list]:
    """Return those of the arguments that a function takes.

    Raises:
        UserError: it needs another one.
    """
    parameters = inspect.signature(reward).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        named = {one.name for one in parameters if one.default is one.empty}
        taken = dict(given)
    else:
        named = {one.name for one in parameters if one.default is one.empty}
        taken = {one.name: given[one.name] for one in parameters if one.name in given}
    kinds = {one.name: one.kind for one in parameters}
    for one in named - given.keys():
        if kinds[one] not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            raise UserError(
                f"task.rewards: {name} needs '{one}', and the data has no such column (there are: "
                f"{', '.join(n for n in given if n not in OWN)})."
            )
    return taken


def total(table: Tensor, weights: Sequence[float] | None) -> Tensor:
    """Return the reward of each completion: the weighted sum over the functions that judge it.

    Args:
        table: (completions, functions), NaN where a function does not judge.
        weights: Of the functions; 1 each unless said.

    Returns:
        (completions,), NaN where none judges.
    """
    weight = torch.ones(table.shape[1]) if weights is None else torch.tensor(list(weights))
    summed = (table * weight.to(table)).nansum(dim=1)
    return summed.masked_fill(table.isnan().all(dim=1), math.nan)


def none_for_nan(values: Tensor) -> list[float | None]:
    """Return numbers, None where there is none."""
    return [None if math.isnan(value) else value for value in values.tolist()]


def digits_in_place(
    completions: Sequence[str], completion_ids: Sequence[Sequence[int]], answer: Sequence[str]
) -> list[float]:
    """Return how many of the digits of each answer stand in their place, as a share.

    Tokens that are too many count as wrong digits, except for the end.
    """
    return [
        sum(one == other for one, other in zip(text.split(), right.split(), strict=False))
        / max(len(ids) - 1, len(right.split()))
        for text, ids, right in zip(completions, completion_ids, answer, strict=True)
    ]


def all_in_place(
    completions: Sequence[str], completion_ids: Sequence[Sequence[int]], answer: Sequence[str]
) -> list[float]:
    """Return 1 where all digits stand in their place and the completion ends there, and else 0."""
    shares = digits_in_place(completions, completion_ids, answer)
    return [float(share == 1.0) for share in shares]
