"""Conversations from rows: messages, prompts with their completions, instructions."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hydralight.errors import UserError, did_you_mean

Message = dict[str, Any]  # `role` and `content`, and whatever else a chat template reads

# The roles of a row that make a conversation together; the first one has to be there.
FORMS: tuple[tuple[str, ...], ...] = (
    ("messages",),
    ("conversations",),
    ("prompt", "completion"),
    ("instruction", "input", "output"),
)
FORMS_IN_WORDS = "messages, conversations, prompt and instruction"
SPEAKERS = ("system", "developer", "user", "assistant", "tool")
ALSO_CALLED = {
    **{"human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant"},
    **{"model": "assistant", "bot": "assistant", "ai": "assistant", "function_call": "assistant"},
    **{"function": "tool", "observation": "tool", "function_response": "tool", "ipython": "tool"},
}
SPOKEN = re.compile(r"""\s*\[\{\s*["'](role|from|content|value)["']\s*:""")  # a first message
DIALOGUE = re.compile(r"(?:^|\n\n)(Human|Assistant):")  # Bai et al., 2022 (HH-RLHF)


def form_of(there: Collection[str], named: Collection[str]) -> tuple[str, ...] | None:
    """Return the form that a conversation has; None where there is none.

    Args:
        there: The roles that have a value.
        named: Those whose column somebody has named, which go before the others.
    """
    forms = [form for form in FORMS if form[0] in there]
    return min(forms, key=lambda form: not {*named} & {*form}, default=None)


def conversation(row: Mapping[str, Any], form: Sequence[str]) -> list[Message]:
    """Return the messages of a row.

    Args:
        row: Values by role; also `system`, the text of a first message.
        form: One of `FORMS`.

    Raises:
        UserError: they cannot be read.
    """
    if form[0] == "instruction":
        texts = [row.get(role) for role in ("instruction", "input")]
        parts = [part["content"].strip() for text in texts for part in messages_of(text, "user")]
        whole = "\n\n".join(part for part in parts if part)
        messages = messages_of(whole, "user") + messages_of(row.get("output"), "assistant")
    elif form[0] == "prompt":
        messages = messages_of(row.get("prompt"), "user")
        answer = messages_of(row.get("completion"), "assistant")
        repeated = answer[: len(messages)] == messages and len(answer) > 1
        messages = answer if repeated else messages + answer
    else:
        messages = messages_of(row.get(form[0]), "")
    if row.get("system") and (not messages or messages[0]["role"] != "system"):
        messages = [{"role": "system", "content": row["system"]}, *messages]
    return messages


def messages_of(value: Any, speaker: str) -> list[Message]:
    """Return what a value of a table says.

    Args:
        value: Messages (also as JSON), or a text.
        speaker: The role of a text; where there is none, it may be a dialogue of `Human:` and
            `Assistant:`, and is the user's otherwise.
    """
    if value is None or value == "" or value == []:
        return []
    if isinstance(value, str) and (are_messages(value) if speaker else begins_as_json(value)):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"the messages are no JSON ({error})") from error
    if isinstance(value, str):
        parts = DIALOGUE.split(value)
        if speaker or len(parts) == 1:
            return [{"role": speaker or "user", "content": value}]
        if parts[0].strip():
            raise UserError("the dialogue does not begin with 'Human:' or 'Assistant:'")
        turns = zip(parts[1::2], parts[2::2], strict=True)
        roles = {"Human": "user", "Assistant": "assistant"}
        return [{"role": roles[who], "content": text.strip()} for who, text in turns]
    if not isinstance(value, Sequence):
        raise UserError(
            f"there should be a text or messages, not {value!r:.40} (a template in data.columns "
            "writes a value as text: '{…}')"
        )
    return [message(one, number) for number, one in enumerate(value, start=1)]


def begins_as_json(text: str) -> bool:
    """Whether a text begins as a list of mappings does."""
    return text.lstrip().startswith("[{")


def are_messages(text: str) -> bool:
    """Whether a text is messages as JSON, or was meant to be; other JSON is what somebody says."""
    if not begins_as_json(text):
        return False
    try:
        first = json.loads(text)[0]
    except ValueError:
        return SPOKEN.match(text) is not None
    names = (("role", "content"), ("role", "tool_calls"), ("from", "value"))
    return any({*pair} <= first.keys() for pair in names)


def is_conversation(value: Any) -> bool:
    """Whether a value of a table looks like messages, or a dialogue."""
    if isinstance(value, str):
        return DIALOGUE.match(value) is not None
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, Mapping) and bool({"role", "from"} & first.keys())


def message(one: Any, number: int) -> Message:
    """Return a message with `role` and `content`.

    Args:
        one: A message of OpenAI's form (`role`, `content`) or ShareGPT's (`from`, `value`).
        number: Its place, from 1, for messages.
    """
    if not isinstance(one, Mapping):
        raise UserError(f"message {number} should be {{role: …, content: …}}, not {one!r:.40}")
    rest = {key: value for key, value in one.items() if value is not None}
    role = rest.pop("role", None) or rest.pop("from", None)
    known = [*SPEAKERS, *ALSO_CALLED]
    if role not in known:
        there = f"there is {', '.join(one)}" if role is None else f"it is {role!r}"
        near = did_you_mean(str(role), known).rstrip("?")
        raise UserError(f"message {number} has no role of {', '.join(SPEAKERS)} ({there}{near})")
    rest.pop("from", None)
    names = [name for name in ("content", "value", "text") if name in rest]
    content = rest.pop(names[0]) if names else ""
    if isinstance(content, list):
        content = "".join(text_of_part(part, number) for part in content)
    if not isinstance(content, str):
        raise UserError(f"message {number} holds no text, but {content!r:.40}")
    if "tool_calls" in rest:
        rest["tool_calls"] = [with_arguments(call) for call in rest["tool_calls"]]
        if not rest["tool_calls"]:
            del rest["tool_calls"]
    return {"role": ALSO_CALLED.get(role, role), "content": content, **rest}


def text_of_part(part: Any, number: int) -> str:
    """Return the text of a part of a message's content."""
    if isinstance(part, Mapping) and part.get("type", "text") == "text":
        return str(part.get("text") or "")
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise UserError(f"message {number} has a part that is no text ({kind!r:.40})")


def with_arguments(call: Any) -> Any:
    """Return a call of a tool whose arguments are a mapping, as chat templates take them.

    OpenAI writes them as JSON.
    """
    inner = call.get("function", call) if isinstance(call, Mapping) else {}
    if not isinstance(inner.get("arguments"), str):
        return call
    try:
        arguments = json.loads(inner["arguments"])
    except ValueError:
        return call
    changed = {**inner, "arguments": arguments}
    return {**call, "function": changed} if "function" in call else changed


def filled(value: Any) -> Any:
    """Return a value without the fields that a table fills up with nothing."""
    if isinstance(value, Mapping):
        return {key: filled(one) for key, one in value.items() if one is not None}
    return [filled(one) for one in value] if isinstance(value, list) else value


def tools_of(value: Any) -> list[Any] | None:
    """Return the descriptions of the tools that a conversation may use; JSON is read.

    Raises:
        UserError: it is no list.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"the tools are no JSON ({error})") from error
    if not value:
        return None
    if not isinstance(value, list):
        raise UserError(f"the tools should be a list, not {type(value).__name__}")
    return value


def as_json(
    rows: dict[str, list], indices: list[int], named: Sequence[str], where: str
) -> dict[str, list]:
    """Return `messages` and `tools` of rows as JSON.

    Args:
        rows: Columns by role.
        indices: The rows' numbers.
        named: The roles whose column somebody has named.
        where: What messages call the rows.

    Raises:
        UserError: a row has no conversation that can be read.
    """
    found: dict[str, list] = {"messages": [], "tools": []}
    for place, index in enumerate(indices):
        row = {role: filled(values[place]) for role, values in rows.items()}
        form = form_of([role for role, value in row.items() if value], named)
        try:
            if form is None:
                raise UserError(f"there is no conversation: {FORMS_IN_WORDS} are empty, or missing")
            messages, tools = conversation(row, form), tools_of(row.get("tools"))
        except UserError as error:
            raise UserError(f"{where}, row {index + 1}: {error}.") from error
        found["messages"].append(json.dumps(messages, ensure_ascii=False))
        found["tools"].append(json.dumps(tools, ensure_ascii=False))
    return found
