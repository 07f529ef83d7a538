"""Trying again what a store did not answer, or answered in part."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from hydralight.errors import UserError, first_line
from hydralight.runs.secrets import redact_message

log = logging.getLogger(__name__)
T = TypeVar("T")

WAITS = (0.5, 1, 2, 4, 8, 16, 32)  # seconds between attempts, each within a half and all of it
FEW = 2  # waits where somebody looks on
AGAIN = (408, 425, 429)  # statuses that ask to come back


class Short(OSError):
    """Fewer bytes came than were asked for."""


def tried(call: Callable[[], T], few: bool = False) -> T:
    """Return what a call returns, and try again with longer and longer waits where it fails.

    What another attempt would not mend is raised at once.

    Args:
        call: What is done.
        few: Whether it is given up sooner.
    """
    waits = WAITS[:FEW] if few else WAITS
    for attempt, wait in enumerate(waits):
        try:
            return call()
        except Exception as error:
            if not passes(error):
                raise
            if attempt >= FEW:
                said = redact_message(first_line(error))
                log.warning("%s; another attempt in %g s at most", said, wait)
            time.sleep(wait * random.SystemRandom().uniform(0.5, 1))  # not all at once
    return call()


def passes(error: BaseException) -> bool:
    """Whether what was raised may be gone in a moment."""
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in AGAIN
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return passes(error.__cause__)  # fsspec's for whatever a web server did
    lasting = (UserError, ImportError, ValueError, TypeError, FileNotFoundError, PermissionError)
    return not isinstance(error, lasting) and "Credentials" not in type(error).__name__


def status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error of a client goes back to; None without one."""
    while error is not None:
        response = getattr(error, "response", None)
        inner = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        found = (
            getattr(error, "status", None),
            getattr(error, "status_code", None),
            getattr(response, "status_code", None),
            inner.get("HTTPStatusCode"),
        )
        number = next((one for one in found if isinstance(one, int) and one >= 400), None)
        if number is not None:
            return number
        error = error.__cause__ or error.__context__
    return None
