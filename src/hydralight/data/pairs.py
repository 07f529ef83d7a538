"""Pairs of answers to one prompt, of which one is preferred: what rows say of them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hydralight.data.dialogues import within
from hydralight.data.messages import DIALOGUE, Message, are_messages, filled, message, messages_of
from hydralight.data.prompts import around, messages_for, of_row
from hydralight.data.targets import tokens_of
from hydralight.data.turns import ChatTemplate, in_common, oldest
from hydralight.errors import UserError

Said = str | list[Message]  # a text, or messages
Texts = tuple[str, str, str]  # a prompt, and the two answers behind it
LAST_ANSWER = "\n\nAssistant:"  # of a dialogue as Bai et al. (2022) write it

# why a pair teaches nothing, by a word for the log
SAME, NO_ANSWER, OTHER_PROMPT = "the same answer", "no answer", "more than their answers apart"


class Pair(NamedTuple):
    """A prompt and two answers to it: texts, or messages."""

    prompt: Said
    chosen: Said
    rejected: Said


def pair_of(row: Mapping[str, Any]) -> Pair | str:
    """Return the pair of a row, or why there is none.

    Args:
        row: `chosen` and `rejected`; and `prompt`, unless both begin with it.

    Raises:
        UserError: they cannot be read, or do not belong together.
    """
    values = {role: said(row.get(role), role) for role in ("chosen", "rejected")}
    # null where the rows of a file differ in their form
    prompt = None if row.get("prompt") is None else said(row["prompt"], "prompt")
    texts = all(isinstance(one, str) for one in (*values.values(), prompt or ""))
    pair = _of_texts(prompt, **values) if texts else _of_messages(prompt, **values)  # type: ignore[arg-type]
    if isinstance(pair, str):
        return pair
    if pair.chosen == pair.rejected:
        return SAME
    return pair if all(map(is_answer, pair[1:])) else NO_ANSWER


def said(value: Any, role: str) -> Said:
    """Return a value of a table: messages (also as JSON, or one of them), or a text.

    Raises:
        UserError: there is nothing, or something else.
    """
    if value is None or value in ("", [], {}):
        raise UserError(f"the {role} is missing or empty")
    if isinstance(value, Mapping):
        return [message(value, 1)]
    if isinstance(value, str) and not are_messages(value):
        return value
    return messages_of(value, "")


def _of_texts(prompt: str | None, chosen: str, rejected: str) -> Pair | str:
    if prompt is not None:
        if repeats(prompt, chosen) and repeats(prompt, rejected):
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        return Pair(prompt, chosen, rejected)
    if DIALOGUE.match(chosen) and DIALOGUE.match(rejected):
        (head, _, answer), (other, _, worse) = (
            one.rpartition(LAST_ANSWER) for one in (chosen, rejected)
        )
        return Pair(head + LAST_ANSWER, answer, worse) if head == other else OTHER_PROMPT
    same = in_common(chosen, rejected)
    # a word is not parted: what differs begins with the space before it
    if len(same) < max(len(chosen), len(rejected)):
        same = same[: match.start()] if (match := re.search(r"\s*\S*$", same)) else same
    if not same.strip():
        raise UserError(
            "chosen and rejected do not begin alike, and there is no prompt: name its column in "
            "data.columns, as {prompt: …}"
        )
    return Pair(same, chosen[len(same) :], rejected[len(same) :])


def repeats(prompt: str, answer: str) -> bool:
    """Whether a text is a prompt with its answer, and no answer that happens to begin like it."""
    if not answer.startswith(prompt):
        return False
    return DIALOGUE.match(prompt) is not None or len(prompt.split()) > 2


def _of_messages(prompt: Said | None, chosen: Said, rejected: Said) -> Pair | str:
    head = [] if prompt is None else messages_for(prompt)
    both = [
        [{"role": "assistant", "content": one}] if isinstance(one, str) else one
        for one in (chosen, rejected)
    ]
    if prompt is None:
        places = (i for i, (a, b) in enumerate(zip(*both, strict=False)) if a != b)
        head = both[0][: next(places, min(map(len, both)) - 1)]
        if not head:
            raise UserError(
                "chosen and rejected do not begin with the same message, and there is no prompt: "
                "name its column in data.columns, as {prompt: …}"
            )
        both = [one[len(head) :] for one in both]
    for place, one in enumerate(both):
        if one[: len(head)] == head:
            both[place] = one[len(head) :]
        elif len(one) > 1 and prompt is not None and one[0]["role"] != "assistant":
            if one[0]["role"] == "system" and one[1 : len(head) + 1] == head:
                head, both[place] = one[: len(head) + 1], one[len(head) + 1 :]
                continue
            name = ("chosen", "rejected")[place]
            raise UserError(f"the {name} begins with another prompt than the prompt of the row")
    return Pair(head, *both) if all(len(one) == 1 for one in both) else OTHER_PROMPT


def is_answer(answer: Said) -> bool:
    """Whether something is said in an answer, a text or one message of the assistant."""
    if isinstance(answer, str):
        return bool(answer.strip())
    (one,) = answer
    return one["role"] == "assistant" and (bool(one["content"].strip()) or "tool_calls" in one)


def as_pairs(rows: dict[str, list], indices: list[int], where: str) -> dict[str, list]:
    """Return rows' `prompt`, `chosen` and `rejected` as JSON, and in `left_out` why there are none.

    Args:
        rows: Columns by role.
        indices: The rows' numbers.
        where: What messages call the rows.

    Raises:
        UserError: a row cannot be read.
    """
    found: dict[str, list] = {"prompt": [], "chosen": [], "rejected": [], "left_out": []}
    for place, index in enumerate(indices):
        try:
            pair = pair_of({role: filled(values[place]) for role, values in rows.items()})
        except UserError as error:
            raise UserError(f"{where}, row {index + 1}: {error}.") from error
        found["left_out"].append(pair if isinstance(pair, str) else "")
        texts = ("", "", "") if isinstance(pair, str) else pair
        for role, one in zip(("prompt", "chosen", "rejected"), texts, strict=True):
            found[role].append(json.dumps(one, ensure_ascii=False))
    return found


# ---------------------------------------------------------------- tokens


class PairTokens(NamedTuple):
    """The tokens of a prompt and of two answers, and whether something was left off."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    too_long: bool


def tokens_of_pairs(
    tokenizer: Any,
    template: ChatTemplate | None,
    pairs: Sequence[Pair],
    tools: Sequence[list[Any] | None],
    indices: Sequence[int],
    limit: int,
) -> list[PairTokens]:
    """Return the tokens of pairs, as the chat template writes them or as the texts that they are.

    An answer is what is behind the prompt for it, up to the token that ends the turn. Plain texts
    get what the tokenizer puts before a text, and its end token where they have none. Of a longer
    pair the oldest turns are left out, except for the system's message, and then the beginning of
    the prompt.

    Args:
        tokenizer: A fast one.
        template: The chat template; None where texts are plain.
        pairs: The pairs.
        tools: What the assistant of each may use.
        indices: The numbers of their rows.
        limit: In tokens, of a prompt with either answer.

    Raises:
        UserError: the template does not take one of them, or there is none.
    """
    texts: list[Texts] = []
    start, end = around(tokenizer) if template is None else ([], "")
    for index, pair, own in zip(indices, pairs, tools, strict=True):
        with of_row(index):
            if template is None:
                texts.append(plain_texts(pair, end))
            else:
                texts.append(chat_texts(template, messages_for(pair.prompt), pair, own))
    found = []
    rows = zip(indices, pairs, tools, in_three(tokenizer, texts), strict=True)
    for index, pair, own, tokens in rows:
        tokens = tokens._replace(prompt=[*start, *tokens.prompt])
        if template is not None and longest(tokens) > limit:
            with of_row(index):
                tokens = without_turns(template, pair, own, tokens, limit)
        found.append(shortened(tokens, limit))
    return found


def chat_texts(
    template: ChatTemplate, head: Sequence[Message], pair: Pair, tools: list[Any] | None
) -> Texts:
    """Return what a chat template writes of the messages of a prompt, and of two answers."""
    if not head:
        raise UserError("there is nobody to answer in it")
    answers = [
        {"role": "assistant", "content": one.strip()} if isinstance(one, str) else one[0]
        for one in pair[1:]
    ]
    (prompt, chosen), (_, rejected) = (
        template.turn([*head, one], len(head), tools) for one in answers
    )
    return prompt, chosen, rejected


def plain_texts(pair: Pair, end: str) -> Texts:
    """Return the texts of a pair, with an end behind both answers."""
    if not all(isinstance(one, str) for one in pair):
        raise UserError(
            "there are messages, and the tokenizer has no chat template that writes them (or "
            "data.plain_texts leaves it out): take data.chat_template=chatml, llama-3, zephyr, or "
            "a file"
        )
    prompt, *answers = map(str, pair)
    chosen, rejected = (one if one.endswith(end) else f"{one}{end}" for one in answers)
    return prompt, chosen, rejected


def without_turns(
    template: ChatTemplate, pair: Pair, tools: list[Any] | None, tokens: PairTokens, limit: int
) -> PairTokens:
    """Leave out the oldest turns of a prompt, as long as there are some and it is too long."""
    head = messages_for(pair.prompt)
    while longest(tokens) > limit and (span := oldest([*head, {"role": "assistant"}])):
        head = head[: span.start] + head[span.stop :]
        (tokens,) = in_three(template.tokenizer, [chat_texts(template, head, pair, tools)])
    return tokens._replace(too_long=True)


def in_three(tokenizer: Any, texts: Sequence[Texts]) -> list[PairTokens]:
    """Return the tokens of prompts and of two texts behind each; those of a prompt are the same.

    Where one of them would share a token with the prompt, both are cut at its end.
    """
    joined = [(prompt, prompt + one) for prompt, *answers in texts for one in answers]
    spans = [[(len(prompt), len(text))] for prompt, text in joined]
    parts = [
        (
            [i for i, number in zip(*one, strict=True) if number < 0],
            [i for i, number in zip(*one, strict=True) if number >= 0],
        )
        for one in tokens_of(tokenizer, [text for _, text in joined], spans)
    ]
    found = []
    for three, (head, one), (same, other) in zip(texts, parts[::2], parts[1::2], strict=True):
        if head != same:
            head, one, other = (ids for ids, _ in tokens_of(tokenizer, three, [[], [], []]))
        found.append(PairTokens(head, one, other, False))
    return found


def longest(tokens: PairTokens) -> int:
    """Return the length of a prompt with the longer one of its answers."""
    return len(tokens.prompt) + max(len(tokens.chosen), len(tokens.rejected))


def shortened(tokens: PairTokens, limit: int) -> PairTokens:
    """Leave off the beginning of a prompt, and the ends of answers that alone are too long."""
    prompt, answer = len(tokens.prompt), max(len(tokens.chosen), len(tokens.rejected))
    if prompt + answer <= limit:
        return tokens
    kept = within(limit, prompt, answer)
    head = tokens.prompt[kept.start :]
    room = limit - len(head)
    return PairTokens(head, tokens.chosen[:room], tokens.rejected[:room], True)
