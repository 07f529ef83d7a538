"""Prompts that a model is to answer, with what rewards are made of beside them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hydralight.config.ranges import Positive
from hydralight.data.chat_templates import give_template
from hydralight.data.dialogues import Dialogue, encode_prompts
from hydralight.data.ends import left_open, without_end
from hydralight.data.messages import are_messages, filled, messages_of, tools_of
from hydralight.data.padding import pad_inputs
from hydralight.data.roles import Where
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.data.turns import ChatTemplate
from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Prompts(Shape):
    """Prompts: texts that are continued, or messages that the assistant answers.

    A batch holds `input_ids` and `attention_mask` (batch, length), padded on the left, and lists:
    `prompt`, the text that the model reads; `said`, the text or the messages of the data, as JSON;
    and `rest`, all columns of the row, as JSON.

    Args:
        chat: Whether a prompt that is a text is the user's message, which the tokenizer's chat
            template writes; otherwise it is read as it is. Lists of messages are always written
            by the template.
        chat_template: `chatml`, `llama-3`, `zephyr`, or a file; the tokenizer's own unless said.
        chat_template_kwargs: Further variables of the template: `{enable_thinking: false}`.
        max_length: In tokens; of longer prompts the end is read, and conversations lose their
            oldest turns, except for the system's message.
    """

    chat: bool = False
    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    max_length: Positive = 512

    roles = ("prompt", "system", "tools", "rest")
    optional_roles = ("system", "tools", "rest")
    text_roles = ("prompt",)
    kept = ()
    keeps_columns = True

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Return `prompt` as JSON, a text or messages and tools, and `rest`."""
        others = [name for name in rows.column_names if name in ("system", "tools")]
        return rows.map(
            as_said,
            batched=True,
            with_indices=True,
            fn_kwargs={"chat": self.chat, "where": str(where)},
            remove_columns=others,
            desc="prompts",
        )

    def text_of(self, value: Any) -> str:
        """Return what is said in a prompt."""
        said = json.loads(value)
        if isinstance(said, str):
            return said
        return "\n\n".join(message["content"] for message in said["messages"])

    def ready(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Give the tokenizer its chat template where one is used; no prompt is ended."""
        if self.chat or self.chat_template:
            if not processor.is_fast:
                raise UserError("data.chat needs a fast tokenizer (tokenizer.json).")
            give_template(processor, self.chat_template)
        return left_open(processor)

    def end_of_turn(self, processor: Any) -> str | None:
        """Return what ends a turn of the assistant, where there is a chat template."""
        if not processor.chat_template:
            return None
        try:
            return self.template(processor).end
        except UserError:
            if self.chat:
                raise
            return None  # texts may be continued without it

    def template(self, processor: Any) -> ChatTemplate:
        """Return the tokenizer's chat template.

        Raises:
            UserError: it has none.
        """
        give_template(processor, None)
        return ChatTemplate(processor, dict(self.chat_template_kwargs or {}))

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize prompts; one alike whether it is trained on, evaluated or predicted on."""
        said = [json.loads(value) for value in rows["prompt"]]
        columns: Columns = {name: [] for name in ("input_ids", "prompt", "length", "too_long")}
        for index, one in zip(indices, said, strict=True):
            if isinstance(one, str):
                encoded = self._as_it_is(one, processor)
            else:
                dialogue = Dialogue(index, one["messages"], one["tools"])
                encoded = encode_prompts(self.template(processor), [dialogue], self.max_length)
            for name, values in columns.items():
                values += encoded[name]
        own = [one if isinstance(one, str) else one["messages"] for one in said]
        rest = ["{}"] * len(said) if purpose == "predict" else rows["rest"]
        as_json = [json.dumps(one, ensure_ascii=False) for one in own]
        return {**columns, "said": as_json, "rest": rest, "row": indices}

    def _as_it_is(self, text: str, processor: Any) -> Columns:
        ids = processor(text, return_token_type_ids=False, verbose=False)["input_ids"]
        ids = without_end(processor, ids)
        return {
            "input_ids": [ids[-self.max_length :]],
            "prompt": [text],
            "length": [min(len(ids), self.max_length)],
            "too_long": [len(ids) > self.max_length],
        }

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
        """Pad on the left: what is written stands behind the prompt."""
        return {**pad_inputs(rows, processor, left=True), "said": [row["said"] for row in rows]}


def as_said(
    rows: dict[str, list], indices: list[int], chat: bool, where: str
) -> dict[str, list[str]]:
    """Return prompts as JSON: a text, or `messages` and `tools`.

    Args:
        rows: Columns by role.
        indices: The rows' numbers.
        chat: Whether a text is the user's message.
        where: What messages call the rows.

    Raises:
        UserError: a row has no prompt that can be read.
    """
    found = []
    for place, index in enumerate(indices):
        row = {role: filled(values[place]) for role, values in rows.items()}
        prompt = row["prompt"]
        try:
            if prompt is None or prompt == [] or not str(prompt).strip():
                raise UserError("the prompt is empty")
            is_text = isinstance(prompt, str) and not are_messages(prompt)
            if is_text and not chat:
                found.append(json.dumps(prompt, ensure_ascii=False))
                continue
            messages = messages_of(prompt, "user" if chat and is_text else "")
            if row.get("system") and messages[0]["role"] != "system":
                messages = [{"role": "system", "content": row["system"]}, *messages]
            said = {"messages": messages, "tools": tools_of(row.get("tools"))}
        except UserError as error:
            raise UserError(f"{where}, row {index + 1}: {error}.") from error
        found.append(json.dumps(said, ensure_ascii=False))
    return {"prompt": found}
