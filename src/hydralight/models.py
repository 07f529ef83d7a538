"""Hugging Face models, from a checkpoint or from a configuration."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hydralight.config.ranges import Positive
from hydralight.errors import UserError, did_you_mean, told
from hydralight.hub import only_cached
from hydralight.model_configs import check_kernels, check_values, default_config, read_config
from hydralight.runs.files import steadily
from hydralight.shards import is_sharded

DType = Literal["float32", "float64", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A recipe that loads a checkpoint with its weights.

    Args:
        checkpoint: Hub id or local folder.
        revision: Branch, tag or commit on the hub.
        dtype: Of the weights; float32 unless said, whatever the checkpoint was stored in.
        attn_implementation: `sdpa`, `eager`, `flash_attention_2`, …
        gradient_checkpointing: Trade compute for memory in the backward pass; or arguments of
            `torch.utils.checkpoint.checkpoint` for it, such as `{use_reentrant: true}`.
        freeze: Globs over parameter names, such as `model.encoder.*`.
        trust_remote_code: Run code that comes with the checkpoint.
        config: Values that replace those of the checkpoint's config, such as `{dropout: 0.0}`.
    """

    checkpoint: str
    revision: str | None = None
    dtype: DType = "float32"
    attn_implementation: str | None = None
    gradient_checkpointing: bool | Mapping[str, Any] = False
    freeze: Sequence[str] = ()
    trust_remote_code: bool = False
    config: Mapping[str, Any] | None = None

    def __call__(self, auto_class: type, processor: Any = None, **head: Any) -> PreTrainedModel:
        """Load the model, in training mode.

        Args:
            auto_class: The transformers `AutoModelFor…` of the task.
            processor: Embeddings are enlarged where it is a tokenizer of more tokens than the
                checkpoint's.
            head: What the task knows of its data (`num_labels`, `id2label`, …); a head of another
                size than the checkpoint's is a new one.

        Raises:
            UserError: the checkpoint cannot be found, reached or read, or a glob matches nothing.
        """
        folder = Path(self.checkpoint).expanduser()

        def load(there: Path) -> PreTrainedModel:
            name = self.checkpoint if there == folder else str(there)
            return self._load(name, auto_class, head)

        # perhaps of a run that is at work, and replaces it
        model = steadily(folder, load) if folder.is_dir() else load(folder)
        if isinstance(processor, PreTrainedTokenizerBase):
            embeddings: Any = model.get_input_embeddings()
            if len(processor) > embeddings.num_embeddings:
                if is_sharded(model):
                    raise UserError(
                        f"the tokenizer has {len(processor)} tokens, and checkpoint="
                        f"{self.checkpoint} {embeddings.num_embeddings}: weights in shards cannot "
                        "be enlarged; take another trainer, or a checkpoint that has been."
                    )
                model.resize_token_embeddings(len(processor))
            for one in (model.config, getattr(model, "generation_config", None)):
                if one is not None and getattr(one, "pad_token_id", None) is None:
                    one.pad_token_id = processor.pad_token_id
        return finish(model, self.gradient_checkpointing, self.freeze)

    def _load(self, checkpoint: str, auto_class: type, head: Mapping[str, Any]) -> PreTrainedModel:
        """Load the checkpoint, which is perhaps called by another name, as it is."""
        config = read_config(checkpoint, self.revision, self.trust_remote_code)
        if not (self.attn_implementation or self.trust_remote_code):
            check_kernels(checkpoint, config)
        check_values(config, self.config or {})
        with told("model.config"):
            config.update({**head, **(self.config or {})})
        with told(self.described()):
            return auto_class.from_pretrained(  # type: ignore[attr-defined]
                checkpoint,
                config=config,
                revision=self.revision,
                dtype=getattr(torch, self.dtype),
                trust_remote_code=self.trust_remote_code,
                local_files_only=only_cached(checkpoint),
                ignore_mismatched_sizes="num_labels" in head,
                **attention(self.attn_implementation),
            )

    def described(self) -> str:
        """Return what a message calls the model that cannot be loaded."""
        names = ("attn_implementation", "config")
        chosen = [f"model.{name}={value}" for name in names if (value := getattr(self, name))]
        return " with ".join([f"checkpoint={self.checkpoint}", *chosen]) + " cannot be loaded"


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """A recipe that builds a model with random weights, of any architecture transformers knows.

    The vocabulary size and the ids of the special tokens are the tokenizer's.

    Args:
        config: `model_type` (such as `bart`) and the values that differ from its defaults; or
            `checkpoint`, whose config (without its weights) is then the base.
        dtype: Of the weights.
        attn_implementation: `sdpa`, `eager`, `flash_attention_2`, …
        gradient_checkpointing: Trade compute for memory in the backward pass; or arguments of
            `torch.utils.checkpoint.checkpoint` for it, such as `{use_reentrant: true}`.
        freeze: Globs over parameter names.
        pad_vocab_to_multiple_of: Round the vocabulary up, which suits tensor cores.
    """

    config: Mapping[str, Any]
    dtype: DType = "float32"
    attn_implementation: str | None = None
    gradient_checkpointing: bool | Mapping[str, Any] = False
    freeze: Sequence[str] = ()
    pad_vocab_to_multiple_of: Positive | None = None

    def __call__(self, auto_class: type, processor: Any = None, **head: Any) -> PreTrainedModel:
        """Build the model, in training mode.

        Args:
            auto_class: The transformers `AutoModelFor…` of the task.
            processor: The tokenizer, where the vocabulary comes from; others give nothing.
            head: What the task knows of its data.

        Raises:
            UserError: an unknown `model_type` or config value, or a vocabulary that is too small.
        """
        values = {k: v for k, v in self.config.items() if k not in ("model_type", "checkpoint")}
        if "checkpoint" in self.config:
            config = read_config(self.config["checkpoint"])
            if not self.attn_implementation:
                check_kernels(self.config["checkpoint"], config)
        else:
            config = default_config(self.config.get("model_type", ""))
        check_values(config, values)
        values = {**head, **values}
        if isinstance(processor, PreTrainedTokenizerBase):
            values = {**vocabulary(processor, config, self.pad_vocab_to_multiple_of or 1), **values}
            if values["vocab_size"] < len(processor):
                raise UserError(
                    f"model.config.vocab_size={values['vocab_size']}: the tokenizer has "
                    f"{len(processor)} tokens: leave it out."
                )
        if "checkpoint" in self.config:
            with told("model.config"):
                config.update(values)
        else:
            with told("model.config"):
                config = type(config)(**values)  # anew: a config derives some values from others
        chosen = self.attn_implementation
        with told("model.config" + (f" with model.attn_implementation={chosen}" if chosen else "")):
            model = auto_class.from_config(  # type: ignore[attr-defined]
                config, dtype=getattr(torch, self.dtype), **attention(chosen)
            )
        return finish(model, self.gradient_checkpointing, self.freeze)


def attention(implementation: str | None) -> dict[str, str]:
    """Return the argument that chooses an attention implementation, if one is chosen."""
    return {"attn_implementation": implementation} if implementation else {}


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


def positions_of(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model's positions are enough for; None where they have no end."""
    positions = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from behind the padding's
        if positions and name.endswith("position_embeddings"):
            padding = getattr(module, "padding_idx", None)
            return positions - (0 if padding is None else padding + 1)
    return positions


def compiled(model: Any, options: bool | Mapping[str, Any]) -> Any:
    """Return a model that is called through `torch.compile`, with its arguments if there are any.

    Raises:
        UserError: it does not take them.
    """
    with told("task.torch_compile"):
        return torch.compile(model, **(options if isinstance(options, Mapping) else {}))


def check_positions(model: Any, longest: int, limit: str) -> int | None:
    """Return the positions of a model, where they are limited.

    Args:
        model: The model.
        longest: Tokens of the data's longest input.
        limit: The key that shortens it.

    Raises:
        UserError: the model has fewer positions.
    """
    positions = positions_of(model)
    if positions is not None and longest > positions:
        raise UserError(
            f"the data has inputs of {longest} tokens, and the model takes {positions}: set "
            f"{limit}={positions}."
        )
    return positions


def finish(
    model: PreTrainedModel,
    gradient_checkpointing: bool | Mapping[str, Any],
    freeze: Sequence[str],
) -> PreTrainedModel:
    """Switch to training mode, freeze, and turn on gradient checkpointing where asked.

    Raises:
        UserError: a glob matches nothing, or the model cannot be checkpointed so.
    """
    for pattern in freeze:
        names = [name for name, _ in model.named_parameters() if fnmatch(name, pattern)]
        if not names:
            raise UserError(f"model.freeze: '{pattern}' matches no parameter of the model.")
        for name in names:
            model.get_parameter(name).requires_grad_(False)
    if gradient_checkpointing:
        asked = gradient_checkpointing if isinstance(gradient_checkpointing, Mapping) else {}
        arguments = inspect.signature(torch_checkpoint).parameters.values()
        known = [one.name for one in arguments if one.kind is one.KEYWORD_ONLY]
        for name in asked:
            if name not in known:
                raise UserError(
                    f"model.gradient_checkpointing: torch's checkpoint has no argument '{name}'"
                    f"{did_you_mean(name, known)}"
                )
        with told("model.gradient_checkpointing"):
            model.activation_checkpointing_enable({"use_reentrant": False, **asked})
    return model.train()
