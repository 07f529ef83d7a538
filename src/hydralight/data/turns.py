"""What of a conversation is trained on, as characters of what a chat template renders."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hydralight.data.messages import Message
from hydralight.errors import UserError, first_line

ASKED, ANSWER = "Which one?", "That one."  # of a conversation that a template is tried with


@dataclass(frozen=True)
class Example:
    """A conversation as text.

    Args:
        messages: Up to the last turn that is trained on.
        turns: Which of them are trained on.
        text: As rendered, up to the end of the last turn.
        spans: The first character of each trained turn, and the one behind its end.
    """

    messages: list[Message]
    turns: list[int]
    text: str
    spans: list[tuple[int, int]]


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a tokenizer.

    A turn of the assistant is what is rendered behind the prompt for it, up to the token that ends
    it. So what is trained on is what is to be generated, and no template has to mark it.

    Args:
        tokenizer: With a chat template.
        arguments: Further variables of the template, such as `enable_thinking`.
    """

    tokenizer: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def render(
        self, messages: Sequence[Message], tools: list[Any] | None = None, prompt: bool = False
    ) -> str:
        """Return messages as text, with the prompt for the assistant's next turn if asked.

        Raises:
            UserError: the template does not take them.
        """
        try:
            return self.tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                add_generation_prompt=prompt,
                tokenize=False,
                **self.arguments,
            )
        except Exception as error:  # whatever the template raises
            why = first_line(error)
            raise UserError(f"the chat template takes no such conversation ({why})") from error

    @cached_property
    def special(self) -> re.Pattern[str]:
        """The tokens that are never split; some tokenizers have such of white space too."""
        added = {str(token) for token in self.tokenizer.added_tokens_decoder.values()}
        known = [token for token in {*added, *self.tokenizer.all_special_tokens} if token.strip()]
        tokens = sorted(known, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")

    @cached_property
    def end(self) -> str:
        """What ends a turn of the assistant, such as `<|im_end|>`.

        Raises:
            UserError: the template puts nothing there, or has no prompt for the assistant's turn.
        """
        asked, answer = {"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWER}
        whole = self.render([asked, answer, asked, answer])
        prompts = [self.render([asked], prompt=one) for one in (True, False)]
        said = self.render([asked, answer])
        header = said.removeprefix(prompts[0]).partition(ANSWER)[0].strip()
        if prompts[0] == prompts[1] and said.startswith(prompts[0]) and header:
            raise UserError(
                f"the chat template has no prompt for the assistant's turn ({header!r}), which "
                "add_generation_prompt asks for: give another one in data.chat_template."
            )
        _, *tails = whole.split(ANSWER)
        if len(tails) != 2:
            raise UserError(
                "the chat template does not show what the assistant says: give another one in "
                "data.chat_template."
            )
        if match := re.match(rf"\s*({self.special.pattern})", tails[0]):
            return match[1]
        words = in_common(*tails).split()
        if not words:
            raise UserError(
                "the chat template puts nothing behind the assistant's turn that ends it, so that "
                "a model would never learn to stop: give another one in data.chat_template."
            )
        return words[0]

    def turn(
        self, messages: Sequence[Message], place: int, tools: list[Any] | None
    ) -> tuple[str, str]:
        """Return the prompt for a turn of the assistant, and what is to be written behind it.

        Raises:
            UserError: the template rewrites the prompt once the turn is there.
        """
        prompt = self.render(messages[:place], tools, prompt=True)
        text = self.render(messages[: place + 1], tools)
        if not text.startswith(prompt):
            same = len(in_common(prompt, text))
            raise UserError(
                f"the chat template's prompt for message {place + 1} ends in "
                f"{prompt[same:][-40:]!r}, and with that message it is {text[same:][:40]!r}: what "
                "is trained on would not be what is asked for; write the message as the "
                "template wants it, or give data.chat_template_kwargs or data.chat_template"
            )
        stop = text.rfind(self.end, len(prompt)) + len(self.end)
        if stop < len(prompt) + len(self.end):  # some end a call of a tool otherwise
            others = [match.end() for match in self.special.finditer(text, len(prompt))]
            if not others or text[others[-1] :].strip():  # one within the turn ends nothing
                raise UserError(
                    f"the chat template does not end message {place + 1} with {self.end!r}"
                )
            stop = others[-1]
        return prompt, text[len(prompt) : stop]

    def example(
        self, messages: list[Message], turns: Sequence[int], tools: list[Any] | None = None
    ) -> tuple[Example, list[int]]:
        """Return a conversation up to the last of its turns, and the turns that differ in it.

        A template may write earlier turns otherwise than it did when they were the last ones,
        without their reasoning for instance: there they are not trained on.

        Args:
            messages: The conversation.
            turns: Which messages are to be trained on; at least one.
            tools: What the assistant may use.
        """
        messages = messages[: turns[-1] + 1]
        whole = self.render(messages, tools)
        spans, same, others = [], [], []
        for place in turns:
            prompt, said = self.turn(messages, place, tools)
            if whole.startswith(prompt) and whole.startswith(said, len(prompt)):
                spans.append((len(prompt), len(prompt) + len(said)))
                same.append(place)
            else:
                others.append(place)
        return Example(messages, same, whole[: spans[-1][1]], spans), others

    def examples(
        self, messages: list[Message], turns: Sequence[int], tools: list[Any] | None = None
    ) -> list[Example]:
        """Return as few examples as train on each turn once, as it is when it is asked for."""
        found: list[Example] = []
        left = list(turns)
        while left:
            example, left = self.example(messages, left, tools)
            found.append(example)
        return found[::-1]


def turns_of(messages: Sequence[Message], last_only: bool = False) -> list[int]:
    """Return which messages are the assistant's, in answer to somebody."""
    roles = [message["role"] for message in messages]
    asked = roles.index("user") if "user" in roles else len(roles)
    turns = [place for place, role in enumerate(roles) if role == "assistant" and place > asked]
    return turns[-1:] if last_only else turns


def oldest(messages: Sequence[Message]) -> range:
    """Return which messages to leave out so that a conversation begins with a later turn.

    They stand behind the system's, which stays. None are left where it has but one exchange.
    """
    head = head_of(messages)
    users = [i for i, m in enumerate(messages) if m["role"] == "user" and i > head]
    return range(head, users[0]) if users else range(0)


def head_of(messages: Sequence[Message]) -> int:
    """Return how many messages of the system a conversation begins with."""
    roles = [message["role"] in ("system", "developer") for message in messages]
    return roles.index(False) if False in roles else len(roles)


def in_common(one: str, other: str) -> str:
    """Return what two texts begin with."""
    differ = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[: next(differ, min(len(one), len(other)))]
