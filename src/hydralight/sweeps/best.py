"""Which trials of a sweep are the best."""

from typing import Any

import pandas as pd

from hydralight.sweeps.request import Direction


def best_of(
    table: pd.DataFrame, objectives: list[tuple[str, Direction]]
) -> "pd.Series[Any] | None":
    """Return the row of the best complete trial, by the first objective, then by the others.

    None where there is none.
    """
    if not objectives or any(name not in table for name, _ in objectives):
        return None
    names = [name for name, _ in objectives]
    done = table[(table["state"] == "complete") & table[names].notna().all(axis=1)]
    if done.empty:
        return None
    ascending = [direction == "minimize" for _, direction in objectives]
    return done.sort_values(names, ascending=ascending, kind="stable").iloc[0]


def front_of(table: pd.DataFrame, objectives: list[tuple[str, Direction]]) -> list[Any]:
    """Return the complete trials than which none is better in one objective, and as good in all."""
    done = table[table["state"] == "complete"]
    signs = [1 if direction == "minimize" else -1 for _, direction in objectives]
    costs = (done[[name for name, _ in objectives]] * signs).to_numpy(float)
    front = []
    for trial, cost in zip(done["trial"], costs, strict=True):
        beaten = (costs <= cost).all(axis=1) & (costs < cost).any(axis=1)
        if not beaten.any():
            front.append(trial)
    return front
