"""What a sweep searches: Hydra's sweep syntax, read as Optuna's distributions."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
)

from hydralight.errors import UserError
from hydralight.runs.secrets import redact

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Point = dict[str, Any]  # a value for each swept key


def split(arguments: Sequence[str], params: Mapping[str, Any]) -> tuple[list[str], list[Override]]:
    """Divide overrides into those of every trial and those that are swept.

    Args:
        arguments: What was typed.
        params: The space of `hparams_search`, by key; what was typed goes before.

    Returns:
        The overrides of every trial, and the swept ones.
    """
    parser = OverridesParser.create()
    typed = parser.parse_overrides(list(arguments))
    named = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
    for override in named:
        if not override.is_sweep_override():
            raise UserError(
                f"hparams_search.params.{override.key_or_group}={override.value()} is one value: "
                "give a choice(…), a range(…) or an interval(…)."
            )
    for override in [*typed, *named]:
        if override.is_sweep_override() and redact(override.input_line) != override.input_line:
            raise UserError(
                f"{override.key_or_group} sweeps over what looks like a secret, and a study keeps "
                "all values: type a single one."
            )
    swept = {o.get_key_element(): o for o in named}
    fixed = []
    for override, text in zip(typed, arguments, strict=True):
        if override.is_sweep_override():
            swept[override.get_key_element()] = override
        else:
            swept.pop(override.get_key_element(), None)
            fixed.append(text)
    return fixed, list(swept.values())


def distribution(override: Override) -> "BaseDistribution":
    """Return the Optuna distribution of a swept override.

    `interval(a, b)` is uniform over numbers, `int(interval(a, b))` over integers, `range(a, b)`
    over integers below b; `tag(log, …)` makes these logarithmic. `choice(…)` or a list is
    categorical.

    Raises:
        UserError: the sweep says nothing that can be sampled.
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    sweep = override.value()
    assert isinstance(sweep, Sweep)
    log = "log" in sweep.tags
    try:
        if isinstance(sweep, IntervalSweep):
            if isinstance(sweep.start, int) and isinstance(sweep.end, int):
                return IntDistribution(sweep.start, sweep.end, log=log)
            assert sweep.start is not None
            assert sweep.end is not None
            return FloatDistribution(sweep.start, sweep.end, log=log)
        if isinstance(sweep, RangeSweep) and isinstance(sweep.step, int):
            start, stop = sweep.start, sweep.stop
            if isinstance(start, int) and isinstance(stop, int) and sweep.step > 0:
                last = start + (stop - 1 - start) // sweep.step * sweep.step
                return IntDistribution(start, last, step=1 if log else sweep.step, log=log)
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}.") from error
    return CategoricalDistribution(values(override))


def values_distribution(override: Override) -> "BaseDistribution":
    """Return the distribution of a grid's key: the values of its list, each once."""
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution(values(override))


def values(override: Override) -> list[Any]:
    """Return the values of a sweep over a list, in order; numbers as such, all else as typed.

    Raises:
        UserError: it is an interval, which has no list.
    """
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line} is an interval, and a grid takes lists: give its values, or "
            "choose a search (hparams_search=default)."
        )
    return list(dict.fromkeys(number(text) for text in override.sweep_string_iterator()))


def grid(swept: Sequence[Override]) -> list[Point]:
    """Return every combination of the swept lists, the last key's values running fastest."""
    keys = [override.get_key_element() for override in swept]
    return [
        dict(zip(keys, combination, strict=True)) for combination in product(*map(values, swept))
    ]


def ends_of(swept: Sequence[Override]) -> list[Point]:
    """Return two points of the space: all that comes first, and all that comes last."""
    ends: list[Point] = [{}, {}]
    for override in swept:
        sweep = override.value()
        values: list[Any]
        if isinstance(sweep, IntervalSweep):
            values = [sweep.start, sweep.end]
        else:
            values = list(override.sweep_string_iterator())
        for point, value in zip(ends, (values[0], values[-1]), strict=True):
            point[override.get_key_element()] = value
    return ends


def overrides_of(point: Mapping[str, Any]) -> list[str]:
    """Return a point as Hydra's overrides."""
    return [f"{key}={value}" for key, value in point.items()]


def number(text: str) -> Any:
    """Return a finite number where the text is one, else the text."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text
