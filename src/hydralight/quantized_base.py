"""Loading a checkpoint whose matrices are quantized while it is loaded."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from hydralight import adapter_files, adapters, quantization


def load(
    recipe: Any, checkpoint: str, auto_class: Any, options: Mapping[str, Any]
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """Return a model, and what transformers says of the checkpoint's weights.

    What the checkpoint lacks is going to be trained as a whole: where that is known only once it is
    loaded, it is loaded once more.

    Args:
        recipe: A `models.Pretrained`.
        checkpoint: What it loads.
        auto_class: The transformers `AutoModelFor…` of the task.
        options: Arguments of its `from_pretrained`.
    """
    dtype = getattr(torch, recipe.compute_dtype or recipe.dtype)
    whole = kept_whole(recipe, auto_class, options["config"])

    def loaded(whole: list[str]) -> Any:
        how = quantization.config_for(recipe.quantization, recipe.double_quantization, dtype, whole)
        own = {**options, "config": copy.deepcopy(options["config"]), "quantization_config": how}
        return auto_class.from_pretrained(checkpoint, output_loading_info=True, **own)

    model, found = loaded(whole)
    new = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
    more = [n for n in quantization.layers_of(model) if any(w.startswith(f"{n}.") for w in new)]
    return loaded([*whole, *more]) if more else (model, found)


def kept_whole(recipe: Any, auto_class: Any, config: PretrainedConfig) -> list[str]:
    """Return the modules that are not quantized: the output's, and those trained as a whole."""
    with torch.device("meta"):  # no memory for weights
        if hasattr(auto_class, "from_config"):
            model = auto_class.from_config(config, trust_remote_code=recipe.trust_remote_code)
        else:  # one of its models' classes
            model = auto_class(config)
    kept = get_keys_to_not_convert(model)
    if isinstance(recipe.adapter, str):
        return [*kept, *adapter_files.whole_of(adapter_files.folder_of(recipe.adapter))]
    if recipe.adapter is None:
        return kept
    asked = getattr(recipe.adapter, "modules_to_save", None)
    headed = adapters.is_headed(auto_class)
    return [*kept, *adapters.trained_whole(model, asked, (), headed)]


def cast(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give the weights of a model's adapter another type; not those that are trained as a whole."""
    own = adapters.attached_to(model)
    assert own is not None
    whole = own.peft.peft_config["default"].modules_to_save or ()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not adapters.is_within(name, whole):
            parameter.data = parameter.data.to(dtype)


def restored(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with the same adapter, whose base is not quantized any more.

    Its matrices are what the quantized ones stand for. The model that is given is used up.
    """
    own = adapters.attached_to(model)
    assert own is not None
    peft = adapters.package()
    config = own.peft.peft_config["default"]
    state = peft.get_peft_model_state_dict(own.peft, save_embedding_layers=False)
    state = {name: one.detach().clone() for name, one in state.items()}
    base: Any = own.peft.unload()
    kinds = {name: one.source_cls for name, one in quantization.layers_of(base).items()}
    base = base.dequantize(dtype=base.dtype)
    for name in (name for name, kind in kinds.items() if kind is Conv1D):
        linear = base.get_submodule(name)
        own_kind = Conv1D(linear.out_features, linear.in_features)
        own_kind.weight = nn.Parameter(linear.weight.detach().T.contiguous(), requires_grad=False)
        own_kind.bias = linear.bias
        base.set_submodule(name, own_kind)
    with adapters.quiet():
        wrapped = peft.get_peft_model(base, config)
        peft.set_peft_model_state_dict(wrapped, state)
    vars(base)["adapter"] = replace(own, peft=wrapped)
    return base.eval()
