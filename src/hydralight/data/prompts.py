"""What is to be answered, or scored, as a chat template writes it or as a plain text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydralight.data.messages import Message, is_conversation, messages_of, tools_of
from hydralight.data.shape import Columns
from hydralight.data.turns import ChatTemplate
from hydralight.errors import UserError


def encode_inputs(
    rows: Columns, indices: list[int], tokenizer: Any, template: ChatTemplate | None, limit: int
) -> Columns:
    """Return prompts to be answered, and what is to be scored, of rows without a preference.

    `whole` is what is to be scored: a conversation up to the end of its last turn, or a text and
    its end.

    Args:
        rows: `messages`, or a `prompt`, perhaps with its `completion`; and perhaps `tools`.
        indices: Their numbers.
        tokenizer: The tokenizer.
        template: The chat template; None where texts are plain.
        limit: In tokens; the end of what is longer is read.

    Raises:
        UserError: there is nothing in a row, or the template does not take it.
    """
    names = ("input_ids", "prompt", "whole", "length", "too_long")
    columns: Columns = {name: [] for name in names}
    for place, index in enumerate(indices):
        row = {role: values[place] for role, values in rows.items()}
        said, answer = row.get("messages") or row.get("prompt"), row.get("completion")
        head: list[int] = []
        with of_row(index):
            if not said:
                raise UserError("there is no prompt in it, and no messages")
            if template is not None:
                prompt, whole = answered(template, said, answer, tools_of(row.get("tools")))
            elif isinstance(said, str):
                head, end = around(tokenizer)
                prompt, whole = said, f"{said}{answer or ''}{end}"
            else:
                raise UserError("there are messages in it, and no chat template writes them")
        ids, all_ids = (
            [*head, *tokenizer(text, add_special_tokens=False)["input_ids"]]
            for text in (prompt, whole)
        )
        columns["input_ids"].append(ids[-limit:])
        columns["prompt"].append(prompt)
        columns["whole"].append(all_ids[-limit:])
        columns["length"].append(min(max(len(ids), len(all_ids)), limit))
        columns["too_long"].append(max(len(ids), len(all_ids)) > limit)
    return columns


def answered(
    template: ChatTemplate, said: Any, answer: Any, tools: list[Any] | None
) -> tuple[str, str]:
    """Return the prompt for the assistant's next turn, and the conversation with that turn."""
    parsed = messages_of(said, "") if not isinstance(said, str) else messages_for(said)
    whole = [*parsed, *(messages_of(answer, "assistant") if answer else [])]
    head = whole
    while head and head[-1]["role"] == "assistant":
        head = head[:-1]
    if not head:
        raise UserError("there is nobody to answer in it")
    prompt = template.render(head, tools, prompt=True)
    if len(head) == len(whole):
        return prompt, template.render(whole, tools)
    return prompt, "".join(template.turn(whole, len(whole) - 1, tools))


def messages_for(prompt: str | Sequence[Message]) -> list[Message]:
    """Return a prompt as messages: a dialogue of `Human:` and `Assistant:`, or what a user says."""
    if not isinstance(prompt, str):
        return list(prompt)
    if not is_conversation(prompt):
        return [{"role": "user", "content": prompt}]
    messages = messages_of(prompt, "")
    while messages and messages[-1] == {"role": "assistant", "content": ""}:
        messages = messages[:-1]
    return messages


def around(tokenizer: Any) -> tuple[list[int], str]:
    """Return the tokens that a tokenizer puts before a text, and the token that ends one."""
    whole = tokenizer("a")["input_ids"]
    (first, *_) = tokenizer("a", add_special_tokens=False)["input_ids"]
    return whole[: whole.index(first)], tokenizer.eos_token or tokenizer.sep_token or ""


@contextmanager
def of_row(index: int) -> Iterator[None]:
    """Name the row that an error is in."""
    try:
        yield
    except UserError as error:
        raise UserError(f"row {index + 1}: {str(error).rstrip('.')}") from error
