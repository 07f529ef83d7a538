"""The tokens of conversations, cut between their turns where they are too long."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hydralight.data.messages import Message
from hydralight.data.shape import Columns
from hydralight.data.targets import tokens_of
from hydralight.data.turns import ChatTemplate, Example, oldest, turns_of
from hydralight.errors import UserError


class Dialogue(NamedTuple):
    """A conversation, the row that it is of, and the tools that its assistant may use."""

    row: int
    messages: list[Message]
    tools: list[Any] | None


def encode_turns(
    template: ChatTemplate, dialogues: Sequence[Dialogue], limit: int, last_only: bool = False
) -> Columns:
    """Return the encoded columns of conversations that are trained on or evaluated.

    `prompt_length` is the number of tokens before the last trained turn.

    Args:
        template: The chat template.
        dialogues: The conversations; each becomes an example, or several.
        limit: In tokens; longer ones lose their oldest turns, and what `within` says.
        last_only: Whether only the last turn of the assistant is trained on.

    Raises:
        UserError: the assistant does not answer, or the template does not take a conversation.
    """
    examples: list[tuple[Dialogue, Example]] = []
    for one in dialogues:
        turns = answers_of(one, last_only)
        with _told(one.row):
            found = template.examples(one.messages, turns, one.tools)
        examples += [(one, example) for example in found]
    texts = [example.text for _, example in examples]
    encoded = tokens_of(template.tokenizer, texts, [example.spans for _, example in examples])
    names = ("input_ids", "labels", "prompt_length", "length", "too_long", "row")
    columns: Columns = {name: [] for name in names}
    for (one, example), (ids, numbers) in zip(examples, encoded, strict=True):
        columns["too_long"].append(len(ids) > limit)
        while len(ids) > limit and (span := oldest(example.messages)):
            with _told(one.row):
                example = _without(template, example, span, one.tools)
            ((ids, numbers),) = tokens_of(template.tokenizer, [example.text], [example.spans])
        labels = [i if number >= 0 else -100 for i, number in zip(ids, numbers, strict=True)]
        prompt = numbers.index(len(example.spans) - 1)
        kept = within(limit, prompt, len(ids) - prompt)
        columns["input_ids"].append(ids[kept])
        columns["labels"].append(labels[kept])
        columns["prompt_length"].append(prompt - kept.start)
        columns["length"].append(min(len(ids), limit))
        columns["row"].append(one.row)
    return columns


def within(limit: int, prompt: int, answer: int) -> slice:
    """Return which tokens are kept of a prompt and its answer, which cannot be cut between turns.

    The prompt loses its beginning, as it does where it is to be answered. An answer that is longer
    than the limit loses its end, and half of the room is the prompt's.
    """
    room = limit - answer if answer < limit else limit // 2
    start = max(0, prompt - room)
    return slice(start, start + limit)


def answers_of(one: Dialogue, last_only: bool = False) -> list[int]:
    """Return which messages of a conversation are the assistant's answers.

    Raises:
        UserError: there is none.
    """
    turns = turns_of(one.messages, last_only)
    if not turns:
        raise UserError(
            f"row {one.row + 1}: the assistant does not answer the user in it: name the column of "
            "the answers in data.columns (completion of a prompt, output of an instruction), or "
            "leave the row out"
        )
    return turns


def encode_prompts(template: ChatTemplate, dialogues: Sequence[Dialogue], limit: int) -> Columns:
    """Return the encoded columns of what asks for the assistant's next turn; `prompt` is its text.

    A last turn of the assistant's own is left out. Of a longer prompt the end is read, behind the
    system's message if there are turns to leave out.
    """
    columns: Columns = {name: [] for name in ("input_ids", "prompt", "length", "too_long")}
    for row, messages, tools in dialogues:
        while messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        if not messages:
            raise UserError(f"row {row + 1}: there is nobody to answer in it")
        with _told(row):
            text, ids = _prompt(template, messages, tools)
            too_long = len(ids) > limit
            while len(ids) > limit and (span := oldest(messages)):
                messages = messages[: span.start] + messages[span.stop :]
                text, ids = _prompt(template, messages, tools)
        columns["input_ids"].append(ids[-limit:])
        columns["prompt"].append(text)
        columns["length"].append(min(len(ids), limit))
        columns["too_long"].append(too_long)
    return columns


def _prompt(
    template: ChatTemplate, messages: Sequence[Message], tools: list[Any] | None
) -> tuple[str, list[int]]:
    text = template.render(messages, tools, prompt=True)
    ((ids, _),) = tokens_of(template.tokenizer, [text], [[]])
    return text, ids


def _without(
    template: ChatTemplate, example: Example, span: range, tools: list[Any] | None
) -> Example:
    """Return an example without some messages, which are not its last ones."""
    messages = example.messages[: span.start] + example.messages[span.stop :]
    turns = [turn - len(span) for turn in example.turns if turn >= span.stop]
    return template.example(messages, turns, tools)[0]


@contextmanager
def _told(row: int) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"row {row + 1}: {str(error).rstrip('.')}") from error
