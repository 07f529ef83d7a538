"""Checkpoints as folders: each process writes its shards, and any number of processes reads them.

They are torch's distributed checkpoints in its safetensors format: no file of tensors, and no
record of where they are, is unpickled (torch's other format has its metadata as a pickle). What is
no tensor lies in `rest.pt`, which is opened with `weights_only=True`.

A name is `weights/<name of the weight>` or `<state of the optimizer>/<name of the parameter>`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, zeros
from torch.optim import Optimizer

WEIGHTS = "weights"
REST = "rest.pt"
FILE_SIZE = 2**30  # bytes of a process's file, about; one is in memory while it is written

# ---------------------------------------------------------------- writing


def write_shards(
    folder: Path, checkpoint: dict[str, Any], module: nn.Module, optimizer: Optimizer
) -> None:
    """Write a checkpoint; all processes are to call this.

    Args:
        folder: New, and the same for all.
        checkpoint: Its `state_dict` has the weights that are written, of which each process has
            its shards. The states of the optimizer are taken from itself; the rest is kept.
        module: Whose weights they are.
        optimizer: Of its parameters.

    Raises:
        OSError: a process could not write, as each of them is told.
    """
    weights, aliases = once(checkpoint["state_dict"])
    tensors = {f"{WEIGHTS}/{name}": tensor.detach() for name, tensor in weights.items()}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    numbers: dict[str, dict[str, Any]] = {}
    for parameter, states in optimizer.state.items():
        for key, value in states.items():
            name = f"{key}/{names[id(parameter)]}"
            if torch.is_tensor(value):
                tensors[name] = settled(value.detach())
            else:
                numbers[name] = value
    groups = [
        {**group, "params": [names[id(p)] for p in group["params"]]}
        for group in optimizer.param_groups
    ]
    left = {k: v for k, v in checkpoint.items() if k not in ("state_dict", "optimizer_states")}
    left["shards"] = {
        "aliases": aliases,
        "numbers": numbers,
        "groups": groups,
        "placements": {name: placements_of(tensor) for name, tensor in tensors.items()},
    }
    devices = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    sizes = {name: one.numel() * one.element_size() // devices for name, one in tensors.items()}
    ends, filled = {}, 0
    for name, size in sizes.items():
        filled += size
        ends[name] = 1 + filled // FILE_SIZE
    folder.mkdir(parents=True, exist_ok=True)
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=ends, save_distributed=True)
    try:
        dcp.save(tensors, storage_writer=writer, no_dist=not torch.distributed.is_initialized())
    except CheckpointException as error:  # no Exception by itself
        raise OSError(str(next(iter(error.failures.values()))[0])) from error
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        with (folder / REST).open("wb") as file:
            torch.save(left, file)


def once(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return weights, tied ones by their first name; and these by their others."""
    first: dict[int, str] = {}
    weights, aliases = {}, {}
    for name, tensor in state.items():
        if first.setdefault(id(tensor), name) == name:
            weights[name] = tensor
        else:
            aliases[name] = first[id(tensor)]
    return weights, aliases


def settled(tensor: Tensor) -> Tensor:
    """Return a tensor without sums that are still to be taken over devices."""
    if not isinstance(tensor, DTensor) or not any(p.is_partial() for p in tensor.placements):
        return tensor
    whole = [Replicate() if p.is_partial() else p for p in tensor.placements]
    return tensor.redistribute(placements=whole)


def placements_of(tensor: Tensor) -> list[int] | None:
    """Return which of its dimensions is sharded over each of the mesh's; -1 for none."""
    if not isinstance(tensor, DTensor):
        return None
    return [p.dim if isinstance(p, Shard) else -1 for p in tensor.placements]


# ---------------------------------------------------------------- reading


def read_shards(path: Path, module: Any, optimizer: Optimizer) -> dict[str, Any]:
    """Read weights and optimizer states into their places; all processes are to call this.

    Args:
        path: A folder that any number of processes has written, or a file of one that has not
            sharded.
        module: With a method `check_checkpoint`, called before anything is changed. Weights that
            it lets the checkpoint lack stay as they are.
        optimizer: Of its parameters; its states are replaced.

    Returns:
        What else the checkpoint holds.
    """
    rest = opened(path)
    if path.is_file():
        return _take_whole(rest, module, optimizer)
    shards = rest.pop("shards")
    known = shapes_in(path)
    module.check_checkpoint({**rest, **_without_values(known, shards)})
    weights, _ = once(module.state_dict(keep_vars=True))
    wanted = {f"{WEIGHTS}/{name}": tensor.detach() for name, tensor in weights.items()}
    wanted = {name: tensor for name, tensor in wanted.items() if name in known}
    parameters = dict(module.named_parameters())
    states: dict[str, Tensor] = {}
    for name, like in known.items():
        kind, _, of = name.partition("/")
        if kind != WEIGHTS:
            states[name] = room_for(like, parameters[of], shards["placements"][name])
    read(path, {**wanted, **states})
    _restore(optimizer, parameters, {**states, **shards["numbers"]}, shards["groups"])
    return rest


def opened(path: Path) -> dict[str, Any]:
    """Return what a folder holds beside its tensors, or all that a file holds, not read yet."""
    if path.is_dir():
        return torch.load(path / REST, weights_only=True, map_location="cpu")
    return torch.load(path, weights_only=True, map_location="cpu", mmap=True)


def room_for(like: Tensor, parameter: Tensor, placements: list[int] | None) -> Tensor:
    """Return an empty tensor for an optimizer's state, sharded as its parameter is.

    Args:
        like: On the meta device, of the whole shape.
        parameter: The parameter.
        placements: As it was sharded where it was written.
    """
    device = "cpu" if like.ndim == 0 else parameter.device
    if not isinstance(parameter, DTensor) or placements is None:
        return torch.zeros(like.shape, dtype=like.dtype, device=device)
    if like.shape == parameter.shape:
        return torch.zeros_like(parameter, dtype=like.dtype).detach()
    own = [Replicate() if dim < 0 else Shard(dim) for dim in placements]
    own += [Replicate()] * (parameter.device_mesh.ndim - len(own))
    mesh = parameter.device_mesh
    return zeros(*like.shape, dtype=like.dtype, device_mesh=mesh, placements=own[: mesh.ndim])


def read(path: Path, tensors: dict[str, Tensor], alone: bool = False) -> None:
    """Fill tensors with what a folder holds by their names; `alone` without other processes."""
    alone = alone or not torch.distributed.is_initialized()
    dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=alone)


def shapes_in(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a folder by name, on the meta device."""
    found: Any = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {
        name: torch.empty(one.size, dtype=one.properties.dtype, device="meta")
        for name, one in sorted(found.items())
    }


def _without_values(known: Mapping[str, Tensor], shards: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a whole checkpoint would hold of module and optimizer."""
    weights = dict(_weights_in(known, shards["aliases"]))
    kinds = [name.partition("/") for name in [*known, *shards["numbers"]]]
    stated = {of for kind, _, of in kinds if kind != WEIGHTS}
    return {"state_dict": weights, "optimizer_states": [{"state": dict.fromkeys(stated)}]}


def _weights_in(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str]
) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        kind, _, of = name.partition("/")
        if kind == WEIGHTS:
            yield of, tensor
    for name, first in aliases.items():
        yield name, tensors[f"{WEIGHTS}/{first}"]


def _restore(
    optimizer: Optimizer,
    parameters: Mapping[str, Tensor],
    states: Mapping[str, Any],
    groups: list[dict[str, Any]],
) -> None:
    """Put states, by kind and name, and the settings of the groups into an optimizer."""
    optimizer.state.clear()
    for name, value in states.items():
        kind, _, of = name.partition("/")
        optimizer.state[parameters[of]][kind] = value
    for own, group in zip(optimizer.param_groups, groups, strict=True):
        own.update({key: value for key, value in group.items() if key != "params"})


def _take_whole(whole: dict[str, Any], module: Any, optimizer: Optimizer) -> dict[str, Any]:
    """Read a checkpoint that is one file, and keep this process's shards of it."""
    module.check_checkpoint(whole)
    state, (saved,) = whole.pop("state_dict"), whole.pop("optimizer_states")
    weights, _ = once(module.state_dict(keep_vars=True))
    with torch.no_grad():
        for name in weights.keys() & state.keys():
            part_like(state[name], weights[name], into=weights[name])
    parameters = dict(module.named_parameters())
    names = [name for group in whole["trained"]["parameters"] for name in group]
    states: dict[str, Any] = {}
    for number, values in saved["state"].items():
        of = parameters[names[number]]
        for key, value in values.items():
            like = torch.is_tensor(value) and value.shape == of.shape and value.ndim > 0
            states[f"{key}/{names[number]}"] = part_like(value, of) if like else value
    _restore(optimizer, parameters, states, saved["param_groups"])
    return whole


def part_like(whole: Tensor, like: Tensor, into: Tensor | None = None) -> Tensor:
    """Return this device's part of a whole tensor, sharded as another is; or write it there."""
    if isinstance(like, DTensor):
        moved = whole.to(like.device_mesh.device_type)
        whole = distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)
    elif into is None:
        return whole.to(like.device)
    return whole.clone() if into is None else into.detach().copy_(whole)


def assembled(path: Path) -> dict[str, Any]:
    """Return a checkpoint that was written in shards as one that was not, on the host."""
    rest = opened(path)
    shards = rest.pop("shards")
    tensors = {
        name: torch.empty(one.shape, dtype=one.dtype) for name, one in shapes_in(path).items()
    }
    read(path, tensors, alone=True)
    numbers: dict[str, int] = {}
    groups = []
    for group in shards["groups"]:
        own = [numbers.setdefault(name, len(numbers)) for name in group["params"]]
        groups.append({**group, "params": own})
    states: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **shards["numbers"]}.items():
        kind, _, of = name.partition("/")
        if kind != WEIGHTS:
            states.setdefault(numbers[of], {})[kind] = value
    rest["state_dict"] = dict(_weights_in(tensors, shards["aliases"]))
    rest["optimizer_states"] = [{"state": states, "param_groups": groups}]
    return rest
