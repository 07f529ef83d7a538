"""What a config may make an experiment do: run foreign code, write elsewhere, or send things.

A config is somebody's as soon as it was read from a file. So these count only where their very key
was typed or stands in `configs/local`; code also where `trust=[remote_code]` was typed. The rules
go over every value of the resolved config, whichever class it is for.
"""

import inspect
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from inspect import isclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydralight.config.project import choices_of
from hydralight.config.typed import Typed
from hydralight.config.whitelist import allowed
from hydralight.errors import UserError, did_you_mean
from hydralight.stores.written import content_of, is_written

WORDS = ("remote_code", "environment")  # that may be trusted
# Names of arguments by which libraries load code, wherever they stand.
CODE = re.compile(r"trust_remote_code|custom_generate|\w*_name_or_path|\w*_implementation")
# What runs, or unpickles, what its arguments or a study's file bring: where it is defined.
LOADS_SCRIPTS = "hydralight.metrics.evaluate."
UNPICKLES = "optuna.samplers._cmaes."
LOGS = ("lightning.pytorch.loggers.", "wandb.")  # what sends, in whichever group it stands
# Names of arguments that say where something is written.
PLACE = re.compile(r"(\w*_)?(dir|dirs|dirpath|path|root|folder)")
PREPARED = re.compile(r"data\.(mix\.[^.]+\.)?prepared")
NAME = re.compile(r"(\w*_)?(file|files|filename|filepath|name|version|prefix)")
ADDRESS = re.compile(r"(file|sqlite):|[a-z][\w+.-]*://", re.IGNORECASE)
# Names of arguments that say where something is sent, or what is sent beside the metrics.
SENDS = re.compile(
    r"(\w*_)?(url|uri|host|hostname|server|endpoint|address|webhook|dsn|proxy|proxies|entity"
    r"|workspace|token|api_key|credentials|executable|save_code|code_dir|cert|certs|headers)"
)
PUSHES = "hydralight.callbacks.push."  # what sends to the hub while a run trains, and where to
PUSHED = ("repo", "private", "revision")
# Settings of W&B that change nothing of where and what it sends; the others have to be typed.
WANDB_SETTINGS: tuple[str, ...] = (
    "_target_",
    "x_disable_stats",
    "quiet",
    "silent",
    "show_info",
    "show_warnings",
)
WANDB_SETTINGS += ("show_errors", "init_timeout", "x_stats_sampling_interval", "console")
# Groups whose own keys name what is read; a target further in has the rules of any other.
READERS = ("data", "data.source", "model", "tokenizer")
READ = ("task.reference",)  # a model too
WRITERS = ("callbacks", "logger", "trainer", "task", "hparams_search")
# Of a logger, texts that it shows; a name may be that of a folder too, but is no address.
SHOWN = re.compile(r"logger\.[^.\[]+\.(tags|notes)(\[\d+\])?")
SHOWN_NAME = re.compile(r"logger\.[^.\[]+\.(name|group|job_type)")
PROMPTS = ("hydralight.callbacks.samples.Samples", "prompts")  # a file that is read, as data is
TEXTS = "callbacks.best_model.card."  # which are written down, and nothing more
OURS = (
    "hydralight.data.",
    "hydralight.models.",
    "hydralight.tokenizers.",
    "hydralight.processors.",
)


@dataclass(frozen=True)
class Leaf:
    """A value of a config.

    Args:
        path: Its dotted key.
        key: The last part of that.
        value: The value, resolved.
        raw: The value as it stands in the config.
        target: The `_target_` that it is an argument of; "" where there is none.
        at: The dotted key of the node with that target.
    """

    path: str
    key: str
    value: Any
    raw: Any
    target: str
    at: str


def check_trust(
    cfg: DictConfig, typed: Typed, run_dir: Path, groups: Iterable[str] | None = None
) -> None:
    """Refuse what a config that was read would do beside its experiment.

    Args:
        cfg: The composed config.
        typed: What was typed.
        run_dir: The one directory that a config may write to.
        groups: The root keys that are used; all of them unless said.

    Raises:
        UserError: naming the key, and what to type where it is meant.
    """
    said = cfg.get("trust") or []
    for word in [said] if isinstance(said, str) else said:
        if word not in WORDS:
            known = f"{did_you_mean(str(word), WORDS)} (there are: {', '.join(WORDS)})"
            raise UserError(f"trust=[{word}]: there is no such trust{known}")
    local = local_values()
    parts = [key for key in map(str, cfg) if groups is None or key in groups]
    for leaf in leaves_of(cfg, only=parts):
        if leaf.key == "_args_":
            raise UserError(f"{leaf.path}: name the arguments, as in {leaf.at}.<argument>=….")
        if typed.sets(leaf.path) or (leaf.path in local and local[leaf.path] == leaf.raw):
            continue
        code = runs_code(leaf, cfg)
        if code is not None and not typed.trusts("remote_code"):
            raise UserError(
                f"{leaf.path}={leaf.value} would run {code}: type trust=[remote_code] if you "
                "trust it, for this run."
            )
        if writes_elsewhere(leaf, run_dir):
            raise UserError(
                f"{leaf.path}={leaf.value} is outside of the run's directory: type "
                f"{leaf.path}=… if you mean it, or let it begin with ${{paths.output_dir}}."
            )
        if sends(leaf):
            raise UserError(
                f"{leaf.path}={leaf.value} would change what is sent, or where to: type "
                f"{leaf.path}=… if you mean it, or put it in configs/local."
            )


def leaves_of(
    node: Any, path: str = "", target: str = "", at: str = "", only: Iterable[str] | None = None
) -> Iterator[Leaf]:
    """Yield every value of a node that can be resolved; what cannot be can do nothing either."""
    if isinstance(node, DictConfig):
        own = _value(node, "_target_")
        if isinstance(own, str):
            target, at = own, path
        keys: list[Any] = list(node if only is None else only)
    else:
        keys = list(range(len(node)))
    for key in keys:
        value = _value(node, key)
        where = f"{path}[{key}]" if isinstance(node, ListConfig) else f"{path}.{key}".lstrip(".")
        if isinstance(value, DictConfig | ListConfig) and str(key) != "_args_":
            yield from leaves_of(value, where, target, at)
        elif value is not None:
            name = str(key) if isinstance(node, DictConfig) else re.split(r"[.\[]", path)[-1]
            child = node._get_node(key)
            raw = getattr(child, "_value", lambda: None)()
            yield Leaf(where, name, value, raw, target, at)


def _value(node: Any, key: Any) -> Any:
    try:
        child = node._get_node(key)
        return None if child is None or child._is_none() else node[key]
    except OmegaConfBaseException:
        return None


def local_values() -> dict[str, Any]:
    """Return the values of `configs/local`, as they stand there, by their dotted keys."""
    found: dict[str, Any] = {}
    for path in choices_of("local"):
        node = OmegaConf.load(path)
        if isinstance(node, DictConfig):
            found |= {leaf.path: leaf.raw for leaf in leaves_of(node)}
    return found


def runs_code(leaf: Leaf, cfg: DictConfig) -> str | None:
    """Return whose code a value would run; None where it runs none."""
    if leaf.key == "_target_":
        unpickles = defined_in(str(leaf.value), UNPICKLES)
        return "what the study's file unpickles to" if unpickles else None
    if leaf.key == "path" and defined_in(leaf.target, LOADS_SCRIPTS):
        return f"the script of the metric {leaf.value}"
    if ".torch_compile.options" in leaf.path and not isinstance(leaf.value, bool | int | float):
        return "a compiler with options of the config"
    if not CODE.fullmatch(leaf.key) or leaf.value is False:
        return None
    if leaf.key == "trust_remote_code":
        return foreign_code(OmegaConf.select(cfg, f"{leaf.at}.checkpoint") or cfg.get("checkpoint"))
    if leaf.key.endswith("_implementation"):
        return f"the kernels of {leaf.value}" if "/" in str(leaf.value) else None
    return f"code that comes with {leaf.value}"


def defined_in(target: str, prefix: str) -> bool:
    """Whether what a target names, by whichever of its names, is or inherits what is there."""
    return target.startswith(prefix) or any(o.startswith(prefix) for o in origins(target))


@cache
def origins(target: str) -> tuple[str, ...]:
    """Return where what a target names is defined, and its bases; nothing for what is refused."""
    from hydra.utils import get_object

    if not allowed(target):
        return ()
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it is told elsewhere
    try:
        found = get_object(target)
    except (ImportError, AttributeError, ValueError):
        return ()
    of_method = getattr(found, "__self__", None)  # a class method has the name of its first class
    named = [found, type(found), *(() if of_method is None else (of_method, type(of_method)))]
    bases = [base for one in named for base in (inspect.getmro(one) if isclass(one) else (one,))]
    return tuple(f"{getattr(b, '__module__', '')}.{getattr(b, '__qualname__', '')}" for b in bases)


def foreign_code(checkpoint: Any) -> str:
    """Return the code of a checkpoint, by the names of its files where it is a folder here."""
    found = set()
    for path in sorted(Path(str(checkpoint)).expanduser().glob("*config.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            classes = [str(one) for one in content.get("auto_map", {}).values()]
        except (OSError, ValueError, AttributeError):
            continue
        found |= {f"{name}.py" for one in classes for name in re.findall(r"([\w/-]+)\.\w+", one)}
    return f"{', '.join(sorted(found)) or 'the code'} of {checkpoint}"


def writes_elsewhere(leaf: Leaf, run_dir: Path) -> bool:
    """Whether a value names a place outside of a run's directory that could be written to."""
    if not isinstance(leaf.value, str):
        return False
    text = leaf.value
    if PREPARED.fullmatch(leaf.path):  # what is there is read; what is not would be written
        if ADDRESS.match(text) and not text.lower().startswith("file:"):
            return is_written(text) and content_of(f"{text.rstrip('/')}/index.json") is None
        return not (Path(text.removeprefix("file://")).expanduser() / "index.json").is_file()
    if leaf.at in READERS and leaf.target.startswith(OURS) and leaf.key != "cache_dir":
        return False
    if (leaf.target, leaf.key) == PROMPTS:
        return False
    if not leaf.target and leaf.path.partition(".")[0] not in WRITERS:
        return False
    if leaf.path in READ or leaf.path.startswith(TEXTS) or SHOWN.fullmatch(leaf.path):
        return False
    if ADDRESS.match(text) and not SHOWN_NAME.fullmatch(leaf.path):
        return True
    looks = text.startswith(("/", "~", "\\")) or ".." in re.split(r"[/\\]", text)
    if "\0" in text:  # no file has such a name
        return False
    # a name is one within the place that its neighbour says, or no place, where a link may lie;
    # other places are those of a shell
    named = NAME.fullmatch(leaf.key) or not (looks or PLACE.fullmatch(leaf.key))
    base = run_dir if named else Path.cwd()
    if f"{text}/".startswith(f"{run_dir}/"):  # whose own name may look like a variable
        base, text = run_dir, text.removeprefix(str(run_dir)).lstrip("/")
    place = (base / os.path.expandvars(text)).expanduser().resolve()
    return not place.is_relative_to(run_dir.resolve())


def sends(leaf: Leaf) -> bool:
    """Whether a value of a logger, in whichever group, or a push says where, or what, to send."""
    if leaf.key in PUSHED and defined_in(leaf.target, PUSHES):
        return True
    logs = any(defined_in(leaf.target, package) for package in LOGS)
    within = logs or leaf.path.startswith("logger.")
    if within and (leaf.target == "wandb.Settings" or ".settings." in leaf.path):
        if leaf.key == "x_disable_meta":
            return leaf.value is not True
        return leaf.key not in WANDB_SETTINGS
    group = leaf.path.partition(".")[0]
    parts = re.split(r"[.\[\]]+", leaf.path)
    return (logs or group in ("logger", "tokenizer", "model")) and any(map(SENDS.fullmatch, parts))
