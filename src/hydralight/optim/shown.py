"""What a preflight says of an optimizer: its groups, one a line."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from hydralight.errors import count

SHOWN = 3  # names of a group
MOST = 12  # groups


def groups_shown(optimizer: Optimizer, model: nn.Module) -> Iterator[str]:
    """Yield a line for each group: its values, how many parameters it has, and some names.

    Args:
        optimizer: Of the model.
        model: Whose names are shown.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    groups = optimizer.param_groups
    for group in groups[:MOST]:
        own = [names[id(p)] for p in group["params"]]
        size = sum(p.numel() for p in group["params"])
        more = ", …" if len(own) > SHOWN else ""
        said = ", ".join(f"{key} {shown(value)}" for key, value in told_of(group, groups).items())
        yield f"{said}: {count(len(own), 'tensor')}, {size:,} ({', '.join(own[:SHOWN])}{more})"
    if len(groups) > MOST:
        yield f"and {len(groups) - MOST} more"


def told_of(group: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rate and decay of a group, and whatever else is not the same in all groups."""
    told = {"lr": group.get("initial_lr", group.get("lr"))}  # and not that of a warm-up
    told |= {key: group[key] for key in ("weight_decay",) if key in group}
    others = [key for key in group if key not in ("params", "initial_lr", *told)]
    for key in others:
        values = [repr(one[key]) for one in groups if key in one]
        if len(set(values)) > 1:
            told[key] = group[key]
    return told


def shown(value: Any) -> str:
    """Return a value, a number shortly."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
