"""What the classes of a file are called: names for its numbers, or for its words."""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from hydralight.errors import UserError, count, did_you_mean

log = logging.getLogger(__name__)
Labels = Sequence[Any] | Mapping[Any, Any] | None  # names in order; or a value of the file to each
SHOWN = 20  # labels that a message names
_NUMBER = re.compile(r"-?\d+")


def written(value: Any) -> str:
    """Return a value of a file as a text; a column of integers with a gap is read as floats."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def is_nothing(value: Any) -> bool:
    """Whether a value of a file is none: null, or NaN, which stands for it in tables."""
    return value is None or value != value


def as_said(labels: Labels) -> list[str] | dict[str, str] | None:
    """Return `data.labels` as texts: names in order, or values of the file to names.

    Several values may have one name, which makes one class of them.

    Raises:
        UserError: a list has a name twice, or one is no name.
    """
    if not labels:
        return None
    if isinstance(labels, Mapping):
        for value, name in labels.items():
            if not _is_name(name):
                raise UserError(f"data.labels names {value} nothing: give {{{value}: a name}}.")
        return {written(value): str(name) for value, name in labels.items()}
    for place, name in enumerate(labels, start=1):
        if not _is_name(name):
            raise UserError(f"data.labels: the {place}. label, {name!r}, is no name.")
    names = [str(label) for label in labels]
    if len(set(names)) < len(names):
        raise UserError(f"data.labels names a label twice: {', '.join(names)}.")
    return names


def _is_name(name: Any) -> bool:
    return isinstance(name, str | int | float) and bool(str(name).strip())


def names_of(labels: Labels) -> list[str]:
    """Return the names in the order of their numbers, each once."""
    named = labels.values() if isinstance(labels, Mapping) else labels or ()
    return list(dict.fromkeys(map(str, named)))


def labels_to_use(said: Labels, trained: Labels, own_run: bool) -> Labels:
    """Return the labels of the data that a trained model is to see.

    Args:
        said: `data.labels`; a mapping may say what stands in other files for the model's labels.
        trained: The model's, with what stood for them in the file that it was trained on; None
            where it has no names for them.
        own_run: Whether it is a run's, which was trained with these labels and no others.

    Raises:
        UserError: they are others than a run was trained with.
    """
    names, wanted = names_of(trained), names_of(said)
    if not said or not names:
        return said or trained
    if isinstance(said, Mapping) and set(wanted) == set(names):
        values = as_said(said)
        assert isinstance(values, dict)
        return {v: name for name in names for v, one in values.items() if one == name}
    if wanted == names:
        return trained or said
    if own_run:
        raise UserError(f"data.labels: the run was trained with {', '.join(names)}: leave it out.")
    return said


def called(names: Sequence[str], labels: Labels) -> list[str]:
    """Return what the classes that a source declares are called.

    A mapping speaks of their names or, where it has none of these, of their numbers.
    """
    if not isinstance(labels, Mapping):
        return list(names)
    by_name = any(name in labels for name in names)
    return [labels.get(n if by_name else str(i), n) for i, n in enumerate(names)]


def in_order(
    names: Sequence[str], values: Sequence[str], where: object, *, declared: bool, gaps: bool
) -> dict[str, str] | None:
    """Return which value of a file each name stands for, where numbers are named in their order.

    Args:
        names: Those of `data.labels`.
        values: The distinct values, or the classes that the source declares, in its order.
        where: What messages call the data.
        declared: Whether the source declares them.
        gaps: Whether the last numbers may not come at all.

    Returns:
        Values to names; None where the values are names already, or words, which are not named by
        their order.

    Raises:
        UserError: there are more names than numbers, or fewer.
    """
    known = {name.casefold() for name in names}
    numbers = all(_NUMBER.fullmatch(value) for value in values)
    switches = {*values} <= {"False", "True"}
    if not values or known & {value.casefold() for value in values}:
        return None
    if all(_NUMBER.fullmatch(name) for name in names) or not (numbers or switches or declared):
        return None
    ordered = (
        sorted(values, key=int) if numbers else ["False", "True"] if switches else list(values)
    )
    if numbers and len(ordered) != len(names):
        there = {*map(int, ordered)}
        for start in (0, 1):  # some do not come in the data
            span = range(start, start + len(names))
            ends = {span[0]} if gaps and start == 0 else {span[0], span[-1]}
            if ends <= there <= {*span}:
                ordered = [str(number) for number in span]
    if len(ordered) != len(names):
        pairs = list(zip_longest(ordered, names, fillvalue="…"))[:SHOWN]
        line = ", ".join(f"{value}: {name}" for value, name in pairs)
        are = f"{'is' if len(ordered) == 1 else 'are'} {len(ordered)} ({_some(ordered)})"
        raise UserError(
            f"{where}: data.labels names {count(len(names), 'label')}, and in the data there "
            f"{are}: say which is which, as in 'data.labels={{{line}}}'."
        )
    log.info("data.labels: %s", _some(f"{v} is {n}" for v, n in zip(ordered, names, strict=True)))
    return dict(zip(ordered, names, strict=True))


def unknown(what: str, value: Any, labels: Labels) -> str:
    """Return what a message says of a label (or tag) that is none of the labels."""
    if not isinstance(labels, Mapping):
        known = list(labels or ())
        near = did_you_mean(str(value), known)
        return (
            f"the {what} {value!r} is not known{near} (there are: {_some(known)}; data.labels "
            "names others)"
        )
    pairs = _some(f"{value}: {name}" for value, name in labels.items())
    return f"the {what} {value!r} has no name in data.labels (which names {pairs}): add it there"


def _some(texts: Iterable[str]) -> str:
    known = list(texts)
    return ", ".join(known[:SHOWN]) + (", …" if len(known) > SHOWN else "")


def tell_of_two(names: Sequence[str]) -> None:
    """Say which of two words comes second, and has the `f1`: the alphabet does not know."""
    if len(names) == 2 and not all(
        name.lstrip("-").isdigit() or name in ("False", "True") for name in names
    ):
        log.info(
            "f1 is that of '%s', the second label; 'data.labels=[%s, %s]' makes it that of '%s'",
            *(names[1], names[1], names[0], names[0]),
        )


def check_whole_numbers(values: Sequence[Any], where: Any) -> None:
    """Refuse labels with fractions, which nobody has said to be classes.

    Raises:
        UserError: there are some.
    """
    parts = [v for v in values if isinstance(v, float) and math.isfinite(v) and v % 1]
    if parts:
        raise UserError(
            f"{where}: there are labels such as {parts[0]}: data.problem_type=regression "
            "optimized_metric=val/spearman predicts numbers; data.labels names classes."
        )
