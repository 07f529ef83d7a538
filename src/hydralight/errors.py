"""A user's mistake, and what its sentence is made of."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake at the user's door: its message is the one sentence that is shown."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """Return the beginning of a library's message, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".") or type(error).__name__


def count(number: int, noun: str) -> str:
    """Put a number before a noun in the singular or plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
