"""Conversations, of which the assistant's turns are to be predicted."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hydralight.config.ranges import Positive
from hydralight.data.chat_templates import give_template
from hydralight.data.dialogues import Dialogue, answers_of, encode_prompts, encode_turns
from hydralight.data.messages import as_json
from hydralight.data.packing import pack
from hydralight.data.padding import pad, pad_inputs
from hydralight.data.roles import Where
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.turns import ChatTemplate, turns_of
from hydralight.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Chat(Shape):
    """Conversations as the tokenizer's chat template writes them.

    A batch holds `input_ids`, `attention_mask` and `labels` (batch, length): the tokens of the
    assistant's turns and of what ends them, -100 elsewhere. An evaluation's also holds
    `prompt_length` (batch,), the tokens before the last turn.

    Args:
        chat_template: `chatml`, `llama-3`, `zephyr`, or a file; the tokenizer's own unless said.
        chat_template_kwargs: Further variables of the template: `{enable_thinking: false}`.
        train_on: Which turns of the assistant are targets.
        max_length: In tokens; where `too_long` is `truncate`, longer conversations lose their
            oldest turns, except for the system's message, and one exchange alone the beginning of
            its prompt.
        packing: Lay the conversations of a training batch side by side into rows without padding;
            the loss is the same. Then there are `position_ids` instead of `attention_mask`.
    """

    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    train_on: Literal["all_turns", "last_turn"] = "all_turns"
    max_length: Positive = 1024
    packing: bool = False

    roles = optional_roles = (
        *("prompt", "completion", "messages", "conversations", "instruction", "input", "output"),
        *("system", "tools"),
    )
    targets = ("completion", "output")
    text_roles = ("messages",)
    not_encoded = ("packing",)
    kept = ()

    @property
    def target_capacity(self) -> int:
        """Tokens of the longest example."""
        return self.max_length

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Return `messages` and `tools` as JSON: a table would fill up mappings that differ."""
        named = [role for role, name in where.columns.items() if name]
        return rows.map(
            as_json,
            batched=True,
            with_indices=True,
            fn_kwargs={"named": named, "where": str(where)},
            remove_columns=[name for name in rows.column_names if name in self.roles],
            desc="conversations",
        )

    def with_targets(self, rows: Dataset, where: Where) -> Dataset:
        """Return the conversations in which the assistant answers, unless that is none of them."""
        answered = [
            bool(turns_of(json.loads(said)))
            for batch in rows.select_columns(["messages"]).iter(1000)
            for said in batch["messages"]
        ]
        lost = answered.count(False)
        if lost in (0, len(answered)):  # which is told with the row
            return rows
        log.warning(
            "%s: %d of %d rows are left out, as the assistant does not answer in them (the first "
            "is row %d)",
            *(where, lost, len(answered), answered.index(False) + 1),
        )
        return rows.select(np.flatnonzero(answered))

    def check_targets(self, rows: Columns) -> None:
        """Look for the assistant's answers."""
        for row, said in enumerate(rows["messages"]):
            answers_of(Dialogue(row, json.loads(said), None))

    def text_of(self, value: Any) -> str:
        """Return what is said in a conversation."""
        return "\n\n".join(message["content"] for message in json.loads(value))

    def ready(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Give the tokenizer its chat template, and see that turns have an end."""
        if not processor.is_fast:
            raise UserError("data=chat needs a fast tokenizer (tokenizer.json), and this is none.")
        give_template(processor, self.chat_template)
        self.end_of_turn(processor)
        return processor

    def end_of_turn(self, processor: Any) -> str:
        """Return what ends a turn of the assistant."""
        return self.template(processor).end

    def template(self, processor: Any) -> ChatTemplate:
        """Return the tokenizer's chat template."""
        return ChatTemplate(processor, dict(self.chat_template_kwargs or {}))

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize conversations, or the prompts for the next turn of the assistant.

        Where a template writes earlier turns otherwise than the last one, a row is several
        examples: each turn is trained on behind the prompt that asks for it.
        """
        columns = zip(indices, rows["messages"], rows["tools"], strict=True)
        read = [Dialogue(i, json.loads(said), json.loads(tools)) for i, said, tools in columns]
        template = self.template(processor)
        if purpose == "predict":
            return encode_prompts(template, read, self.max_length)
        return encode_turns(template, read, self.max_length, self.train_on == "last_turn")

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of each row."""
        return rows["length"][:][:, None]

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad on the right, prompts on the left; or pack training batches where asked."""
        if purpose == "predict":
            return pad_inputs(rows, processor, left=True)
        labels = [row["labels"] for row in rows]
        if self.packing and purpose == "train":
            documents = [row["input_ids"] for row in rows]
            return pack(documents, processor.pad_token_id, pad_to_multiple_of, labels)
        batch: Batch = pad_inputs(rows, processor, pad_to_multiple_of, left=False)
        batch["labels"] = pad(labels, batch["input_ids"].shape[1], -100)
        if purpose == "evaluate":
            batch["prompt_length"] = torch.tensor([row["prompt_length"] for row in rows])
        return batch

    def parts(self, row: Row, processor: Any) -> list[tuple[str, bool]]:
        """Return an encoded row as texts, and whether each is trained on."""
        pairs = zip(row["input_ids"], row["labels"], strict=True)
        parts = groupby(pairs, key=lambda pair: pair[1] != -100)
        return [(processor.decode([i for i, _ in part]), trained) for trained, part in parts]
