"""Further data sets: some to evaluate too, some to mix into the training rows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt
from datasets import Dataset

from hydralight.errors import UserError, did_you_mean

SET_KEYS = ("path", "name", "revision", "columns", "reader", "split")
MIX_KEYS = (*SET_KEYS, "weight", "prepared")
LAST_STEP = 10_000_000  # of a schedule, whose steps are summed up


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Further data sets by name: each a path, or a mapping of `SET_KEYS`.

    Columns and reader are those of the data itself unless a set says its own.

    Args:
        extra_eval: Sets to evaluate too; their metrics are `val/<name>/…`.
        mix: Sets to train on too, each with a `weight`, the probability of drawing an example from
            it; the rest of 1 is the data's own. A mapping from optimizer steps to weights is a
            schedule, linear between them. `prepared` is the folder of a set that is prepared.
        mix_temperature: Makes the weights from the number of examples of each, to the power of
            1 / temperature: 1 is all of them in one, and a high one as many of each (Arivazhagan
            et al., 2019).
        stopping_strategy: When an epoch ends: before the first set is used up (the data itself is
            one of them), or when the last is.
    """

    extra_eval: Mapping[str, Any] | None = None
    mix: Mapping[str, Any] | None = None
    mix_temperature: Annotated[float, Gt(0)] | None = None
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = "first_exhausted"

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "extra_eval", checked_sets("data.extra_eval", self.extra_eval, SET_KEYS)
        )
        object.__setattr__(self, "mix", checked_sets("data.mix", self.mix, MIX_KEYS))
        if self.mix_temperature is None:
            check_weights({name: schedule(name, one) for name, one in self.sets.items()})
            return
        if not self.sets:
            raise UserError("data.mix_temperature weighs the sets of data.mix, and there are none.")
        for name, one in self.sets.items():
            if one.get("weight") is not None:
                raise UserError(
                    "data.mix_temperature makes the weights from the sizes: leave out "
                    f"data.mix.{name}.weight."
                )

    @property
    def sets(self) -> dict[str, dict[str, Any]]:
        """The sets to train on too, by name."""
        return dict(self.mix or {})

    def check_prepared(self, prepared: str | None) -> None:
        """Look whether the sets can be prepared where the data itself is, or not.

        Args:
            prepared: The folder of the data itself; None where it is not prepared.

        Raises:
            UserError: a set is to be prepared and the data is not, or it has no files.
        """
        for name, one in self.sets.items():
            if prepared is None and one.get("prepared") is not None:
                raise UserError(
                    f"data.mix.{name}.prepared: sets are prepared where the data is: give "
                    "data.prepared=<folder> too."
                )
            for key in ("name", "revision", "split"):
                if prepared is not None and one.get(key) is not None:
                    raise UserError(
                        f"data.mix.{name}.{key}={one[key]} is for data sets of the hub, and "
                        "data.prepared for files: leave one out."
                    )
            if prepared is not None and not re.fullmatch(r"[\w-][\w.-]*", name):
                raise UserError(f"data.mix.{name}: a set that is prepared is a folder; rename it.")

    def weights(self, sizes: Mapping[str, int]) -> list[dict[int, float]]:
        """Return the weights of each set by optimizer steps.

        Args:
            sizes: Encoded examples of the data itself, and of each set.
        """
        if self.mix_temperature is None:
            return [schedule(name, one) for name, one in self.sets.items()]
        powers = np.array([*sizes.values()], dtype=float) ** (1 / self.mix_temperature)
        return [{0: weight} for weight in (powers / powers.sum())[1:].tolist()]

    def aligned(self, train: Dataset, others: Mapping[str, Dataset]) -> dict[str, Dataset]:
        """Return the rows of the sets with the roles of the data itself, and of their kinds.

        Raises:
            UserError: a set has other roles.
        """
        roles = train.column_names
        for name, other in others.items():
            if set(other.column_names) != set(roles):
                raise UserError(
                    f"data.mix.{name} has {', '.join(other.column_names)}, and the training data "
                    f"{', '.join(roles)}: name their columns in data.mix.{name}.columns."
                )
        return {
            name: other.select_columns(roles).cast(train.features) for name, other in others.items()
        }

    def order_settings(self) -> dict[str, Any]:
        """Return what decides on the order of a run's rows."""
        if not self.sets:
            return {"data.mix": None}
        weights = {f"data.mix.{name}.weight": one.get("weight") for name, one in self.sets.items()}
        return {
            "data.mix": ", ".join(self.sets),
            **{key: str(weight) for key, weight in weights.items()},
            "data.mix_temperature": self.mix_temperature,
            "data.stopping_strategy": self.stopping_strategy,
        }


def folder_of(name: str, one: Mapping[str, Any], prepared: str) -> str:
    """Return where a set of a mixture is prepared: beside the shards of the data itself."""
    return one.get("prepared") or f"{prepared.rstrip('/')}/mix/{name}"


def schedule(name: str, one: Mapping[str, Any]) -> dict[int, float]:
    """Return the weight of a set at optimizer steps; one that does not change is said of step 0.

    Raises:
        UserError: it is none.
    """
    said: Any = one.get("weight")
    is_schedule = isinstance(said, Mapping) and bool(said)
    weights: dict[Any, Any] = dict(said) if is_schedule else {0: said}
    found: dict[int, float] = {}
    for step, weight in weights.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_schedule and not (number and 0 < weight < 1):
            break
        if not (number and 0 <= weight < 1 and str(step).isdecimal()) or int(step) > LAST_STEP:
            raise UserError(
                f"data.mix.{name}.weight={said} should be a number, or a mapping from optimizer "
                f"steps (up to {LAST_STEP:,}) to numbers from 0 to 1: {{0: 0.1, 10000: 0.5}}."
            )
        found[int(step)] = float(weight)
    if not any(found.values()):
        raise UserError(
            f"data.mix.{name}.weight={said}: the weights are the probabilities of drawing from "
            "these sets: above 0 each, below 1 in all."
        )
    return found


def check_weights(weights: Mapping[str, Mapping[int, float]]) -> None:
    """Look whether the weights of all sets leave something to the data itself, at any step.

    Raises:
        UserError: they do not.
    """
    for step in sorted({step for one in weights.values() for step in one}):
        now = [np.interp(step, sorted(w), [w[s] for s in sorted(w)]) for w in weights.values()]
        if sum(now) > 1 - 1e-9:
            at = f" at step {step:,}" if any(len(one) > 1 for one in weights.values()) else ""
            raise UserError(
                "data.mix: the weights are the probabilities of drawing from these sets: above 0 "
                f"each, below 1 in all, not {', '.join(f'{one:g}' for one in now)}{at}."
            )


def checked_sets(
    argument: str, sets: Mapping[str, Any] | None, known: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the settings of further data sets, where a path alone is its set's `path`.

    Raises:
        UserError: they are not named, or one has no path, a split's name or an unknown key.
    """
    checked: dict[str, dict[str, Any]] = {}
    if sets is not None and not isinstance(sets, Mapping):
        raise UserError(f"{argument} should name its sets: {{other: other.csv}}.")
    for name, value in (sets or {}).items():
        if name in ("train", "validation", "test", "predict"):
            raise UserError(f"{argument}.{name}: a split has that name; give the set another.")
        if not isinstance(value, str | Mapping):
            raise UserError(f"{argument}.{name}={value} should be a path, or {{path: …}}.")
        one = {"path": value} if isinstance(value, str) else dict(value)
        for key in one:
            if key not in known:
                raise UserError(
                    f"{argument}.{name}: there is no '{key}'{did_you_mean(key, known)} "
                    f"(there are: {', '.join(known)})"
                )
        if one.get("path") is None and one.get("prepared") is None:
            raise UserError(f"{argument}.{name} needs a path.")
        checked[name] = one
    return checked
