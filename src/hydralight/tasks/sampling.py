"""How a policy writes completions, and what may write them in its place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn, and how many.

    Args:
        max_new_tokens: Of a completion.
        temperature: What logits are divided by.
        top_k: How many tokens are drawn from; None for all.
        top_p: Part of the probability that is drawn from.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0


class Generator(Protocol):
    """What writes completions; `task.generator` names another than the model itself."""

    def generate(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        num_generations: int,
        seeds: Sequence[int] | None,
        sampling: Sampling,
    ) -> Tensor:
        """Write completions of prompts.

        Args:
            model: The model as it is trained, with the ends of a text in its generation config.
            input_ids: The prompts (batch, length), padded on the left.
            attention_mask: 0 where they are padded (batch, length).
            num_generations: How many for each prompt.
            seeds: What those of each prompt are drawn from (batch,); None takes the most likely
                token each time.
            sampling: How they are drawn.

        Returns:
            Token ids (batch times num_generations, new length): those of the first prompt, then
            those of the second. A completion that ends before the longest has its end token, and
            behind it whatever fills up.
        """


class Policy:
    """The model itself writes, in evaluation mode and with its cache.

    What is drawn for a prompt is a function of its seed and of the logits: it does not depend on
    the other prompts of the batch, nor on the device that has it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @torch.no_grad()
    def generate(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        num_generations: int,
        seeds: Sequence[int] | None,
        sampling: Sampling,
    ) -> Tensor:
        """Write completions of prompts, as `Generator` says."""
        ids = input_ids.repeat_interleave(num_generations, dim=0)
        mask = attention_mask.repeat_interleave(num_generations, dim=0)
        drawn = LogitsProcessorList()
        if seeds is not None:
            if sampling.temperature != 1.0:
                drawn.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_k:
                drawn.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1.0:
                drawn.append(TopPLogitsWarper(float(sampling.top_p)))
            drawn.append(Gumbel(seeds, num_generations, ids.device))
        pad = self.tokenizer.pad_token_id
        with neutral(model, sampling.max_new_tokens, pad), evaluating(model):
            stops = model.generation_config.stop_strings
            more = {"tokenizer": self.tokenizer} if stops else {}
            written = model.generate(
                input_ids=ids, attention_mask=mask, logits_processor=drawn, **more
            )
        return written[:, ids.shape[1] :]


class Gumbel:
    """Adds noise to logits, whose largest is then a token drawn by its probability.

    The noise of each prompt is a stream of its own (Gumbel, 1954; Maddison et al., 2014).

    Args:
        seeds: Of each prompt.
        number: Completions of a prompt.
        device: Where the noise is drawn.
    """

    def __init__(self, seeds: Sequence[int], number: int, device: torch.device) -> None:
        self.streams = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.number = number

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with noise (batch, vocabulary)."""
        scores = scores.float()
        shape = (self.number, scores.shape[-1])
        waits = [
            torch.empty(shape, device=scores.device).exponential_(generator=stream)
            for stream in self.streams
        ]
        return scores - torch.cat(waits).log()


@contextmanager
def neutral(model: Any, max_new_tokens: int, pad_token_id: int) -> Iterator[None]:
    """Let a model write by its own probabilities alone, whatever its generation config says.

    Only the ends of a text are kept; a penalty on repetitions, say, would make other probabilities
    of them than those that are trained.
    """
    own = model.generation_config
    kept = {n: getattr(own, n) for n in ("bos_token_id", "eos_token_id", "stop_strings")}
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=pad_token_id,
        **kept,
    )
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch to evaluation mode, and back to what each module was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
