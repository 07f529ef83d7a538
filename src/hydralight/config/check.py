"""Whether a config's keys and types are those of what it names."""

import importlib.metadata
import inspect
import logging
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydralight.config import ranges
from hydralight.config.ranges import Format, Seed, Text
from hydralight.config.whitelist import allowed, may_be_called, whitelist
from hydralight.errors import UserError, did_you_mean, first_line

# What a group's keys are dealt out to, beside the class that its `_target_` names.
PARTS = {
    "data": (
        "hydralight.data.source.Source",
        "hydralight.data.splits.Splits",
        "hydralight.data.mix.Mix",
        "hydralight.data.encoding.Encoding",
        "hydralight.data.batches.Batching",
        "hydralight.data.corpus.corpus.Corpus",
    ),
    "optimizer": ("hydralight.optim.groups.Grouping",),
}
SOURCED = "data"  # whose target takes its own keys alone, and which may name a source


def targets(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yield every node with a `_target_`, with its dotted path."""
    if isinstance(node, ListConfig):
        for index, child in enumerate(node):
            yield from targets(child, f"{path}[{index}]")
    elif isinstance(node, DictConfig) and not node._is_none():
        if node.get("_target_") is not None:
            yield path, node
        for key in map(str, node):
            child = node._get_node(key)
            if child is not None and child._is_interpolation():  # to a node, or makes one
                with suppress(OmegaConfBaseException):
                    child = node[key]
            if isinstance(child, DictConfig | ListConfig):
                yield from targets(child, f"{path}.{key}" if path else str(key))


def parameters(target: Any) -> tuple[dict[str, Any], bool]:
    """Return the keyword arguments a callable takes with their types, and whether it takes any."""
    function = target
    if inspect.isclass(target):
        # torchmetrics' wrappers of tasks are made by `__new__`
        own = next(vars(c) for c in target.__mro__ if {"__init__", "__new__"} & vars(c).keys())
        function = own.get("__init__") or own["__new__"].__func__
    if function is object.__init__:
        return {}, False
    function = inspect.unwrap(function)
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError:  # a type that its module imports for type checkers only
        hints = {}
    known = inspect.signature(function).parameters.values()
    named = [p for p in known if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    hints |= ranges.of_library(target)
    accepted = {p.name: hints.get(p.name, Any) for p in named if p.name not in ("self", "cls")}
    accepted |= ranges.of_ours(target)
    return accepted, any(p.kind is p.VAR_KEYWORD for p in known)


def check_targets(cfg: DictConfig) -> None:
    """Check every `_target_` of a config, and its arguments' names and plain types.

    Raises:
        UserError: a target that is not on the whitelist or does not exist, an argument it does
            not take, a value of the wrong type or out of its range, or one that is missing.
    """
    for path, node in targets(cfg):
        accepted: dict[str, Any] = {}
        open_ended = False
        for key, name in targets_of(path, node).items():
            own, more = parameters(named(key, name))
            accepted = {**own, **accepted}
            # of data, `**kwargs` of a part get nothing
            open_ended = open_ended or (more and path != SOURCED)
        _check_arguments(path, node, accepted, open_ended)


def targets_of(path: str, node: DictConfig) -> dict[str, str]:
    """Return what a node's keys go to, by the key that names it.

    That is its target; of a group whose keys are dealt out also its parts, and `source`, which
    names a source of the user's own.
    """
    names = {f"{path}._target_": str(node["_target_"])}
    if path in PARTS:
        names |= {part: part for part in PARTS[path]}
    if path == SOURCED:
        source = node.get("source")
        if isinstance(source, str):
            names[f"{path}.source"] = source
        elif isinstance(source, DictConfig) and source.get("_target_") is not None:
            names[f"{path}.source._target_"] = str(source["_target_"])
        elif source is not None:
            raise UserError(
                f"{path}.source={source} should be the dotted name of a function or class, or "
                "{_target_: name, …}."
            )
    return names


def named(key: str, name: str) -> Any:
    """Return what a dotted path names, if the whitelist lets a config name it."""
    from hydra.utils import get_object

    if not allowed(name):
        raise UserError(
            f"{key}={name} is not on the whitelist: code of your own is named in the whitelist of "
            "[tool.hydralight] in your pyproject.toml."
        )
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it says the same on its own
    try:
        found = get_object(name)
    except (ImportError, AttributeError, ValueError) as error:
        package = name.partition(".")[0]
        if getattr(error.__cause__, "name", None) == package != "hydralight":
            raise UserError(
                f"{key}={name} needs a package that is not installed: pip install "
                f"{needed(error.__cause__ or error) or package}"
            ) from error
        raise UserError(f"{key}={name} cannot be imported ({first_line(error)}).") from error
    if not callable(found):
        raise UserError(f"{key}={name} is no function and no class.")
    # a module's attributes are also what it imports: where a thing is from decides
    origin = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if not (allowed(origin) or name in whitelist()):
        raise UserError(f"{key}={name} is {origin}, which is not on the whitelist.")
    if not (may_be_called(found, origin) or name in whitelist()):
        raise UserError(
            f"{key}={name} is a function that is not on the whitelist: name a class, or a function "
            "of your own."
        )
    return found


def needed(error: BaseException) -> str | None:
    """Return what pip is to install, where a package is not there; an extra of ours, if it is."""
    if not isinstance(error, ImportError):
        return None
    named = re.search(r"pip install (?:-U )?['\"`]?([\w.-]+)", str(error))
    named = named or re.search(r"The ['\"]([\w.-]+).*was not found", str(error))
    name = named[1] if named else (error.name or "").partition(".")[0]
    if not name:
        return None
    for line in importlib.metadata.requires("hydralight") or []:
        written = re.escape(name).replace("_", "[-_]")  # a package has a dash where a module cannot
        extra = re.search(rf"^{written}\b.*extra == ['\"](\w+)['\"]", line)
        if extra and extra[1] not in ("all", "dev"):
            return f"'hydralight[{extra[1]}]'"
    return name


def _check_arguments(
    path: str, node: DictConfig, accepted: Mapping[str, Any], open_ended: bool
) -> None:
    for key in map(str, node):
        if key in ("_target_", "_partial_", "_recursive_", "_convert_", "_args_"):
            continue
        if key == "source" and path == SOURCED:  # a dotted path, which has been looked up
            continue
        if key not in accepted and not open_ended:
            takers = [
                name for name in targets_of(path, node).values() if name not in PARTS.get(path, ())
            ]
            short = " or ".join(name.rsplit(".", 1)[-1] for name in takers)
            raise UserError(
                f"{path}.{key}: {short} has no argument '{key}'{did_you_mean(key, accepted)}"
            )
        if OmegaConf.is_missing(node, key):
            raise UserError(f"{path}.{key} has no value: give one as {path}.{key}=…")
        value = node[key]
        if value is not None:
            ranges.check(f"{path}.{key}", value, accepted.get(key, Any))


ROOT_TYPES: dict[str, Any] = {
    "checkpoint": Text | None,
    "precision": Text | int,
    "seed": Seed,
    "tags": Sequence[Any] | None,
    "trust": Sequence[str] | None,
    "optimized_metric": Text,
    "check": bool,
    "test": bool,
    "resume": Text | None,
    "sweep": Text | None,
    "run": Text | None,
    "split": Text | None,
    "harness": Text | Sequence[str] | None,
    "harness_tasks": Text | None,
    "harness_options": Mapping[str, Any] | None,
    "output": Text | None,
    "format": Format | None,
    "repo": Text | None,
    "private": bool | None,
    "revision": Text | None,
}

GROUPS = "task model tokenizer generation data optimizer scheduler trainer callbacks logger paths"
ROOT_KEYS = (*ROOT_TYPES, *GROUPS.split(), "hparams_search", "debug", "input")


def check_root(cfg: DictConfig) -> None:
    """Check the types of the keys that stand alone.

    Raises:
        UserError: one is not known, or of the wrong type.
    """
    for key in map(str, cfg):
        if key not in ROOT_KEYS:
            raise UserError(f"there is no key '{key}'{did_you_mean(key, ROOT_KEYS)}")
    for key, hint in ROOT_TYPES.items():
        ranges.check(key, cfg.get(key), hint)
    ranges.check("paths.log_dir", OmegaConf.select(cfg, "paths.log_dir"), Text)
    ranges.check_numbers(cfg)
