"""What a run shows while it goes on: one console, its messages, and what takes time."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


class Messages(logging.StreamHandler[TextIO]):
    """Writes log messages to whatever `sys.stderr` is by then, above the bars that are there."""

    @property
    def stream(self) -> TextIO:
        """The stream of now: rich puts one in its place that writes above its bar."""
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message; bars of tqdm, ours or a library's, are drawn anew below it."""
        if "tqdm" not in sys.modules:
            super().emit(record)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)


@cache
def console() -> "Console":
    """Return the console on the error stream; all that is shown goes there, results do not."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def interactive() -> bool:
    """Whether somebody looks on: a terminal that can move its cursor, or a notebook."""
    if "ipykernel" in sys.modules:
        return True
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def clock(seconds: float) -> str:
    """Return a duration as `1:05`, or `2:01:05` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def waiting(what: str, patience: float = 2.0) -> Iterator[None]:
    """Show that something goes on, where it takes longer than a user waits without asking.

    A terminal shows it with the time, until it is done; elsewhere a line says that it goes on, and
    another how long it took. Only the first process says something.

    Args:
        what: What goes on, such as `reading the data`.
        patience: Seconds before it is shown.
    """
    done = Event()
    shown = Thread(target=_show, args=(what, patience, done), daemon=True)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        shown.start()
    try:
        yield
    finally:
        done.set()
        if shown.ident is not None:
            shown.join()


def _show(what: str, patience: float, done: Event) -> None:
    begin = monotonic()
    if done.wait(patience):
        return
    if not interactive():
        log.info("%s …", what)
        done.wait()
        log.info("%s: %s", what, clock(monotonic() - begin))
        return
    from tqdm.auto import tqdm  # it goes together with the bars of downloads, which are tqdm's

    shape = "{desc} … {elapsed}"
    with tqdm(desc=what, bar_format=shape, leave=False, dynamic_ncols=True) as bar:
        bar.start_t -= patience
        while not done.wait(0.5):
            bar.refresh()
