"""Whether values are of the types, and in the ranges, that arguments are annotated with.

An argument says its range itself: `fold: NotNegative | None`, `Annotated[float, Gt(0)]`; a text
among the annotations says in words what it should be. What libraries take without a word is said
for them in `LIBRARY`.
"""

import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydralight.errors import UserError

Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]

# What an input holds: a text a line, all of it one text, an object a line; or a table, a file.
Format = Literal["text", "document", "json", "csv", "parquet", "conll"]
Text = Annotated[str, MinLen(1)]
Part = Annotated[float, Interval(gt=0, le=1)]
Batches = NotNegative | Fraction  # so many, or a part of them

LIBRARY: dict[str, dict[str, Any]] = {
    "lightning.pytorch.trainer.trainer.Trainer": {
        "gradient_clip_val": Annotated[float, Gt(0)] | None,
        "gradient_clip_algorithm": Literal["norm", "value"] | None,
        "accumulate_grad_batches": Positive,
        "max_epochs": Annotated[float, Gt(0)] | Literal[-1] | None,  # ours may be a fraction
        "max_steps": Annotated[int, Ge(-1)],
        "min_epochs": NotNegative | None,
        "min_steps": NotNegative | None,
        "val_check_interval": Positive | Part | None,  # so many steps, or a part of an epoch
        "log_every_n_steps": NotNegative | None,
        "check_val_every_n_epoch": Positive | None,
        "limit_train_batches": Positive | Part | None,
        "limit_val_batches": Batches | None,
        "limit_test_batches": Batches | None,
        "limit_predict_batches": Batches | None,
        "overfit_batches": Batches,
        "num_sanity_val_steps": Annotated[int, Ge(-1)] | None,
    },
    "lightning.pytorch.loggers.wandb.WandbLogger": {"log_model": bool | Literal["all"]},
    "lightning.pytorch.callbacks.early_stopping.EarlyStopping": {
        "patience": NotNegative,
        "mode": Literal["min", "max"],
        "check_finite": bool,
    },
    "lightning.pytorch.callbacks.weight_averaging.EMAWeightAveraging": {
        "decay": Fraction,
        "update_every_n_steps": Positive,
        "update_starting_at_step": NotNegative | None,
        "update_starting_at_epoch": NotNegative | None,
    },
}

# arguments of ours, which are taken out before the class is called
OURS: dict[str, dict[str, Any]] = {
    "lightning.pytorch.trainer.trainer.Trainer": {"same_bits": bool},
}

SIGNS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def of_library(target: Any) -> dict[str, Any]:
    """Return the types of those arguments of a library's class that it does not say itself."""
    return LIBRARY.get(_name(target), {})


def of_ours(target: Any) -> dict[str, Any]:
    """Return the types of the arguments that we add to a library's class."""
    return OURS.get(_name(target), {})


def _name(target: Any) -> str:
    return f"{target.__module__}.{getattr(target, '__qualname__', '')}"


def check(key: str, value: Any, hint: Any) -> None:
    """Check a value of a config.

    Args:
        key: Its key, for the message.
        value: A plain value, or a structure of OmegaConf's.
        hint: The annotation of its argument.

    Raises:
        UserError: it is of another type, or out of its range.
    """
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=True)
    if not is_of(value, hint):
        _check_parts(key, value, hint)
        raise UserError(f"{key}={value} should be {describe(hint)}.")
    for place, words in out_of_range(value, hint):
        at = _at(value, place)
        if at == "" or at == []:
            raise UserError(f"{key}{place} is empty: give it a value.")
        raise UserError(f"{key}{place}={at} should be {words}.")


def _check_parts(key: str, value: Any, hint: Any) -> None:
    """Check the values in a structure, so that the message names the one that is wrong."""
    for part in _unions(hint):
        inner = typing.get_args(part)
        if isinstance(value, Mapping) and _holds(part, Mapping) and inner:
            for name, one in value.items():
                if one is not None:
                    check(f"{key}.{name}", one, inner[-1])
        elif isinstance(value, list) and _holds(part, Sequence) and inner:
            for number, one in enumerate(value):
                check(f"{key}[{number}]", one, inner[0])


def check_numbers(node: Any, key: str = "", finite: bool = True) -> None:
    """Check that no number of a config is NaN, or infinite where an architecture does not ask so.

    Raises:
        UserError: one is.
    """
    if isinstance(node, Mapping | DictConfig):
        for name in node:
            inner = f"{key}.{name}" if key else str(name)
            child = node._get_node(name) if isinstance(node, DictConfig) else node[name]
            # the models' own configs know limits that are infinite
            check_numbers(child, inner, finite and inner != "model.config")
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for number, child in enumerate(node):
            check_numbers(child, f"{key}[{number}]", finite)
    else:
        value = node._value() if hasattr(node, "_value") else node
        if isinstance(value, float) and (math.isnan(value) or (finite and math.isinf(value))):
            raise UserError(f"{key}={value} should be a finite number.")


def is_of(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; lists may stand for tuples, and objects for themselves."""
    from typeguard import TypeCheckError, check_type

    if isinstance(value, Mapping) and "_target_" in value:
        return True  # what becomes of it is not known yet
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return is_of(value, parts[0])
    if origin in (typing.Union, types.UnionType):
        return any(is_of(value, part) for part in parts)
    if isinstance(value, list | tuple):
        if origin is tuple and parts and parts[-1] is not Ellipsis:
            return len(value) == len(parts) and all(map(is_of, value, parts))
        if _holds(hint, Sequence):
            return not parts or all(is_of(one, parts[0]) for one in value)
        return not (_is_plain(hint) or _holds(hint, Mapping))
    if isinstance(value, Mapping):
        if _holds(hint, Mapping):
            given = [one for one in value.values() if one is not None]  # null takes a value back
            return not parts or all(is_of(one, parts[-1]) for one in given)
        return not (_is_plain(hint) or _holds(hint, Sequence))
    if isinstance(value, bool) and hint in (int, float):
        return False  # a switch is no number
    if isinstance(value, str) and _holds(hint, Sequence):
        return False  # a text is no list of letters
    try:
        check_type(value, hint)
    except TypeCheckError:
        return False
    return True


def out_of_range(value: Any, hint: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield where in a value, which is of its type, a number is out of range, and what it may be.

    Args:
        value: The value.
        hint: Its annotation.
        place: Where it stands in a structure, such as `[1]`.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        fitting = [part for part in parts if is_of(value, part)]
        found = [list(out_of_range(value, part, place)) for part in fitting]
        if [] not in found:
            yield found[0][0][0], " or ".join(words for all_of in found for _, words in all_of)
    elif origin is Annotated:
        if not all(_inside(value, constraint) for constraint in parts[1:]):
            yield place, words_of(parts[1:])
        else:
            yield from out_of_range(value, parts[0], place)
    elif isinstance(value, list | tuple) and parts:
        for number, one in enumerate(value):
            inner = parts[number] if origin is tuple and parts[-1] is not Ellipsis else parts[0]
            yield from out_of_range(one, inner, f"{place}[{number}]")
    elif isinstance(value, Mapping) and parts:
        for name, one in value.items():
            if one is not None:
                yield from out_of_range(one, parts[-1], f"{place}.{name}")


def describe(hint: Any) -> str:
    """Put a type hint into words: `int | None` becomes "int or None"."""
    return " or ".join(dict.fromkeys(_alternatives(hint)))


def words_of(constraints: Sequence[Any]) -> str:
    """Put constraints into words: "at least 0 and below 1"."""
    if any(isinstance(constraint, MinLen) for constraint in constraints):
        return "something"
    bounds = [
        f"{sign} {getattr(constraint, name)}"
        for constraint in constraints
        for name, sign in SIGNS.items()
        if getattr(constraint, name, None) is not None
    ]
    return " and ".join(bounds)


def _inside(value: Any, constraint: Any) -> bool:
    if isinstance(constraint, Interval):
        return all(_inside(value, part) for part in constraint)
    if isinstance(constraint, MinLen):
        return len(value) >= constraint.min_length
    if isinstance(constraint, Ge):
        return value >= constraint.ge
    if isinstance(constraint, Gt):
        return value > constraint.gt
    if isinstance(constraint, Le):
        return value <= constraint.le
    return not isinstance(constraint, Lt) or value < constraint.lt


def _unions(hint: Any) -> list[Any]:
    """Return the alternatives of a hint, or it alone."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return list(typing.get_args(hint))
    return [hint]


def _holds(hint: Any, kind: type) -> bool:
    """Whether a hint is of lists, or of mappings; of texts, which are lists of letters, no."""
    origin = typing.get_origin(hint) or hint
    return isinstance(origin, type) and origin is not str and issubclass(origin, kind)


def _is_plain(hint: Any) -> bool:
    """Whether a hint is of plain values, of which no structure can be made."""
    plain = (int, float, str, bool, type(None))
    return hint in plain or typing.get_origin(hint) is Literal


def _at(value: Any, place: str) -> Any:
    """Return what stands at a place in a structure."""
    for part in place.replace("[", ".").replace("]", "").split(".")[1:]:
        value = value[int(part)] if isinstance(value, list | tuple) else value[part]
    return value


def _alternatives(hint: Any) -> list[str]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        words = [part for part in parts[1:] if isinstance(part, str)]
        return words or _alternatives(parts[0])
    if origin is Literal:
        return [str(part) for part in parts]
    if origin in (typing.Union, types.UnionType):
        return [word for part in parts for word in _alternatives(part)]
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        return [f"a list of {len(parts)}"]
    if _holds(hint, Mapping):
        return ["a mapping"]
    if _holds(hint, Sequence):
        return ["a list"]
    return ["None" if hint is type(None) else getattr(hint, "__name__", str(hint))]
