"""How texts are generated, and how they are told to be."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Interval, MinLen
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from hydralight.config import ranges
from hydralight.config.ranges import Fraction, NotNegative, Positive, Text
from hydralight.errors import UserError, did_you_mean, told
from hydralight.shards import class_name

# what a generation returns beside the tokens, and as an object with names
RETURNED = [name for name in vars(GenerationConfig()) if name.startswith(("output_", "return_"))]
# what transformers has moved to the hub, whose code is not run here, or takes and does not read
MOVED: tuple[str, ...] = ("num_beam_groups", "diversity_penalty", "penalty_alpha", "dola_layers")
MOVED += ("low_memory", "constraints", "force_words_ids")
# what transformers finds out in the middle of a generation, or not at all
RANGES: dict[str, Any] = {
    "max_new_tokens": Positive,
    "max_length": Positive,
    "min_new_tokens": NotNegative,
    "min_length": NotNegative,
    "max_time": Annotated[float, Gt(0)],
    "num_beams": Positive,
    "num_return_sequences": Positive,
    "length_penalty": float,
    "repetition_penalty": Annotated[float, Gt(0)],
    "encoder_repetition_penalty": Annotated[float, Gt(0)],
    "no_repeat_ngram_size": NotNegative,
    "encoder_no_repeat_ngram_size": NotNegative,
    "do_sample": bool,
    "use_cache": bool,
    "temperature": Annotated[float, Gt(0)],
    "top_k": NotNegative,
    "top_p": Annotated[float, Interval(gt=0, le=1)],
    "min_p": Fraction,
    "typical_p": Annotated[float, Interval(gt=0, le=1)],
    "epsilon_cutoff": Annotated[float, Interval(ge=0, lt=1)],
    "eta_cutoff": Annotated[float, Interval(ge=0, lt=1)],
    "guidance_scale": Annotated[float, Gt(0)],
    "prompt_lookup_num_tokens": Annotated[int, Ge(1)],
    "bad_words_ids": Annotated[Sequence[Annotated[Sequence[NotNegative], MinLen(1)]], MinLen(1)],
    "suppress_tokens": Sequence[NotNegative],
    "begin_suppress_tokens": Sequence[NotNegative],
    "forced_bos_token_id": NotNegative,
    "forced_eos_token_id": NotNegative | Sequence[NotNegative],
    "stop_strings": Text | Annotated[Sequence[Text], MinLen(1)],
}


def check_generation(values: Mapping[str, Any]) -> None:
    """Check values of the generation config before there is a model.

    Raises:
        UserError: there is no such value (any more), it is out of its range, or two do not go
            together.
    """
    config = GenerationConfig()
    known = [name for name in config.to_dict() if name[0] != "_" and name != "transformers_version"]
    for name, value in values.items():
        if name not in known:
            raise UserError(
                f"generation.{name}: transformers' generation config has no '{name}'"
                f"{did_you_mean(name, known)}"
            )
        if name in MOVED:
            raise UserError(
                f"generation.{name}: transformers has moved it to code on the hub, which is not "
                "run here: leave it out."
            )
        ranges.check(f"generation.{name}", value, RANGES.get(name, Any))
    with told("generation"):
        config.update(**values)
        config.validate()


def settle_generation(
    model: PreTrainedModel, defaults: Callable[[], Mapping[str, Any]], said: Mapping[str, Any]
) -> None:
    """Configure what a model is to generate, where it writes texts.

    Args:
        model: Whose generation config is changed.
        defaults: Called for the values of where neither config nor checkpoint has one.
        said: Values of the config.

    Raises:
        UserError: they do not go together, or the model writes no text.
    """
    if model.can_generate():
        configure_generation(model, {**defaults(), **said})
    elif said:
        kind, name = class_name(model), next(iter(said))
        raise UserError(f"generation.{name}: {kind} writes no text: leave it out.")


def configure_generation(model: PreTrainedModel, values: Mapping[str, Any]) -> None:
    """Overlay the generation config of a model; the checkpoint's own values stay otherwise.

    Args:
        model: Whose config is changed, in place.
        values: By name. `max_new_tokens` puts `max_length` out of force, and `do_sample=false`
            whatever says how to sample.

    Raises:
        UserError: they do not go together.
    """
    config = model.generation_config
    config._from_model_config = False  # it is its own from here on
    for name in RETURNED:  # here only tokens are read
        setattr(config, name, None)
    values = dict(values)
    if "max_new_tokens" in values:
        config.max_length = None
    if values.get("do_sample") is False:
        values |= {"temperature": None, "top_k": None, "top_p": None}
    with told("generation"):
        config.update(**values)
        config.validate(strict=True)
    config.do_sample = bool(config.do_sample)  # unsaid, `pipeline` would sample


def has_length(model: PreTrainedModel) -> bool:
    """Whether a checkpoint says how far to generate; 20 is the library's word, not its own."""
    config = model.generation_config
    return config.max_new_tokens is not None or config.max_length not in (None, 20)


@torch.no_grad()
def write(model: Any, tokenizer: Any, inputs: Mapping[str, Tensor], read: Tensor) -> dict[str, Any]:
    """Generate a text for each source of an encoder-decoder model.

    Args:
        model: The model.
        tokenizer: Decodes what it writes.
        inputs: `input_ids` and `attention_mask` of the sources (batch, length).
        read: What the encoder makes of them (batch, length, size); it does not read them again.

    Returns:
        `prediction`, the texts; and `gen_len`, their tokens, end included, start and padding not.
    """
    ids = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        encoder_outputs=BaseModelOutput(last_hidden_state=read),
    )
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    lengths = (ids[:, 1:] != model.generation_config.pad_token_id).sum(dim=1)
    return {"prediction": [text.strip() for text in texts], "gen_len": lengths.tolist()}


@torch.no_grad()
def continue_prompts(
    model: Any, tokenizer: Any, ids: Tensor, mask: Tensor, positions: int | None = None
) -> list[str]:
    """Continue prompts, each as often as `num_return_sequences` says, one after the other.

    Args:
        model: A causal language model.
        tokenizer: Decodes what it writes; a text ends before a stop string.
        ids: The prompts (batch, length), padded on the left.
        mask: 0 where they are padded (batch, length).
        positions: How many the model has, if they are limited; of a long prompt, the end is read
            that leaves room for what is to come.
    """
    config = model.generation_config
    if positions is not None:
        room = positions - (config.max_new_tokens or 0)
        ids, mask = ids[:, -room:], mask[:, -room:]
    stopping = {"tokenizer": tokenizer} if config.stop_strings else {}
    continued = model.generate(input_ids=ids, attention_mask=mask, **stopping)
    each = len(continued) // len(ids)  # num_return_sequences
    heads = tokenizer.batch_decode(ids.repeat_interleave(each, 0), skip_special_tokens=True)
    texts = tokenizer.batch_decode(continued, skip_special_tokens=True)
    alone = tokenizer.batch_decode(continued[:, ids.shape[1] :], skip_special_tokens=True)
    # alone, what is written has lost the space before it, with other tokenizers than byte-level BPE
    new = [
        text.removeprefix(head) if text.startswith(head) else rest
        for text, head, rest in zip(texts, heads, alone, strict=True)
    ]
    return [cut(text, config.stop_strings) for text in new]


def cut(text: str, markers: str | Sequence[str] | None) -> str:
    """Cut a text before the first of the markers that is in it."""
    for marker in [markers] if isinstance(markers, str) else markers or ():
        text = text.partition(marker)[0]
    return text


def ids_of(tokens: int | Sequence[int] | None) -> list[int]:
    """Return end tokens as a list: a config has one, several, or none."""
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)


def last_turns(
    batch: Mapping[str, Any], tokenizer: Any, markers: str | Sequence[str] | None
) -> tuple[Tensor, Tensor, dict[str, list[str]]]:
    """Return the prompts for the last turns of conversations, which stand behind them.

    Args:
        batch: `input_ids` (batch, length), `labels`, and `prompt_length` (batch,).
        tokenizer: Decodes prompts, with their special tokens, and turns without.
        markers: Stop strings, before which a turn ends.

    Returns:
        Token ids (batch, length) padded on the left, their mask, and `prompt` and `reference`.
    """
    ids, lengths = batch["input_ids"], batch["prompt_length"]
    width = int(lengths.max())
    prompts = ids.new_full((len(ids), width), tokenizer.pad_token_id)
    mask = torch.zeros_like(prompts)
    columns: dict[str, list[str]] = {"prompt": [], "reference": []}
    for row, length in enumerate(lengths.tolist()):
        prompts[row, width - length :] = ids[row, :length]
        mask[row, width - length :] = 1
        columns["prompt"].append(tokenizer.decode(ids[row, :length]))
        turn = ids[row, length:][batch["labels"][row, length:] != -100]
        text = tokenizer.decode(turn, skip_special_tokens=True)
        columns["reference"].append(cut(text, markers))
    return prompts, mask, columns
