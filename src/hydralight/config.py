"""The configuration's rules: which code it may name, and whether its keys and types are right."""

import difflib
import hashlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

CONFIG_DIR = Path(__file__).resolve().parents[2] / "configs"

# What a config may instantiate (Hydra's execution whitelist). Add your own package here, in code:
# a YAML file, which may come with somebody's checkpoint, cannot extend it.
WHITELIST = (
    "hydralight.callbacks.*",
    "hydralight.data.*",
    "hydralight.image_processors.*",
    "hydralight.loggers.*",
    "hydralight.metrics.*",
    "hydralight.models.Pretrained",
    "hydralight.models.Scratch",
    "hydralight.optim.schedule",
    "hydralight.tasks.*",
    "hydralight.tokenizers.Pretrained",
    "hydralight.tokenizers.Trained",
    "lightning.pytorch.callbacks.*",
    "lightning.pytorch.loggers.*",
    "lightning.pytorch.profilers.*",
    "lightning.pytorch.strategies.*",
    "lightning.pytorch.Trainer",
    "optuna.pruners.*",
    "optuna.samplers.*",
    "torch.optim.*",
    "torchmetrics.*",
    "torchvision.transforms.*",
    "wandb.Settings",
)


class UserError(Exception):
    """A mistake at the user's door: its message is the one sentence that is shown."""


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """Return the beginning of a library's message, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".") or type(error).__name__


def direction(metric: str, *, _root_: Any = None) -> str:
    """Say whether a metric is to be minimised ("min") or maximised ("max").

    A metric of `task.metrics` knows it itself; others are told by their names.

    Raises:
        UserError: the metric cannot tell.
    """
    name = metric.rpartition("/")[2]
    from hydra.utils import get_object

    own = OmegaConf.select(_root_, f"task.metrics.{name}._target_") if _root_ is not None else None
    if own is not None and allowed(str(own)):
        higher_is_better = getattr(get_object(str(own)), "higher_is_better", None)
        if higher_is_better is None:
            raise UserError(
                f"whether more of {metric} is better is not known: say "
                "callbacks.best_model.mode=min or max."
            )
        return "max" if higher_is_better else "min"
    smaller_is_better = r"(loss|perplexity|per_byte|error|rate|wer|cer|ter|mse|mae|rmse|time)$"
    return "min" if re.search(smaller_is_better, metric) else "max"


def run_id(run_dir: str) -> str:
    """Return an id for W&B that is the same whenever a run directory goes on."""
    path = Path(run_dir)
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', path.name)[:40]}-{digest}"


def register_resolvers() -> None:
    """Make `${direction:<metric>}` and `${run_id:<run dir>}` known to OmegaConf."""
    OmegaConf.register_resolver("direction", direction, replace=True)
    OmegaConf.register_resolver("run_id", run_id, replace=True)


def allowed(target: str) -> bool:
    """Whether the whitelist lets a config name this dotted path."""
    return any(
        target.startswith(entry[:-1]) if entry.endswith(".*") else target == entry
        for entry in WHITELIST
    )


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
            if isinstance(child, DictConfig | ListConfig):
                yield from targets(child, f"{path}.{key}" if path else str(key))


def parameters(target: Any) -> tuple[dict[str, Any], bool]:
    """Return the keyword arguments a callable takes with their types, and whether it takes any.

    `**kwargs` of one of our classes go to its base classes; those of others may go anywhere.
    """
    mro = inspect.getmro(target) if inspect.isclass(target) else ()
    classes = [c for c in mro if "__init__" in vars(c) and c is not object]
    accepted: dict[str, Any] = {}
    for function in [vars(c)["__init__"] for c in classes] if classes else [target]:
        function = inspect.unwrap(function)
        signature = inspect.signature(function).parameters.values()
        try:
            hints = typing.get_type_hints(function)
        except NameError:  # a type that its module imports for type checkers only
            hints = {}
        for p in signature:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self":
                accepted.setdefault(p.name, hints.get(p.name, Any))
        if not any(p.kind is p.VAR_KEYWORD for p in signature):
            return accepted, False
        if not function.__module__.startswith("hydralight."):
            break
    return accepted, True


def check_targets(cfg: DictConfig) -> None:
    """Check every `_target_` of a config, and its arguments' names and plain types.

    Raises:
        UserError: a target that is not on the whitelist or does not exist, an argument it does
            not take, a number, text or switch of the wrong type, or a value that is missing.
    """
    for path, node in targets(cfg):
        _check_target(path, node)


def _check_target(path: str, node: DictConfig) -> None:
    from hydra.utils import get_object
    from typeguard import TypeCheckError, check_type

    name = str(node["_target_"])
    if not allowed(name):
        raise UserError(f"{path}._target_={name} is not on the whitelist in hydralight/config.py.")
    try:
        accepted, open_ended = parameters(get_object(name))
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path}._target_={name} cannot be imported ({first_line(error)})."
        ) from error
    for key in map(str, node):
        if key in ("_target_", "_partial_", "_recursive_", "_convert_", "_args_"):
            continue
        if key not in accepted and not open_ended:
            short = name.rsplit(".", 1)[-1]
            raise UserError(
                f"{path}.{key}: {short} has no argument '{key}'{did_you_mean(key, accepted)}"
            )
        if OmegaConf.is_missing(node, key):
            raise UserError(f"{path}.{key} has no value: give one as {path}.{key}=…")
        value = node[key]
        if value is None or not isinstance(value, bool | int | float | str):
            continue  # structures are the target's own to judge
        hint = accepted.get(key, Any)
        try:
            check_type(value, hint)
        except TypeCheckError:
            raise UserError(f"{path}.{key}={value} should be {describe(hint)}.") from None


def describe(hint: Any) -> str:
    """Put a type hint into words: `int | None` becomes "int or None"."""
    return " or ".join(dict.fromkeys(_alternatives(hint)))


def _alternatives(hint: Any) -> list[str]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return [str(part) for part in parts]
    if origin in (typing.Union, types.UnionType):
        return [word for part in parts for word in _alternatives(part)]
    return ["None" if hint is type(None) else getattr(hint, "__name__", str(hint))]


ROOT_TYPES: dict[str, Any] = {
    "checkpoint": str | None,
    "precision": str | int,
    "seed": int,
    "optimized_metric": str,
    "check": bool,
    "test": bool,
    "resume": str | None,
}

GROUPS = "task model tokenizer generation data optimizer scheduler trainer callbacks logger paths"
ROOT_KEYS = (*ROOT_TYPES, *GROUPS.split(), "tags", "hparams_search", "debug", "sweep")
ROOT_KEYS += ("run", "split", "input", "output")


def check_root(cfg: DictConfig) -> None:
    """Check the types of the keys that stand alone.

    Raises:
        UserError: one is not known, or of the wrong type.
    """
    for key in map(str, cfg):
        if key not in ROOT_KEYS:
            raise UserError(f"there is no key '{key}'{did_you_mean(key, ROOT_KEYS)}")
    for key, hint in ROOT_TYPES.items():
        value = cfg.get(key)
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            raise UserError(f"{key}={value} should be {describe(hint)}.")
