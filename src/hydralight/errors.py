"""A user's mistake, and what its sentence is made of."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

BARE = (LookupError, ArithmeticError, AssertionError, AttributeError)


class UserError(Exception):
    """A mistake at the user's door: its message is the one sentence that is shown."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """Return the beginning of a library's message, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = " ".join(lines[:2]).rstrip(".")
    if not line or isinstance(error, BARE):  # whose message alone says little
        return f"{type(error).__name__}: {line}" if line else type(error).__name__
    return line


def ended(line: str) -> str:
    """Put a full stop behind a line that has no end."""
    return line if line[-1:] in "!?…" else f"{line}."


def beneath(error: BaseException) -> BaseException:
    """Return what was raised in a call of Hydra's, which wraps it."""
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def told(what: str) -> Iterator[None]:
    """Put whatever a library refuses in here into a sentence.

    Args:
        what: What it begins with, such as the key of the config that the library was given.

    Raises:
        UserError: with the library's own words behind it.
    """
    try:
        yield
    except Exception as error:
        cause = beneath(error)
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"{what}: {ended(first_line(cause))}") from error


def count(number: int, noun: str) -> str:
    """Put a number before a noun in the singular or plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
