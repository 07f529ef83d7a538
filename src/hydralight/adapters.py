"""Adapters: few new weights that are trained in the place of a model's own, by peft.

A model with an adapter stays an ordinary one of transformers: peft puts its layers into it, and
the task goes on calling it. Weights of the base are nowhere written: a checkpoint and an exported
folder have those of the adapter, and a checksum of the base's.
"""

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hydralight import quantization
from hydralight.errors import UserError, did_you_mean, told
from hydralight.runs.checksums import ALGORITHM

STATES = {"state_dict", "current_model_state"}  # of a checkpoint; the second beside averaged ones
LINEAR = (nn.Linear, Conv1D)
# What peft calls a task, by the class that transformers has for it; the others have no name there.
TASKS = {
    "AutoModel": "FEATURE_EXTRACTION",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForQuestionAnswering": "QUESTION_ANS",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
}
WITHOUT_HEAD = {"AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM"}
WITHOUT_HEAD |= {"AutoModelForSeq2SeqLM"}


@dataclass(frozen=True)
class Source:
    """Which weights an adapter belongs to.

    Args:
        checkpoint: Hub id, or the full path of a folder.
        revision: Commit on the hub; None of a folder.
        checksum: Of the weights, as they are in memory, without those that are trained as a whole.
        unquantized: The same of those that no quantization changes.
        dtype: Of the weights, by torch's name.
        quantization: Arguments of `models.Pretrained` by which they were quantized, if they were.
    """

    checkpoint: str
    revision: str | None
    checksum: str
    unquantized: str | None = None
    dtype: str | None = None
    quantization: Mapping[str, Any] | None = None

    def same(self, other: "Source") -> bool:
        """Whether two are of the same weights, which may be quantized in another way."""
        if self.quantization == other.quantization:
            return self.checksum == other.checksum
        return self.unquantized is not None and self.unquantized == other.unquantized


@dataclass(frozen=True)
class Attached:
    """An adapter in a model.

    Args:
        peft: The `PeftModel` around the model.
        base: What the model's `state_dict` calls weights that are the base's, and not trained.
        source: Which weights these are.
    """

    peft: Any
    base: frozenset[str]
    source: Source


def attached_to(model: Any) -> Attached | None:
    """Return the adapter in a model; None where it has none."""
    return None if model is None else vars(model).get("adapter")


def package() -> Any:
    """Return peft.

    Raises:
        UserError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise UserError(
            "adapters need a package that is not installed: pip install 'hydralight[adapters]'"
        ) from error
    return peft


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what peft says of what it does right by itself, and of transformers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out")
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


# ---------------------------------------------------------------- putting one into a model


def attach(
    model: PreTrainedModel,
    config: Any,
    auto_class: type,
    missing: Iterable[str],
    checkpoint: str,
    revision: str | None,
) -> PreTrainedModel:
    """Put a new adapter into a model, whose own weights are frozen.

    The head of a task, and every module of which the checkpoint lacks weights, is trained as a
    whole and saved with the adapter, as peft's `modules_to_save`.

    Args:
        model: The model.
        config: One of peft's configs, such as `LoraConfig`.
        auto_class: The transformers `AutoModelFor…` that has built it.
        missing: Names of weights that the checkpoint lacks.
        checkpoint: Where the model's weights are from.
        revision: The same.

    Raises:
        UserError: it names modules that are not there, or peft refuses it.
    """
    peft = package()
    if not isinstance(config, peft.PeftConfig):
        raise UserError(
            f"model.adapter={config} should be one of adapter=lora and its kin, or a folder."
        )
    config = copy.deepcopy(config)
    whole = trained_whole(model, config.modules_to_save, missing, is_headed(auto_class))
    config.task_type = TASKS.get(auto_class.__name__)
    config.modules_to_save = whole or None
    for name in ("target_modules", "feedforward_modules"):
        if hasattr(config, name):
            setattr(config, name, targets(model, name, getattr(config, name), whole))
    asked = config.target_modules  # peft may shorten them, and keep them in no order
    before = dict(model.state_dict(keep_vars=True))
    values = {name: tensor.detach() for name, tensor in before.items()}
    try:
        with quiet():
            wrapped = peft.get_peft_model(model, config)
    except ValueError as error:
        if asked is None and "target_modules" in str(error):
            raise UserError(
                f"model.adapter.target_modules: peft knows none for {model.config.model_type}: "
                f"name all-linear, or some of {', '.join(short_names(model))}."
            ) from error
        with told("model.adapter"):
            raise
    config.target_modules = asked or config.target_modules
    return settled(model, wrapped, before, values, checkpoint, revision)


def settled(
    model: PreTrainedModel,
    wrapped: Any,
    before: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    checkpoint: str,
    revision: str | None,
) -> PreTrainedModel:
    """Note in a model which adapter it has, and which of its weights are the base's.

    Args:
        model: The model.
        wrapped: peft's around it.
        before: What its weights were before, by name.
        values: Their values then, which an adapter's beginning may change.
        checkpoint: Where they are from.
        revision: The same.
    """
    quantization.leave_scales_out(model)
    own = {id(one) for one in before.values()}
    now = model.state_dict(keep_vars=True)
    base = frozenset(n for n, one in now.items() if id(one) in own and not one.requires_grad)
    config = wrapped.peft_config["default"]
    whole = list(dict.fromkeys(config.modules_to_save or ()))  # peft names a head twice
    config.modules_to_save = whole or None
    kept = {n: one for n, one in values.items() if not is_within(n, whole)}
    unquantized = checksum_of(quantization.never_quantized(model, kept))
    folder = Path(checkpoint).expanduser()
    name = str(folder.resolve()) if folder.is_dir() else checkpoint
    commit = getattr(model.config, "_commit_hash", None)
    revision = None if folder.is_dir() else commit or revision
    config.base_model_name_or_path, config.revision = name, revision
    # not as a module of the model, which is a part of it
    dtype = str(model.dtype).removeprefix("torch.")
    how = quantization.how(model)
    source = Source(name, revision, checksum_of(kept), unquantized, dtype, how)
    vars(model)["adapter"] = Attached(wrapped, base, source)
    return model


def is_headed(auto_class: type) -> bool:
    """Whether the models of a task have a head, which is trained as a whole."""
    return auto_class.__name__ not in WITHOUT_HEAD


def checksum_of(state: Mapping[str, Tensor]) -> str:
    """Return the checksum of tensors, with their names, shapes and types."""
    digest = xxhash.xxh3_128()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"{ALGORITHM}:{digest.hexdigest()}"


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether a dotted name is of one of these modules, whose names may begin anywhere in it."""
    return any(f".{module}." in f".{name}." for module in modules)


def trained_whole(
    model: PreTrainedModel, asked: Sequence[str] | None, missing: Iterable[str], headed: bool
) -> list[str]:
    """Return the modules that are trained as a whole: what was asked for, the head, what is new.

    Raises:
        UserError: there is no such module.
    """
    modules = dict(model.named_modules())
    whole = list(asked or ())
    for name in whole:
        if not any(f".{one}".endswith(f".{name}") for one in modules):
            near = did_you_mean(name, [*short_names(model), *modules])
            raise UserError(
                f"model.adapter.modules_to_save: the model has no module '{name}'{near}"
            )
    body = model.base_model_prefix
    if headed and body in dict(model.named_children()):
        behind = ((n, one) for n, one in model.named_children() if n != body)
        whole += [n for n, one in behind if n not in whole and any(True for _ in one.parameters())]
    for weight in missing:
        module = weight.rpartition(".")[0]
        if module and not is_within(module, whole):
            whole.append(module)
    return whole


def targets(model: PreTrainedModel, key: str, asked: Any, whole: Sequence[str]) -> list[str] | None:
    """Return the modules that get an adapter, by the ends of their names.

    Args:
        model: The model.
        key: Of the config, for the message.
        asked: Names, or globs over names, of linear layers; `all-linear` for all of them except
            the output's; None leaves it to peft, which knows those of many architectures.
        whole: Modules that are trained as a whole, which get none.

    Raises:
        UserError: a name or glob fits no module.
    """
    if asked is None:
        return None
    names = [name for name, _ in model.named_modules() if name]
    output = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, LINEAR) and module is not output and not is_within(name, whole)
    ]
    patterns = [asked] if isinstance(asked, str) else sorted(asked)
    if patterns == ["all-linear"]:
        return linear
    chosen: dict[str, None] = {}
    for pattern in patterns:
        is_glob = any(sign in pattern for sign in "*?[")
        found = [
            name
            for name in (linear if is_glob else names)
            if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
        ]
        kept = [name for name in found if not is_within(name, whole)]
        if not kept:
            there = short_names(model)
            near = "" if is_glob else did_you_mean(pattern, [*there, "all-linear"])
            raise UserError(
                f"model.adapter.{key}: '{pattern}' is no linear layer of the model "
                f"({', '.join(there)}){near or '.'}"
            )
        chosen |= dict.fromkeys(kept if is_glob or kept != found else [pattern])
    return list(chosen)


def short_names(model: nn.Module) -> list[str]:
    """Return the last parts of the names of a model's linear layers, each once."""
    linear = (name for name, module in model.named_modules() if isinstance(module, LINEAR))
    return list(dict.fromkeys(name.rpartition(".")[2] for name in linear))


# ---------------------------------------------------------------- checkpoints


def other_base(what: str, before: Source, now: Source) -> str:
    """Say that an adapter is to go with weights that it was not trained on."""
    at = f" at {before.revision}" if before.revision else ""
    return (
        f"{what} was trained on other weights than those of {now.checkpoint} (or another "
        f"model.dtype): they were {before.checkpoint}{at}; give these."
    )


def leave_base_out(checkpoint: dict[str, Any], model: Any) -> None:
    """Take the base's weights out of a checkpoint, and put in which ones they were."""
    own = attached_to(model)
    if own is None:
        return
    base = {f"model.{name}" for name in own.base}
    for key in checkpoint.keys() & STATES:
        checkpoint[key] = {n: one for n, one in checkpoint[key].items() if n not in base}
    checkpoint["base"] = vars(own.source)


def put_base_back(checkpoint: dict[str, Any], model: Any) -> None:
    """Put the weights of the base, which have been read again, into a checkpoint without them.

    Raises:
        UserError: they are other weights than those that it was trained on.
    """
    own = attached_to(model)
    if own is None or "base" not in checkpoint:
        return
    before = Source(**checkpoint["base"])
    if before.checksum != own.source.checksum:
        raise UserError(other_base("the checkpoint's adapter", before, own.source))
    state = model.state_dict()
    base = {f"model.{name}": state[name] for name in own.base}
    for key in checkpoint.keys() & STATES:
        checkpoint[key] = {**base, **checkpoint[key]}
