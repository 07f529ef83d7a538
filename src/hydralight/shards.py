"""Tensors of which each device has a part."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


def is_sharded(model: nn.Module | None) -> bool:
    """Whether a model's weights are shards."""
    return model is not None and any(isinstance(p, DTensor) for p in model.parameters())


def class_of(model: Any) -> type:
    """Return a model's class, as it was before the model was sharded."""
    kind = type(model)
    return kind.__bases__[1] if kind.__bases__[0] is FSDPModule else kind


def class_name(model: Any) -> str:
    """Return the name of that class."""
    return class_of(model).__name__


def local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return this device's parts of tensors; a tensor that is not sharded is its own."""
    return [one.to_local() if isinstance(one, DTensor) else one for one in tensors]


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of gradients (scalar), over all devices where they are sharded."""
    norms = []
    groups: dict[Any, list[Tensor]] = {}
    for one in gradients:
        spec = (one.device_mesh, one.placements) if isinstance(one, DTensor) else None
        groups.setdefault(spec, []).append(one)
    for group in groups.values():
        norm = torch.nn.utils.get_total_norm(group)
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
