"""The folders of adapters, as peft reads them."""

import copy
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedModel

from hydralight.adalora import with_all_ranks
from hydralight.adapters import (
    Source,
    attached_to,
    is_within,
    other_base,
    package,
    quiet,
    settled,
)
from hydralight.errors import UserError, told
from hydralight.model_configs import MODEL_CONFIG
from hydralight.model_files import gathered
from hydralight.quantization import without_quantization
from hydralight.runs.checksums import ADAPTER, is_adapter
from hydralight.runs.files import write_text
from hydralight.runs.reading import read_json
from hydralight.shards import class_of

WEIGHTS = "adapter_model.safetensors"
BASE = "base.json"  # which weights the adapter was trained on


def folder_of(name: str) -> Path:
    """Return the folder of an adapter, by its own name or by that of its run.

    Raises:
        UserError: there is none.
    """
    folder = Path(name).expanduser()
    for one in (folder, folder / "model"):
        if is_adapter(one):
            return one
    raise UserError(
        f"model.adapter={name} is no adapter: name a folder with an {ADAPTER}, or a run that has "
        "exported one (not merged)."
    )


def swapped(folder: Path, name: str) -> Path:
    """Return the folder of another adapter of the same base.

    Args:
        folder: Of the model that it takes the place of.
        name: Of the other's folder, or of its run.

    Raises:
        UserError: one of them is no adapter, or they were trained on other weights.
    """
    other = folder_of(name)
    if not is_adapter(folder):
        raise UserError(f"{folder} has no adapter in whose place adapter={name} could be.")
    before, now = source_of(folder), source_of(other)
    if before is None or now is None or not before.same(now):
        known = [
            one.checkpoint if one else "weights that it does not name" for one in (before, now)
        ]
        raise UserError(
            f"adapter={name} was trained on {known[1]}, and that of {folder} on {known[0]}: their "
            "weights differ, and nothing is swapped."
        )
    return other


def save(model: PreTrainedModel, folder: Path | None) -> None:
    """Write a model's adapter as the folder that peft reads.

    All processes that hold shards of it are to call this.

    Beside it are the model's config, which peft has no place for, in a folder of its own (with it
    in `folder`, transformers would look for a whole model there), and what the base was.

    Args:
        model: The model.
        folder: Where; None where another process writes.
    """
    own = attached_to(model)
    assert own is not None
    peft = package()
    config = own.peft.peft_config["default"]
    with with_all_ranks(config):
        state = peft.get_peft_model_state_dict(own.peft, save_embedding_layers=False)
        values = config.to_dict() | {"inference_mode": True}
    # copies: some methods share a tensor between layers, which a file may not
    weights = {name: gathered(state[name]).clone() for name in sorted(state)}
    if folder is None:
        return
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    if values["task_type"] is None:
        kind = class_of(model)
        names = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
        values["auto_mapping"] = names
    values = {n: sorted(one) if isinstance(one, set) else one for n, one in values.items()}
    write_text(folder / ADAPTER, json.dumps(values, indent=2, sort_keys=True) + "\n")
    write_text(folder / BASE, json.dumps(vars(own.source), indent=2) + "\n")
    of_model = without_quantization(model, copy.deepcopy(model.config))
    of_model.architectures = [class_of(model).__name__]
    of_model.save_pretrained(folder / MODEL_CONFIG)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def load(
    model: PreTrainedModel, folder: Path, checkpoint: str, revision: str | None
) -> PreTrainedModel:
    """Put the adapter of a folder into its base model.

    Args:
        model: The base.
        folder: The adapter's.
        checkpoint: Where the base's weights are from.
        revision: The same.

    Raises:
        UserError: it cannot be read, or belongs to other weights.
    """
    peft = package()
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no {WEIGHTS}, and nothing else is read: export it again.")
    before = dict(model.state_dict(keep_vars=True))
    values = {name: tensor.detach() for name, tensor in before.items()}
    with told(f"the adapter {folder} cannot be read"):
        config = peft.PeftConfig.from_pretrained(folder)
        if not hasattr(config, "target_modules"):
            raise UserError(f"{folder} is an adapter of type {config.peft_type}: not known here.")
        with quiet():
            wrapped = peft.PeftModel.from_pretrained(model, folder, is_trainable=True)
        expected = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            absent = sorted(expected.keys() - set(file.keys()))
    if absent:
        raise UserError(f"the adapter {folder} has no weight {absent[0]}, and the model has.")
    model = settled(model, wrapped, before, values, checkpoint, revision)
    own = attached_to(model)
    assert own is not None
    source = source_of(folder)
    if source is not None and not source.same(own.source):
        raise UserError(other_base(f"the adapter {folder}", source, own.source))
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def whole_of(folder: Path) -> list[str]:
    """Return the modules that were trained as a whole beside the adapter of a folder."""
    content = read_json(folder / ADAPTER, dict, "export the adapter again")
    return list(content.get("modules_to_save") or ())


def dtype_of(folder: Path) -> str:
    """Return the type of an adapter's own weights, by torch's name."""
    whole = whole_of(folder)
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        own = next((name for name in file.keys() if not is_within(name, whole)), None)  # noqa: SIM118
        return "float32" if own is None else str(file.get_tensor(own).dtype).removeprefix("torch.")


def source_of(folder: Path) -> Source | None:
    """Return which weights an adapter was trained on; None where its folder does not say."""
    if not (folder / BASE).is_file():
        return None
    with told(f"{folder / BASE} is damaged"):
        return Source(**read_json(folder / BASE, dict, "export the adapter again"))
