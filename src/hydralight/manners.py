"""What a Unix user expects of a program that is interrupted, or whose output nobody reads."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hydralight.nodes.ranks import is_first

INTERRUPTED, UNREAD = 130, 141  # as a shell reports SIGINT and SIGPIPE


@contextmanager
def manners() -> Iterator[None]:
    """Answer Ctrl-C with one line and 130, and end quietly with 141 where a pipe is closed.

    It imports nothing heavy, so that it is there while other things are imported.
    """
    owner, interrupted = os.getpid(), []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # of a process that was forked from this one, which says it
            os._exit(INTERRUPTED)
        interrupted.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        leave_interrupted()
    except SystemExit as error:  # 1 is Lightning's answer to Ctrl-C
        if interrupted and error.code == 1:
            leave_interrupted()
        raise
    except Exception as error:
        if interrupted:  # libraries that are interrupted in their imports raise their own
            leave_interrupted()
        leave_if_unread(error)
        raise


def leave_interrupted() -> None:
    """Say so once, whatever the number of processes, and exit."""
    if is_first():
        print("interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)


def leave_if_unread(error: BaseException) -> None:
    """Exit where an error only says that nobody reads standard output any more."""
    if isinstance(error, BrokenPipeError) and nobody_reads():
        sys.exit(UNREAD)


def nobody_reads() -> bool:
    """Whether standard output is a pipe that was closed; then what is left for it is dropped."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    closed = any(event & select.POLLERR for _, event in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed
