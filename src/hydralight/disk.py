"""What lies on disk, and what a run is going to take of it."""

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

UNITS = ("bytes", "KB", "MB", "GB", "TB")


def readable(size: float) -> str:
    """Return a number of bytes as it is said, in powers of 1000: `2.8 GB`."""
    unit = 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {UNITS[unit]}" if unit == 0 or size >= 9.95 else f"{size:.1f} {UNITS[unit]}"


def size_of(paths: Iterable[Path]) -> int:
    """Return the bytes of files and of all that is in folders; of two names of a file, once."""
    found: dict[tuple[int, int], int] = {}
    for path in paths:
        inside = (Path(parent, name) for parent, _, names in os.walk(path) for name in names)
        for file in [path, *inside] if path.is_dir() and not path.is_symlink() else [path]:
            try:
                state = file.lstat()
            except FileNotFoundError:  # another process has just replaced it
                continue
            if not file.is_dir():
                found[state.st_dev, state.st_ino] = state.st_size
    return sum(found.values())


# ---------------------------------------------------------------- before a run


@dataclass(frozen=True)
class Footprint:
    """What a run is going to leave on disk, in bytes; samples and predictions come to it.

    Args:
        model: One exported model, with its tokenizer.
        checkpoint: One full checkpoint: weights, and the optimizer's states.
        models: How many models are exported.
        checkpoints: How many checkpoints are kept at most; None where all are.
    """

    model: int
    checkpoint: int
    models: int = 1
    checkpoints: int | None = 1

    @property
    def total(self) -> int:
        """All of it; of checkpoints that are all kept, one."""
        number = 1 if self.checkpoints is None else self.checkpoints
        return self.models * self.model + number * self.checkpoint

    def __str__(self) -> str:
        """Return it as one line."""
        said = []
        for number, name, size in (
            (self.models, "model", self.model),
            (self.checkpoints, "checkpoint", self.checkpoint),
        ):
            if number is None:
                said.append(f"each {name} {readable(size)}, of which all are kept")
            elif number:
                said.append(f"{number} {name}{'s'[: number > 1]} of {readable(size)}")
        return f"about {readable(self.total)} ({', '.join(said) or 'no weights'})"


def weights_of(model: "nn.Module", left_out: Collection[str] = ()) -> int:
    """Return the bytes of a model's weights as they are saved, tied ones once.

    Args:
        model: The model.
        left_out: Names of weights that are not saved, as those of an adapter's base.
    """
    state: dict[str, Any] = model.state_dict(keep_vars=True)
    saved = (one for name, one in state.items() if name not in left_out)
    once = {id(one): one for one in saved if hasattr(one, "element_size")}
    return sum(one.numel() * one.element_size() for one in once.values())


def states_of(recipe: "Callable[..., Optimizer]", groups: list[dict[str, Any]]) -> int:
    """Return the bytes that an optimizer's states are going to take.

    It takes a step on tensors of these shapes that have no values, and no memory.

    Args:
        recipe: Called with the parameter groups.
        groups: Those of the model, as `optim.parameter_groups` gives them.
    """
    import torch
    from torch import nn

    shapes = []
    for group in groups:
        own = [nn.Parameter(torch.empty_like(p, device="meta")) for p in group["params"]]
        for parameter in own:
            parameter.grad = torch.empty_like(parameter)
        shapes.append({**group, "params": own})
    try:
        optimizer = recipe(shapes)
        optimizer.step()
        states = [value for state in optimizer.state.values() for value in state.values()]
    except Exception:  # it looks at values: two states a parameter, as most have
        states = [p for group in shapes for p in group["params"] for _ in range(2)]
    tensors = [one for one in states if isinstance(one, torch.Tensor)]
    return sum(one.numel() * one.element_size() for one in tensors)


def tokenizer_of(processor: Any) -> int:
    """Return the bytes of a fast tokenizer's file; nothing of what is small."""
    own = getattr(processor, "backend_tokenizer", None)
    return 0 if own is None else len(own.to_str(pretty=True).encode())
