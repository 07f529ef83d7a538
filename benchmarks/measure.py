"""Alternating rounds, and what they come to: medians, ratios, and whether a target is reached."""

import gc
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

import greenlet

PassOn = Callable[[], Any]  # lets the other sides have their turns


class Spread(TypedDict):
    """One figure over the rounds."""

    median: float
    min: float
    max: float


class Line(TypedDict):
    """One line of the table.

    `ratio` is ours over Trainer's, `ratio_best` over Trainer's at its best, each of the same round.
    `reached` is None where there is no target.
    """

    what: str
    unit: str
    ours: Spread | None
    trainer: Spread | None
    best: Spread | None
    ratio: Spread | None
    ratio_best: Spread | None
    target: str
    reached: bool | None
    note: str


def alternate(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Call each side once a round, in turned order every other round, and return what they return.

    Args:
        sides: Functions by the side's name.
        rounds: How many; each side is called as often.
    """
    returned: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(sides)[::-1]
        for name in names:
            returned[name].append(sides[name]())
    return returned


def in_turns(sides: Mapping[str, Callable[[PassOn], Any]], rounds: int) -> dict[str, list[Any]]:
    """Run the sides as `alternate` does, but by turns within a round, whenever they pass on.

    What else the machine does then falls on all of them alike. They share one thread: each of
    several would have its own pool of cores, and together they would have too many.

    Args:
        sides: Functions by the side's name, each called with the function that passes on.
        rounds: How many; each side is called as often.
    """
    returned: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(rounds):
        names = list(sides) if number % 2 == 0 else list(sides)[::-1]
        pass_on = greenlet.getcurrent().switch
        begun = {name: greenlet.greenlet(partial(sides[name], pass_on)) for name in names}
        while begun:
            for name, side in list(begun.items()):
                value = side.switch()
                if side.dead:
                    returned[name].append(value)
                    del begun[name]
        gc.collect()  # a trained model is in circles
    return returned


def spread(values: Sequence[float]) -> Spread:
    """Return the median, least and greatest of some values."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def line(
    what: str,
    unit: str,
    sides: Mapping[str, Sequence[float]],
    *,
    ratio_at_least: float | None = None,
    ratio_at_most: float | None = None,
    best_ratio_at_least: float | None = None,
    at_most: float | None = None,
    also: bool = True,
    note: str = "",
) -> Line:
    """Return a line of the table; a target is judged by the median.

    Args:
        what: What is measured.
        unit: Of the figures.
        sides: The figures of `ours`, `trainer` and `best` (Trainer's best settings), by round;
            those that there are.
        ratio_at_least: Target of ours over Trainer's.
        ratio_at_most: The same, where less is better.
        best_ratio_at_least: Target of ours over Trainer's best.
        at_most: Target of our own figure.
        also: What else has to hold, such as that both sides write the same texts.
        note: What else is to be said.
    """
    ours = sides.get("ours", ())
    ratios = [a / b for a, b in zip(ours, sides.get("trainer", ()), strict=False) if b]
    best_ratios = [a / b for a, b in zip(ours, sides.get("best", ()), strict=False) if b]
    judged = [
        ("≥", ratio_at_least, ratios, "of Trainer's"),
        ("≤", ratio_at_most, ratios, "of Trainer's"),
        ("≥", best_ratio_at_least, best_ratios, "of its best"),
        ("≤", at_most, ours, unit),
    ]
    targets, reached = [], also
    for sign, bound, values, of in judged:
        if bound is not None:
            targets.append(f"{sign} {bound:g} {of}")
            value = median(values)
            reached = reached and (value >= bound if sign == "≥" else value <= bound)
    return {
        "what": what,
        "unit": unit,
        "ours": spread(ours) if ours else None,
        "trainer": spread(sides["trainer"]) if sides.get("trainer") else None,
        "best": spread(sides["best"]) if sides.get("best") else None,
        "ratio": spread(ratios) if ratios else None,
        "ratio_best": spread(best_ratios) if best_ratios else None,
        "target": ", ".join(targets),
        "reached": reached if targets or not also else None,
        "note": note,
    }


def apart(function: Callable[..., Any], *arguments: Any, **environment: str | None) -> Any:
    """Call a function in a fresh process, and return what it returns.

    Args:
        function: Named at the top of a module.
        arguments: Its arguments, which can be pickled.
        environment: Variables of that process; None takes one away.
    """
    context = multiprocessing.get_context("spawn")
    with variables(**environment), ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def variables(**environment: str | None) -> Iterator[None]:
    """Set environment variables for what is begun within; None takes one away."""
    before = dict(os.environ)
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def peak_memory() -> float:
    """Return the most memory that this process has had resident, in MiB (Linux)."""
    # not getrusage: a child's figure there begins with its parent's
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found is not None
    return int(found.group(1)) / 1024


def seconds(function: Callable[[], Any]) -> float:
    """Return how long a call takes, by the clock on the wall."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
