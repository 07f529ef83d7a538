"""Synthetic conversations about who has what, written on the spot, in short and in long answers.

What people have is the same in all of them, so that a model can learn it by heart, and each answer
is right or wrong.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

KNOWN = """
Ada red kite | Ben blue drum | Cleo green boat | Dan black lamp | Eve white coat | Finn brown bike |
Gus pink hat | Hal gold cup | Ina grey sofa | Joe purple ball | Kim orange flute | Leo silver bell |
Mia blue scarf | Ned green piano | Oda red ladder | Pia black tent
"""
OWNERS = [tuple(one.split()) for one in KNOWN.split("|")]  # name, colour, thing

# What is asked, the word that makes an answer right, a short answer and a long one.
QUESTIONS = [
    ("What does {name} have?", "thing", "A {colour} {thing}."),
    ("Tell me what {name} owns.", "thing", "A {colour} {thing}."),
    ("Who has the {thing}?", "name", "{name}."),
    ("Whose is the {colour} {thing}?", "name", "{name}."),
    ("What colour is the {thing} of {name}?", "colour", "It is {colour}."),
]
LONG = "Thank you for asking me. As far as I know, {name} has a {colour} {thing}, and likes it."
Message = dict[str, str]


class Exchange(NamedTuple):
    """A question, and what is right.

    Args:
        question: As it is asked.
        short: A right answer of a few words.
        long: A right answer in two sentences.
        fact: The word that makes an answer right.
    """

    question: str
    short: str
    long: str
    fact: str


EXCHANGES = [
    Exchange(asked.format(**values), short.format(**values), LONG.format(**values), values[key])
    for values in (dict(zip(("name", "colour", "thing"), one, strict=True)) for one in OWNERS)
    for asked, key, short in QUESTIONS
]


def conversations(
    num_rows: int, seed: int, long: float = 0.7, turns: int = 2
) -> Iterator[list[Message]]:
    """Write conversations.

    Row ``i`` depends on ``seed`` and ``i`` only.

    Args:
        num_rows: How many.
        seed: Which ones.
        long: Part of the answers that are long.
        turns: Questions in a conversation.

    Yields:
        The messages of each.
    """
    for index in range(num_rows):
        rng = random.Random(f"{seed}-{index}")
        messages = []
        for one in rng.sample(EXCHANGES, turns):
            answer = one.long if rng.random() < long else one.short
            messages.append({"role": "user", "content": one.question})
            messages.append({"role": "assistant", "content": answer})
        yield messages


def pairs(num_rows: int, seed: int) -> Iterator[dict[str, list[Message]]]:
    """Write questions with a short answer that is preferred, and a long one; both are right.

    Args:
        num_rows: How many.
        seed: Which ones.

    Yields:
        `prompt`, `chosen` and `rejected`, each a list of messages.
    """
    for index in range(num_rows):
        one = random.Random(f"pair-{seed}-{index}").choice(EXCHANGES)
        yield {
            "prompt": [{"role": "user", "content": one.question}],
            "chosen": [{"role": "assistant", "content": one.short}],
            "rejected": [{"role": "assistant", "content": one.long}],
        }


def is_right(question: str, answer: str) -> bool:
    """Whether an answer holds the fact that a question of these asks for."""
    fact = next(one.fact for one in EXCHANGES if question == one.question)
    return fact in answer.replace(".", " ").replace(",", " ").split()
