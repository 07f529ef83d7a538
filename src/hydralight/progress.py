"""What a run shows while it goes on: one console, its messages, and what takes time."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, TextIO

from hydralight.nodes.ranks import is_first

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

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


def width() -> int:
    """Return how many characters a line may have: those of the terminal, or 200 in a file."""
    return console().width if interactive() else 200


def short(value: float) -> str:
    """Return a number with four digits behind the point, or as many as tell something."""
    if value and abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4f}"


def listed(values: Mapping[str, float], first: str | None = None, room: int = 200) -> str:
    """Return metrics by name in a line: the loss, the one that counts, then those of all labels.

    Args:
        values: The metrics.
        first: Which one counts; it is there in any case.
        room: How many characters there are; how many metrics were left out is said.
    """
    order = {"loss": -2, first: -1}
    names = sorted(values, key=lambda n: order.get(n, order.get(n.split("/", 1)[-1], n.count("/"))))
    said = {name: f"{name} {short(values[name])}" for name in names}
    kept = [first] if first in said else []
    for name in (name for name in names if name != first):
        rest = len(f"  +{len(names)}") if len(kept) + 1 < len(names) else 0
        if len("  ".join(said[n] for n in [*kept, name])) + rest > room:
            break
        kept.append(name)
    more = [f"+{len(names) - len(kept)}"] if len(kept) < len(names) else []
    return "  ".join([*(said[name] for name in names if name in kept), *more])


def one_line() -> "Bar":
    """Return a bar that takes a line at any width, on the console that messages go above."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    text = Column(no_wrap=True, overflow="ellipsis")
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=5, max_width=40)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[text]}", table_column=text),
        console=console(),
        transient=True,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),  # what is piped belongs into the pipe
    )


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
    if is_first():
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
