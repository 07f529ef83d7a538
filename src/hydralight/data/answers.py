"""What shapes of prompts with answers have in common: who writes them, and how they are padded."""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hydralight.config.ranges import Positive
from hydralight.data.chat_templates import give_template
from hydralight.data.padding import pad, pad_inputs
from hydralight.data.prompts import encode_inputs
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.turns import ChatTemplate
from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Answers(Shape):
    """Prompts with answers, as the tokenizer's chat template writes them, or as plain texts.

    Args:
        chat_template: `chatml`, `llama-3`, `zephyr`, or a file; the tokenizer's own unless said.
        chat_template_kwargs: Further variables of the template: `{enable_thinking: false}`.
        plain_texts: Take texts as they are, also where the tokenizer has a chat template.
        max_length: In tokens, of a prompt with its answer; where `too_long` is `truncate`, longer
            ones lose their oldest turns and then the beginning of the prompt.
    """

    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    plain_texts: bool = False
    max_length: Positive = 1024

    kept = ()

    def __post_init__(self) -> None:
        if self.plain_texts and (self.chat_template or self.chat_template_kwargs):
            raise UserError(
                "data.plain_texts=true leaves the chat template out: leave out data.chat_template "
                "and data.chat_template_kwargs."
            )

    def text_of(self, value: Any) -> str:
        """Return what is said in a text or in messages."""
        said = json.loads(value)
        return said if isinstance(said, str) else "\n\n".join(one["content"] for one in said)

    def ready(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Give the tokenizer its chat template, where there is one, and see that turns end."""
        if not processor.is_fast:
            raise UserError(
                "prompts with answers need a fast tokenizer (tokenizer.json), and this is none."
            )
        if self.chat_template or (processor.chat_template and not self.plain_texts):
            give_template(processor, self.chat_template)
            self.end_of_turn(processor)
        elif processor.eos_token is None and processor.sep_token is None:
            raise UserError(
                "the tokenizer has no end token and no chat template, so that answers would not "
                "end: give data.chat_template, or a tokenizer with an end token."
            )
        return processor

    def template(self, processor: Any) -> ChatTemplate | None:
        """Return the tokenizer's chat template; None where texts are plain."""
        if not processor.chat_template or self.plain_texts:
            return None
        return ChatTemplate(processor, dict(self.chat_template_kwargs or {}))

    def end_of_turn(self, processor: Any) -> str | None:
        """Return what ends a turn of the assistant; None where there are no turns."""
        template = self.template(processor)
        return None if template is None else template.end

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize prompts with their answers; or what is to be answered, and scored."""
        if purpose == "predict":
            return encode_inputs(
                rows, indices, processor, self.template(processor), self.max_length
            )
        return self.encode_answers(rows, indices, processor)

    @abstractmethod
    def encode_answers(self, rows: Columns, indices: list[int], processor: Any) -> Columns:
        """Tokenize prompts with their answers."""

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad prompts with their answers on the right, and prompts alone on the left."""
        if purpose == "predict":
            batch: Batch = pad_inputs(rows, processor, left=True)
            whole = pad_inputs([{"input_ids": row["whole"]} for row in rows], processor, left=False)
            return {**batch, **{f"whole_{name}": tensor for name, tensor in whole.items()}}
        return self.pad_answers(rows, processor, pad_to_multiple_of)

    @abstractmethod
    def pad_answers(
        self, rows: Sequence[Row], processor: Any, pad_to_multiple_of: int | None
    ) -> Batch:
        """Pad prompts with their answers on the right."""


def padded(
    answered: Sequence[tuple[list[int], list[int]]], processor: Any, pad_to_multiple_of: int | None
) -> Batch:
    """Return the tokens of prompts with their answers, padded on the right; answers are targets.

    Args:
        answered: The tokens of each prompt, and of its answer.
        processor: The tokenizer.
        pad_to_multiple_of: What lengths are rounded up to.

    Returns:
        `input_ids`, `attention_mask` and `labels` (answers, length).
    """
    inputs = [{"input_ids": [*prompt, *answer]} for prompt, answer in answered]
    labels = [[*[-100] * len(prompt), *answer] for prompt, answer in answered]
    batch: Batch = pad_inputs(inputs, processor, pad_to_multiple_of, left=False)
    return {**batch, "labels": pad(labels, batch["input_ids"].shape[1], -100)}


def as_bits(values: Sequence[float]) -> torch.Tensor:
    """Return the bits of numbers as 32-bit floats; a trainer in 16 bits rounds what is a number."""
    return torch.tensor(values, dtype=torch.float32).view(torch.int32)
