"""Hugging Face models, from a checkpoint or from a configuration."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint as torch_checkpoint
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hydralight import adapter_files, adapters, quantized_base
from hydralight.config.ranges import Positive
from hydralight.errors import UserError, did_you_mean, told
from hydralight.hub import only_cached
from hydralight.model_configs import (
    base_of,
    check_kernels,
    check_liger,
    check_values,
    default_config,
    read_config,
    vocabulary,
)
from hydralight.quantization import Kind, settle
from hydralight.runs.checksums import is_adapter
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
        adapter: One of peft's configs, such as `LoraConfig`, for a new adapter; or the folder of
            one to go on with. It alone is trained, with the task's head.
        adapter_dtype: Of the adapter's weights; float32 of a base in bfloat16 or float16 too,
            unless said.
        quantization: Loads matrices in 4 bits (`nf4`, `fp4`) or 8 (`int8`), under an adapter;
            unless said, as those that an adapter was trained on, and `none` where they are not to
            be.
        double_quantization: Whether the scales of 4 bits are quantized too.
        compute_dtype: What matrices of 4 bits are multiplied in; `dtype` unless said.
        kernels: `liger`: that package's, for tasks that predict tokens, on a GPU.
    """

    checkpoint: str
    revision: str | None = None
    dtype: DType = "float32"
    attn_implementation: str | None = None
    gradient_checkpointing: bool | Mapping[str, Any] = False
    freeze: Sequence[str] = ()
    trust_remote_code: bool = False
    config: Mapping[str, Any] | None = None
    adapter: Any = None
    adapter_dtype: DType | None = None
    quantization: Kind | None = None
    double_quantization: bool = False
    compute_dtype: DType | None = None
    kernels: Literal["liger"] | None = None

    def __call__(self, auto_class: type, processor: Any = None, **head: Any) -> PreTrainedModel:
        """Load the model, in training mode; where the checkpoint is an adapter, in its base.

        Args:
            auto_class: The transformers `AutoModelFor…` of the task.
            processor: Embeddings are enlarged where it is a tokenizer of more tokens than the
                checkpoint's.
            head: What the task knows of its data (`num_labels`, `id2label`, …); a head of another
                size than the checkpoint's is a new one.

        Raises:
            UserError: the checkpoint cannot be found, reached or read, or a glob matches nothing.
        """
        check_liger(self.kernels, auto_class)
        folder = Path(self.checkpoint).expanduser()
        if is_adapter(folder):
            return self._of_adapter(folder, auto_class, processor, head)

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
                if self.adapter is not None:
                    raise UserError(
                        f"the tokenizer has {len(processor)} tokens, and checkpoint="
                        f"{self.checkpoint} {embeddings.num_embeddings}: an adapter has no weights "
                        "for new ones; take a checkpoint that has been enlarged."
                    )
                model.resize_token_embeddings(len(processor))
            for one in (model.config, getattr(model, "generation_config", None)):
                if one is not None and getattr(one, "pad_token_id", None) is None:
                    one.pad_token_id = processor.pad_token_id
        return finish(model, self.gradient_checkpointing, self.freeze)

    def _load(self, checkpoint: str, auto_class: type, head: Mapping[str, Any]) -> PreTrainedModel:
        """Load the checkpoint, which is perhaps called by another name, as it is."""
        attached = isinstance(self.adapter, str)  # to go on with
        of = str(adapter_files.folder_of(self.adapter)) if attached else checkpoint
        source = adapter_files.source_of(Path(of)) if attached else None
        if source is not None and source.quantization and self.quantization is None:
            return replace(self, **source.quantization)._load(checkpoint, auto_class, head)
        config = read_config(of, self.revision, self.trust_remote_code)
        if not (self.attn_implementation or self.trust_remote_code):
            check_kernels(checkpoint, config)
        check_values(config, self.config or {})
        with told("model.config"):
            config.update({**head, **(self.config or {})})
        options = {
            "config": config,
            "revision": self.revision,
            "dtype": getattr(torch, self.dtype),
            "trust_remote_code": self.trust_remote_code,
            "local_files_only": only_cached(checkpoint),
            "ignore_mismatched_sizes": "num_labels" in head or attached,
            **attention(self.attn_implementation),
        }
        with told(self.described()):
            if self.quantization in (None, "none"):
                model, found = auto_class.from_pretrained(  # type: ignore[attr-defined]
                    checkpoint, output_loading_info=True, **options
                )
            else:
                model, found = quantized_base.load(self, checkpoint, auto_class, options)
        settle(model)
        if self.adapter is None:
            return model
        if attached:
            model = adapter_files.load(model, Path(of), self.checkpoint, self.revision)
        else:
            new = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
            model = adapters.attach(
                model, self.adapter, auto_class, new, self.checkpoint, self.revision
            )
        dtype = adapter_files.dtype_of(Path(of)) if attached else None
        if self.adapter_dtype or dtype:
            quantized_base.cast(model, getattr(torch, self.adapter_dtype or str(dtype)))
        return model

    def _of_adapter(
        self, folder: Path, auto_class: type, processor: Any, head: Mapping[str, Any]
    ) -> PreTrainedModel:
        """Load the base of an adapter, which is perhaps of a run that is at work, with it."""
        if self.adapter is not None:
            raise UserError(
                f"checkpoint={self.checkpoint} is an adapter, and so is model.adapter: leave out "
                f"model.adapter, or go on with that one: model.adapter={self.checkpoint}."
            )

        def load(there: Path) -> PreTrainedModel:
            checkpoint, revision = base_of(there)
            source = adapter_files.source_of(there)
            dtype: Any = self.dtype if source is None or source.dtype is None else source.dtype
            base = replace(
                self,
                checkpoint=checkpoint,
                revision=revision,
                adapter=str(there),
                dtype=dtype,
            )
            return base(auto_class, processor, **head)

        return steadily(folder, load)

    def described(self) -> str:
        """Return what a message calls the model that cannot be loaded."""
        names = ("attn_implementation", "config", "quantization")
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
        kernels: As of `Pretrained`.
    """

    config: Mapping[str, Any]
    dtype: DType = "float32"
    attn_implementation: str | None = None
    gradient_checkpointing: bool | Mapping[str, Any] = False
    freeze: Sequence[str] = ()
    pad_vocab_to_multiple_of: Positive | None = None
    kernels: Literal["liger"] | None = None

    def __call__(self, auto_class: type, processor: Any = None, **head: Any) -> PreTrainedModel:
        """Build the model, in training mode.

        Args:
            auto_class: The transformers `AutoModelFor…` of the task.
            processor: The tokenizer, where the vocabulary comes from; others give nothing.
            head: What the task knows of its data.

        Raises:
            UserError: an unknown `model_type` or config value, or a vocabulary that is too small.
        """
        check_liger(self.kernels, auto_class)
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
