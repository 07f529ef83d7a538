"""Adapters in models that are sharded: which go, and how they are known beforehand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hydralight.adapters import attached_to
from hydralight.errors import UserError
from hydralight.runs.checksums import is_adapter


def has_adapter(recipe: Callable[..., Any]) -> bool:
    """Whether a recipe builds a model with an adapter: a new one, or that of its checkpoint."""
    made: Any = getattr(recipe, "func", recipe)
    checkpoint = getattr(made, "checkpoint", None)
    new = getattr(made, "adapter", None) is not None
    return new or (checkpoint is not None and is_adapter(Path(checkpoint).expanduser()))


def check_unquantized(kind: str | None) -> None:
    """Check that a base is not quantized.

    Raises:
        UserError: it is.
    """
    if kind not in (None, "none"):
        raise UserError(
            f"model.quantization={kind} does not go with sharded training: take another trainer, "
            "such as trainer=ddp."
        )


def check_adapter(model: PreTrainedModel, tensor_parallel_size: int) -> None:
    """Check that the adapter in a model, if there is one, goes with shards.

    Raises:
        UserError: it does not.
    """
    own = attached_to(model)
    if own is None:
        return
    check_unquantized((own.source.quantization or {}).get("quantization"))
    if tensor_parallel_size > 1:
        raise UserError(
            f"trainer.strategy.tensor_parallel_size={tensor_parallel_size} does not go with "
            "model.adapter: leave it out, and all devices share the weights."
        )
    if own.peft.peft_config["default"].peft_type.value == "ADALORA":
        raise UserError(
            "adapter=adalora does not go with sharded training: take adapter=lora, or another "
            "trainer, such as trainer=ddp."
        )
    types = sorted({str(p.dtype) for p in model.parameters() if p.requires_grad})
    if len(types) > 1:
        raise UserError(
            f"what is trained is in {' and '.join(types)}, and shards of it are to be of one type: "
            "set model.adapter_dtype to model.dtype."
        )
