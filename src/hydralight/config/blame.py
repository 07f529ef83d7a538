"""Whose code refused: which key of the config named it, or is it our own, or the user's."""

import importlib.metadata
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig

from hydralight.config.check import needed, targets
from hydralight.config.project import PACKAGE
from hydralight.errors import UserError, beneath, ended, first_line

# what a config's objects make, by the class or function that runs
MADE = {
    "transformers.generation.utils.GenerationMixin.generate": "generation",
    "torch.optim.lr_scheduler.LRScheduler": "scheduler",
    "torch.optim.optimizer.Optimizer": "optimizer",
    "transformers.modeling_utils.PreTrainedModel": "model",
    "transformers.tokenization_utils_base.PreTrainedTokenizerBase": "tokenizer",
    "transformers.image_processing_base.ImageProcessingMixin": "tokenizer",
}
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


def refused(key: str, error: BaseException) -> str:
    """Put what a library refused into a sentence that names the key that it was given.

    Args:
        key: The key.
        error: What it raised.
    """
    cause = beneath(error)
    if isinstance(cause, UserError):
        return str(cause)
    package = needed(cause)
    if package is not None:
        return f"{key} needs a package that is not installed: pip install {package}"
    return f"{key}: {ended(first_line(cause))}"


def key_of(error: BaseException) -> str | None:
    """Return the key of the node whose target has refused its arguments, if Hydra says it."""
    found = re.search(r"^full_key: (\S+)$", str(error), re.MULTILINE)
    return found[1] if found and isinstance(error, InstantiationException) else None


def blamed(error: BaseException, cfg: DictConfig) -> str | None:
    """Return the key of the object whose code raised an exception, called by ours or by Lightning.

    It is the innermost of the config's objects, unless our own code, or the user's, was beneath.
    """
    found: dict[str, None] = {}
    named = _named(cfg)
    for frame in _frames(error):
        if not is_library(frame.f_code.co_filename):
            break
        for key in _keys(frame, named):
            found[key] = None
    # generation calls the model
    return "generation" if "generation" in found else next(iter(found), None)


def is_library(filename: str) -> bool:
    """Whether a file is of an installed package that is not ours."""
    if not filename.startswith("/") and ":" not in filename:
        return True  # code that was made on the spot, as `<frozen …>`
    if Path(filename).is_relative_to(PACKAGE):
        return False
    return filename.startswith(LIBRARIES)


def is_ours(error: BaseException) -> bool:
    """Whether our own code is to be looked at: no code of the user's stands nearer."""
    for frame in _frames(error):
        name = frame.f_code.co_filename
        if not is_library(name):
            return Path(name).is_relative_to(PACKAGE)
    return True


def where_to_report() -> str:
    """Return the line that ends the traceback of our own bug."""
    lines = importlib.metadata.metadata("hydralight").get_all("Project-URL") or []
    urls = dict(line.split(", ", 1) for line in lines)
    url = urls.get("Issues") or urls.get("Documentation", "")
    return f"This is a bug of Hydralight: please report it, with the lines above, at {url}"


def _frames(error: BaseException) -> Iterator[FrameType]:
    """Yield the frames of an exception, the innermost first."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    yield from reversed(frames)


def _named(cfg: DictConfig) -> list[tuple[str, Any]]:
    """Return the keys of libraries' classes and functions that a config names, with these."""
    nodes = ((key, str(node["_target_"])) for key, node in targets(cfg))
    found = []
    for key, name in nodes:
        if not name.startswith("hydralight."):
            found.append((key, get_object(name)))
    return found


def _keys(frame: FrameType, named: list[tuple[str, Any]]) -> Iterator[str]:
    """Yield the keys of what runs in a frame: of its function, and of its `self`."""
    code, owner = frame.f_code, frame.f_locals.get("self")
    for key, target in named:
        own = isinstance(target, type) and isinstance(owner, target)
        if own or getattr(target, "__code__", None) is code:
            yield key
    module = frame.f_globals.get("__name__")
    names = [f"{module}.{code.co_qualname}"]
    names += [f"{kind.__module__}.{kind.__qualname__}" for kind in type(owner).__mro__]
    yield from (MADE[name] for name in names if name in MADE)
