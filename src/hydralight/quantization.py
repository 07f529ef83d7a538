"""Bases in 4 and 8 bits, by bitsandbytes, under an adapter (QLoRA, Dettmers et al., 2023).

Transformers quantizes a checkpoint while it loads it; here is what an exact training needs beside:
weights that an evaluation does not change, and state dicts of what PyTorch can load.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hydralight.errors import UserError

Kind = Literal["nf4", "fp4", "int8", "none"]


def package() -> Any:
    """Return bitsandbytes.

    Raises:
        UserError: it, or accelerate, which transformers needs for it, is not installed.
    """
    try:
        import accelerate  # noqa: F401
        import bitsandbytes
    except ImportError as error:
        raise UserError(
            f"model.quantization needs a package that is not installed ({error.name}): "
            "pip install 'hydralight[quantization]'"
        ) from error
    return bitsandbytes


def config_for(
    kind: Kind, double: bool, compute_dtype: torch.dtype, whole: Iterable[str]
) -> BitsAndBytesConfig:
    """Return how transformers is to quantize a checkpoint while it loads it.

    Args:
        kind: 4 bits (`nf4`, `fp4`) or 8 (`int8`).
        double: Whether the scales of 4 bits are quantized too.
        compute_dtype: What matrices of 4 bits are multiplied in.
        whole: Names of modules that are left as they are.

    Raises:
        UserError: `double` with 8 bits, or bitsandbytes is not installed.
    """
    package()
    if kind == "int8":
        if double:
            raise UserError(
                "model.double_quantization=true is of 4 bits: take model.quantization=nf4, or "
                "leave it out."
            )
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(whole))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=list(whole),
    )


def layers_of(model: nn.Module) -> dict[str, Any]:
    """Return the quantized layers of a model, by name."""
    if getattr(model, "hf_quantizer", None) is None:
        return {}
    modules = package().nn
    kinds = (modules.Linear4bit, modules.Linear8bitLt)
    return {name: one for name, one in model.named_modules() if isinstance(one, kinds)}


def settle(model: PreTrainedModel) -> None:
    """See that evaluations leave quantized weights alone.

    On CPUs with AVX512-BF16, bitsandbytes packs weights anew in the first evaluation, and rounds
    their scales to bfloat16: the training behind it would be another one.
    """
    for layer in layers_of(model).values():
        layer.support_avx512bf16_for_cpu = False


def leave_scales_out(model: PreTrainedModel) -> None:
    """Take out of a model's state dicts what bitsandbytes adds to them.

    PyTorch refuses it. It is what weights were quantized by, and read again with the base.
    """
    for layer in layers_of(model).values():
        layer.register_state_dict_post_hook(_only_parameters)


def _only_parameters(layer: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    own = {prefix + name for name, _ in layer.named_parameters(recurse=False)}
    inner = tuple(f"{prefix}{name}." for name, _ in layer.named_children())
    for name in [n for n in state if n.startswith(prefix) and n not in own]:
        if not name.startswith(inner):
            del state[name]


def how(model: PreTrainedModel) -> dict[str, Any] | None:
    """Return by which arguments of a recipe a model was quantized.

    None where it was not, or came so from its checkpoint.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None or quantizer.pre_quantized:
        return None
    config = quantizer.quantization_config
    if config.load_in_8bit:
        return {"quantization": "int8", "double_quantization": False, "compute_dtype": None}
    return {
        "quantization": config.bnb_4bit_quant_type,
        "double_quantization": config.bnb_4bit_use_double_quant,
        "compute_dtype": str(config.bnb_4bit_compute_dtype).removeprefix("torch."),
    }


def number_of(model: nn.Module) -> int:
    """Return the number of a model's parameters; two of 4 bits are kept as one of 8."""
    total = sum(one.numel() for one in model.parameters())
    return total + sum(
        math.prod(one.weight.quant_state.shape) - one.weight.numel()
        for one in layers_of(model).values()
        if hasattr(one.weight, "quant_state")
    )


def never_quantized(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of a model's weights that no quantization changes: all but linear layers'.

    Args:
        model: With an adapter.
        state: Its weights, by the names that they had before.
    """
    linear = (name for name, one in model.named_modules() if isinstance(one, nn.Linear | Conv1D))
    prefixes = tuple(
        name.replace(".base_layer", "").replace(".original_module", "") + "." for name in linear
    )
    return {name: one for name, one in state.items() if not name.startswith(prefixes)}


def without_quantization(model: PreTrainedModel, config: PretrainedConfig) -> PretrainedConfig:
    """Take out of a copy of a model's config what its checkpoint does not say of itself."""
    if how(model) is not None and hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def check_it_can_be_trained(model: nn.Module, has_adapter: bool) -> None:
    """Refuse to train what is quantized.

    Raises:
        UserError: a model has quantized layers, and no adapter.
    """
    if not has_adapter and layers_of(model):
        raise UserError(
            "the model's matrices are quantized, and nothing in them can be trained: add an "
            "adapter (adapter=lora), or leave out model.quantization."
        )


def check_callbacks(model: nn.Module, callbacks: Iterable[Any]) -> None:
    """Refuse to average weights that are whole numbers, which an average would be cut to.

    Raises:
        UserError: a callback is to average the weights of a model with quantized layers.
    """
    if layers_of(model) and any(isinstance(one, WeightAveraging) for one in callbacks):
        raise UserError(
            "callbacks=ema averages all weights, and those of a quantized base are whole numbers, "
            "which would become others: take other callbacks, or leave out model.quantization."
        )
