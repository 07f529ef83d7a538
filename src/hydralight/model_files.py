"""Weights read from and written to Hugging Face folders, with no whole model in memory."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightConverter, revert_weight_conversion

FILE_SIZE = "5GB"  # of exported weights, at most
# How the format names types: https://huggingface.co/docs/safetensors
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
DTYPES |= {torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"}
DTYPES |= {torch.uint8: "U8", torch.bool: "BOOL"}

# ---------------------------------------------------------------- reading


@contextmanager
def loaded_by_shards(
    shard: Callable[[PreTrainedModel], None], device: torch.device
) -> Iterator[None]:
    """Let `from_pretrained` shard each model while it is on the meta device, and read its shards.

    transformers reads the part of a tensor that a device has, where a parameter is sharded by
    then; there is no public way to come between the two. Weights that a checkpoint lacks are drawn
    as they are without shards.

    Args:
        shard: Called with a model without values.
        device: Where its shards are to be.
    """
    original = PreTrainedModel._load_pretrained_model

    def load(
        model: PreTrainedModel, state_dict: Any, checkpoint_files: Any, load_config: Any
    ) -> Any:
        shard(model)
        if state_dict is None and checkpoint_files and checkpoint_files[0].endswith("safetensors"):
            state_dict = slices_of(checkpoint_files)
        if device.type != "cpu":
            load_config = replace(load_config, device_map={"": device})
        found = original(model, state_dict, checkpoint_files, load_config)
        model.initialize_weights = partial(draw_missing, model)  # type: ignore[method-assign]
        return found

    PreTrainedModel._load_pretrained_model = staticmethod(load)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        PreTrainedModel._load_pretrained_model = staticmethod(original)  # type: ignore[method-assign]


def slices_of(files: Sequence[str]) -> dict[str, Any]:
    """Return the tensors of safetensors files by name, to be read a slice at a time."""
    # read, not mapped: pages of a file that is mapped count as the process's memory
    opened = [safe_open(file, framework="pt", backend="pread") for file in files]
    return {name: one.get_slice(name) for one in opened for name in one.keys()}  # noqa: SIM118


@torch.no_grad()
def draw_missing(model: PreTrainedModel) -> None:
    """Draw the weights that a checkpoint lacks as wholes, and keep this device's shards of them.

    So they are those that a process alone would draw.
    """
    del model.initialize_weights
    whole: list[tuple[nn.Module, str, DTensor, nn.Parameter]] = []
    for module in model.modules():
        parameters: Any = list(module.named_parameters(recurse=False))
        for name, parameter in parameters:
            if isinstance(parameter, DTensor) and not hasattr(parameter, "_is_hf_initialized"):
                drawn = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype))
                whole.append((module, name, parameter, drawn))
                module._parameters[name] = drawn
    model.initialize_weights()
    for module, name, shard, drawn in whole:
        mesh, placements = shard.device_mesh, shard.placements
        own = distribute_tensor(drawn.detach(), mesh, placements, src_data_rank=None)
        shard.to_local().copy_(own.to_local())
        module._parameters[name] = shard  # type: ignore[assignment]


# ---------------------------------------------------------------- writing


@torch.no_grad()
def save_by_tensors(model: PreTrainedModel, folder: Path | None) -> None:
    """Write a sharded model as `save_pretrained` does, gathered a tensor at a time.

    All processes are to call this. Weights that the checkpoint's files hold in other pieces than
    the model (those of experts, for example) are gathered all at once.

    Args:
        model: The model.
        folder: Where; None where another process writes.
    """
    state = weights_of(model)
    converters = getattr(model, "_weight_conversions", None) or ()
    if any(isinstance(one, WeightConverter) for one in converters):
        whole = {name: gathered(tensor) for name, tensor in state.items()}
        if folder is not None:
            model.save_pretrained(folder, state_dict=whole)
        return
    if folder is not None:
        model.save_pretrained(folder, state_dict={})  # all that is no weight
    names = {name: renamed(model, name) for name in state}
    sizes = {
        names[name]: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in state.items()
    }
    plan = split_torch_state_dict_into_shards(
        sizes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=FILE_SIZE,
    )
    for file, inside in plan.filename_to_tensors.items():
        tensors = {names[name]: tensor for name, tensor in state.items() if names[name] in inside}
        write_safetensors(folder and folder / file, tensors)
    if plan.is_sharded and folder is not None:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def weights_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return what is to be saved of a model, tied weights once."""
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    left_out = set(model._keys_to_ignore_on_save or ())
    for target, source in model.all_tied_weights_keys.items():
        if state.get(target) is state.get(source):
            left_out.add(target)
    return {name: tensor for name, tensor in state.items() if name not in left_out}


def renamed(model: PreTrainedModel, name: str) -> str:
    """Return what files call a weight."""
    (found,) = revert_weight_conversion(model, {name: torch.empty(0)})
    return found


def gathered(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor, in the host's memory."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().cpu().contiguous()


def write_safetensors(path: Path | None, tensors: dict[str, Tensor]) -> None:
    """Write a file one tensor after the other, each gathered when it is its turn.

    Args:
        path: The file; None where another process writes it.
        tensors: By name.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file = None if path is None else path.open("wb")
    try:
        if file is not None:
            file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            whole = gathered(tensor)
            if file is not None:
                whole.reshape(-1).view(torch.uint8).numpy().tofile(file)
            del whole
    finally:
        if file is not None:
            file.close()
