"""Further data sets: some to evaluate too, some to mix into the training rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
from datasets import Dataset

from hydralight.config.ranges import Seed
from hydralight.errors import UserError, did_you_mean

SET_KEYS = ("path", "name", "revision", "columns", "reader", "split")


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Further data sets by name: each a path, or a mapping of `SET_KEYS`.

    Columns and reader are those of the data itself unless a set says its own.

    Args:
        extra_eval: Sets to evaluate too; their metrics are `val/<name>/…`.
        mix: Sets to train on too, each with a `weight`, the probability of drawing an example from
            it; the rest of 1 is the data's own.
        stopping_strategy: When the mix ends: with the first set that is used up, or with the last
            (`datasets.interleave_datasets`).
        split_seed: Of the draws.
    """

    extra_eval: Mapping[str, Any] | None = None
    mix: Mapping[str, Any] | None = None
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = "first_exhausted"
    split_seed: Seed = 42

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "extra_eval", checked_sets("data.extra_eval", self.extra_eval, SET_KEYS)
        )
        object.__setattr__(self, "mix", checked_sets("data.mix", self.mix, (*SET_KEYS, "weight")))
        weights = [one.get("weight") for one in (self.mix or {}).values()]
        numbers = [float(w) for w in weights if isinstance(w, int | float) and w > 0]
        if len(numbers) < len(weights) or sum(numbers) >= 1:
            raise UserError(
                "data.mix: the weights are the probabilities of drawing from these sets: above 0 "
                f"each, below 1 in all, not {', '.join(map(str, weights))}."
            )

    def interleave(self, train: Dataset, others: Mapping[str, Dataset]) -> Dataset:
        """Draw training rows from the data itself and from the sets of `mix`.

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
        weights = [float(one["weight"]) for one in (self.mix or {}).values()]
        aligned = [other.select_columns(roles).cast(train.features) for other in others.values()]
        return datasets.interleave_datasets(
            [train, *aligned],
            probabilities=[1 - sum(weights), *weights],
            seed=self.split_seed,
            stopping_strategy=self.stopping_strategy,
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
        if one.get("path") is None:
            raise UserError(f"{argument}.{name} needs a path.")
        checked[name] = one
    return checked
