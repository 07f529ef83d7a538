"""The configs of models: read from a checkpoint, and checked before a model is built of one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from hydralight.errors import UserError, did_you_mean, first_line
from hydralight.hub import only_cached
from hydralight.runs.checksums import ADAPTER, is_adapter, verify
from hydralight.runs.reading import read_json

MODEL_CONFIG = "config"  # the folder in it that has the model's config, with its labels
INSTANTIATES = ("_target_", "_args_", "_recursive_", "_convert_", "_partial_")  # Hydra's keys


def default_config(model_type: str) -> PretrainedConfig:
    """Return an architecture's default config, or raise a `UserError`."""
    try:
        return AutoConfig.for_model(model_type)
    except ValueError as error:
        raise UserError(
            f"model.config.model_type={model_type} is no architecture of transformers"
            f"{did_you_mean(model_type, CONFIG_MAPPING)}"
        ) from error


def read_config(
    checkpoint: str, revision: str | None = None, trust_remote_code: bool = False
) -> PretrainedConfig:
    """Read a checkpoint's config, which is a quick test of whether the checkpoint is there.

    That of an adapter is its model's: its folder has it, or else that of its base.

    Raises:
        UserError: with what to do, where the folder holds no checkpoint or the hub has none.
    """
    folder = Path(checkpoint).expanduser()
    if is_adapter(folder):
        verify(folder)
        own = folder / MODEL_CONFIG
        if not (own / "config.json").is_file():
            return read_config(*base_of(folder), trust_remote_code)
        return read_config(str(own), None, trust_remote_code)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"checkpoint={checkpoint} is no Hugging Face folder: it has no config.json."
        )
    if not folder.exists() and (
        checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1
    ):
        raise UserError(f"checkpoint={checkpoint} does not exist: name a folder or a hub id.")
    if folder.is_dir():
        verify(folder)
    offline = only_cached(checkpoint)
    try:
        return AutoConfig.from_pretrained(
            checkpoint,
            revision=revision,
            trust_remote_code=trust_remote_code,
            local_files_only=offline,
        )
    except Exception as error:
        if folder.is_dir():
            raise UserError(f"checkpoint={checkpoint}: {first_line(error)}") from error
        if offline:
            raise UserError(
                f"checkpoint={checkpoint} is no folder here, the hub cannot be reached, and the "
                "cache has no copy: give a folder (checkpoint=./my-model), or name a mirror in "
                "HF_ENDPOINT."
            ) from error
        raise UserError(
            f"checkpoint={checkpoint} is neither a folder here nor a model on the hub: "
            f"{first_line(error)}."
        ) from error


def base_of(folder: Path) -> tuple[str, str | None]:
    """Return checkpoint and revision of the model that an adapter belongs to.

    Raises:
        UserError: its folder, which is anybody's, does not say.
    """
    path = folder / ADAPTER
    content = read_json(path, dict, "export the adapter again")
    name, revision = content.get("base_model_name_or_path"), content.get("revision")
    if not (isinstance(name, str) and name) or is_adapter(Path(name)):
        raise UserError(f"{path}: base_model_name_or_path={name} is no model: name the adapter's.")
    return name, revision if isinstance(revision, str) else None


def labels_of(config: PretrainedConfig) -> list[str] | dict[str, str] | None:
    """Return the labels that a model has names for, in the order of their numbers.

    Where files hold other values than names, `label_values` of the config, which training writes,
    says which: then they are a mapping from these. None where the labels are `LABEL_0` and so on.

    Raises:
        UserError: the config, which is anybody's, says what is no label.
    """
    named: Any = config.id2label or {}
    names = [str(named.get(number)) for number in range(len(named))]
    if names == [f"LABEL_{number}" for number in range(len(names))]:
        return None
    values = getattr(config, "label_values", None)
    whole = values is None or (
        isinstance(values, dict) and set(map(str, values.values())) == set(names)
    )
    # they become a part of the config, where these would mean something
    meant = [v for v in (*names, *(values or ())) if "${" in v or v in INSTANTIATES]
    if not whole or meant:
        raise UserError(
            f"the model's config.json has label_values={values}, which do not name its labels "
            f"({', '.join(names)}): take them out, and say data.labels={{value: label, …}}."
        )
    if values is None:
        return names
    return {str(v): name for name in names for v, one in values.items() if str(one) == name}


def check_kernels(checkpoint: str, config: PretrainedConfig) -> None:
    """Refuse a config that names kernels of the hub, which are code of whoever put them there.

    Raises:
        UserError: it does, or the config of a part of it does.
    """
    parts = [config, *(getattr(config, name, None) for name in config.sub_configs)]
    for part in parts:
        for name, value in vars(part).items() if part is not None else ():
            if name.endswith(("_implementation", "_implementation_internal")):
                for kernels in value.values() if isinstance(value, dict) else (value,):
                    if "/" in str(kernels):
                        raise UserError(
                            f"checkpoint={checkpoint} would run the kernels of {kernels}, which "
                            "its config names: type model.attn_implementation=sdpa, or that name "
                            "if you trust it."
                        )


def check_liger(kernels: str | None, auto_class: type) -> None:
    """Refuse Liger's kernels for a task that does not try them before it trains.

    Raises:
        UserError: it is no task that predicts tokens.
    """
    if kernels and auto_class.__name__ not in ("AutoModelForCausalLM", "AutoModelForMaskedLM"):
        raise UserError(
            f"model.kernels={kernels} is for tasks that predict tokens, such as causal_lm: leave "
            "it out."
        )


def check_values(config: PretrainedConfig, values: Mapping[str, Any]) -> None:
    """Check values that are to replace those of a model's config.

    Raises:
        UserError: there is no such name, or a size is below 0.
    """
    for name, value in values.items():
        if not hasattr(config, name):
            near = did_you_mean(name, config.to_dict())
            raise UserError(
                f"model.config.{name}: a {config.model_type} config has no '{name}'{near}"
            )
        before, number = getattr(config, name), type(value) in (int, float)
        # other numbers may be below 0 for a reason, as the ids of tokens
        if number and value < 0 and type(before) in (int, float) and before > 0:
            raise UserError(f"model.config.{name}={value} should be at least 0.")


def vocabulary(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, multiple: int = 1
) -> dict[str, Any]:
    """Return the config values that follow from a tokenizer: vocabulary size and special ids.

    A seq2seq decoder starts with the end token, as BART's and Marian's kin do, or with the
    padding token where there is no end token.
    """
    values: dict[str, Any] = {"vocab_size": -(-len(tokenizer) // multiple) * multiple}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(tokenizer, name) is not None:
            values[name] = getattr(tokenizer, name)
    if config.is_encoder_decoder:
        start = tokenizer.eos_token_id
        values["decoder_start_token_id"] = tokenizer.pad_token_id if start is None else start
        if hasattr(config, "forced_eos_token_id"):
            values["forced_eos_token_id"] = tokenizer.eos_token_id
    return values
