"""Prompts with two answers, of which one is preferred."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hydralight.config.ranges import Positive
from hydralight.data.chat_templates import give_template
from hydralight.data.messages import tools_of
from hydralight.data.padding import pad, pad_inputs
from hydralight.data.pairs import Pair, as_pairs, longest, tokens_of_pairs
from hydralight.data.prompts import encode_inputs
from hydralight.data.roles import Where
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.turns import ChatTemplate
from hydralight.errors import UserError

log = logging.getLogger(__name__)
SIDES = ("chosen_ids", "rejected_ids")


@dataclass(frozen=True, kw_only=True)
class Preference(Shape):
    """A prompt and two answers, as the tokenizer's chat template writes them, or as plain texts.

    A batch of pairs holds `input_ids`, `attention_mask` and `labels` (2 x pairs, length): first
    the chosen answers behind their prompts, then the rejected ones; labels are the tokens of the
    answers and of what ends them, -100 elsewhere. `prompt_length` (pairs,) is the number of tokens
    before the answers, and `margins` (pairs,) is there where rows have a margin: the bits of 32-bit
    floats, as are what a reference gives to the answers.

    Args:
        chat_template: `chatml`, `llama-3`, `zephyr`, or a file; the tokenizer's own unless said.
        chat_template_kwargs: Further variables of the template: `{enable_thinking: false}`.
        plain_texts: Take texts as they are, also where the tokenizer has a chat template.
        max_length: In tokens, of a prompt with either answer; where `too_long` is `truncate`,
            longer ones lose their oldest turns and then the beginning of the prompt.
    """

    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    plain_texts: bool = False
    max_length: Positive = 1024

    roles = ("prompt", "chosen", "rejected", "margin", "tools", "messages", "completion")
    optional_roles = ("prompt", "margin", "tools", "messages", "completion")
    targets = ("chosen", "rejected", "margin")
    text_roles = ("prompt", "chosen", "rejected")
    kept = ()

    def __post_init__(self) -> None:
        if self.plain_texts and (self.chat_template or self.chat_template_kwargs):
            raise UserError(
                "data.plain_texts=true leaves the chat template out: leave out data.chat_template "
                "and data.chat_template_kwargs."
            )

    # ------------------------------------------------------------ rows

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Return `prompt`, `chosen` and `rejected` as JSON, without the pairs that teach nothing.

        These have one and the same answer twice, or none, or differ in more than their answers.
        """
        if not {"chosen", "rejected"} <= {*rows.column_names}:
            return rows  # which are to be answered, or scored
        found = rows.map(
            as_pairs,
            batched=True,
            with_indices=True,
            fn_kwargs={"where": str(where)},
            remove_columns=[name for name in ("messages", "completion") if name in rows.features],
            desc="pairs",
        )
        reasons = found["left_out"][:]
        if counts := {one: reasons.count(one) for one in dict.fromkeys(reasons) if one}:
            said = ", ".join(
                f"{number} with {one} (the first is row {reasons.index(one) + 1})"
                for one, number in counts.items()
            )
            said = f"{where}: of {len(found)} pairs these are left out: {said}"
            if sum(counts.values()) == len(found):
                raise UserError(f"{said}; there is none left.")
            log.warning("%s", said)
            found = found.select([row for row, one in enumerate(reasons) if not one])
        if "margin" in found.column_names:
            check_margins(found, where)
        return found.remove_columns("left_out")

    def text_of(self, value: Any) -> str:
        """Return what is said in a text or in messages."""
        said = json.loads(value)
        return said if isinstance(said, str) else "\n\n".join(one["content"] for one in said)

    # ------------------------------------------------------------ the tokenizer

    def ready(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Give the tokenizer its chat template, where there is one, and see that turns end."""
        if not processor.is_fast:
            raise UserError(
                "data=preference needs a fast tokenizer (tokenizer.json), and this is none."
            )
        if self.chat_template or (processor.chat_template and not self.plain_texts):
            give_template(processor, self.chat_template)
            self.end_of_turn(processor)
        return processor

    def writes_chats(self, processor: Any) -> bool:
        """Whether the tokenizer's chat template writes the rows."""
        return bool(processor.chat_template) and not self.plain_texts

    def end_of_turn(self, processor: Any) -> str | None:
        """Return what ends a turn of the assistant; None where there are no turns."""
        return self.template(processor).end if self.writes_chats(processor) else None

    def template(self, processor: Any) -> ChatTemplate:
        """Return the tokenizer's chat template."""
        return ChatTemplate(processor, dict(self.chat_template_kwargs or {}))

    # ------------------------------------------------------------ encoding

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize pairs; or what is to be answered, and scored."""
        template = self.template(processor) if self.writes_chats(processor) else None
        if purpose == "predict":
            return encode_inputs(rows, indices, processor, template, self.max_length)
        columns = zip(*(map(json.loads, rows[role]) for role in Pair._fields), strict=True)
        pairs = [Pair(*texts) for texts in columns]
        tools = [tools_of(own) for own in rows.get("tools", [None] * len(pairs))]
        found = tokens_of_pairs(processor, template, pairs, tools, indices, self.max_length)
        encoded: Columns = {
            "prompt_ids": [one.prompt for one in found],
            "chosen_ids": [one.chosen for one in found],
            "rejected_ids": [one.rejected for one in found],
            "length": [longest(one) for one in found],
            "too_long": [one.too_long for one in found],
        }
        if "margin" in rows:
            encoded["margins"] = [float(margin) for margin in rows["margin"]]
        return encoded

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of each pair, whose answers are padded to one length."""
        return 2 * rows["length"][:][:, None]

    # ------------------------------------------------------------ batches

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad chosen and rejected answers together on the right, and prompts on the left."""
        if purpose == "predict":
            batch: Batch = pad_inputs(rows, processor, left=True)
            whole = pad_inputs([{"input_ids": row["whole"]} for row in rows], processor, left=False)
            return {**batch, **{f"whole_{name}": tensor for name, tensor in whole.items()}}
        sides = [(row["prompt_ids"], row[side]) for side in SIDES for row in rows]
        inputs = [{"input_ids": [*prompt, *answer]} for prompt, answer in sides]
        labels = [[*[-100] * len(prompt), *answer] for prompt, answer in sides]
        batch = pad_inputs(inputs, processor, pad_to_multiple_of, left=False)
        batch["labels"] = pad(labels, batch["input_ids"].shape[1], -100)
        batch["prompt_length"] = torch.tensor([len(row["prompt_ids"]) for row in rows])
        for name in ("margins", "reference_chosen", "reference_rejected"):
            if name in rows[0]:  # as bits: a trainer in 16 bits rounds what is a number
                numbers = torch.tensor([row[name] for row in rows], dtype=torch.float32)
                batch[name] = numbers.view(torch.int32)
        return batch

    def parts(self, row: Row, processor: Any) -> list[tuple[str, bool]]:
        """Return a pair as texts: the prompt, and its answers, which are trained on."""
        prompt, *answers = (
            processor.decode(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        )
        chosen, rejected = ((answer, True) for answer in answers)
        return [(prompt, False), chosen, ("\n\nrather than\n", False), rejected]


def check_margins(rows: Dataset, where: Where) -> None:
    """Look at the margins by which chosen answers are better.

    Raises:
        UserError: one is no number, or missing.
    """
    for row, margin in enumerate(rows["margin"][:]):
        if not isinstance(margin, int | float) or not np.isfinite(margin):
            raise UserError(
                f"{where}: the margin (column '{where.column('margin')}') of pair {row + 1} is "
                f"{margin!r:.40}, and should be a number; data.columns={{margin: null}} leaves "
                "margins out."
            )
