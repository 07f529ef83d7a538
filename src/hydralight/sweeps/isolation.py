"""Calls in a process of their own, forked from one that has imported the heavy libraries.

What a call leaves in memory goes with its process, on a GPU too; what kills it kills nothing else.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = ["hydralight.sweeps.preloaded"]
PATIENCE = 30  # seconds to end an optimizer step and write a checkpoint when asked to go


class Died(Exception):
    """The process ended without an answer; the message says how."""


def prepare() -> ForkServerContext:
    """Begin to import the heavy libraries, in the process that calls are forked from."""
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # joblib's own, which a new process would look for in vain
        multiprocessing.set_start_method("forkserver", force=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()
    return context


def call(
    function: Callable[..., Any], *args: Any, environment: Mapping[str, str], output: Path
) -> Any:
    """Call a function in a process of its own, and return what it returns.

    The process leads a group, which ends with it: loader workers and the ranks of DDP are in it.
    It ends too when this process does, however that happens.

    Args:
        function: Named at the top of a module, as its name is what is sent.
        args: Anything that can be pickled.
        environment: Variables to set.
        output: File that takes its standard output and error.

    Raises:
        Died: it was killed, or has left without an answer.
    """
    context = prepare()
    here, there = context.Pipe(duplex=False)
    variables = {**os.environ, **environment}
    process = context.Process(target=_begin, args=(there, function, args, variables, output))
    try:
        process.start()
        there.close()
        wait([here, process.sentinel])  # the pipe alone stays open in what the process forked
        if here.poll():
            return here.recv()
    except EOFError:
        pass
    except BaseException:  # Ctrl-C, which does not reach another group
        if process.pid is not None:  # else it ends by itself, as nobody knows it
            _end(process)
        raise
    finally:
        if process.pid is not None:
            process.join(PATIENCE)
            _signal_group(process, signal.SIGKILL)
            process.join()
        here.close()
    code = process.exitcode or 0
    if code < 0:
        name = signal.Signals(-code).name
        memory = " (often for want of memory)" if name == "SIGKILL" else ""
        raise Died(f"its process was ended by {name}{memory}")
    raise Died(f"its process left with exit code {code}")


def _end(process: BaseProcess) -> None:
    """Ask a process to go, which writes a checkpoint then, and end it if it does not."""
    _signal_group(process, signal.SIGTERM)
    process.terminate()  # where it has not begun to lead a group
    process.join(PATIENCE)


def _signal_group(process: BaseProcess, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody is left
        os.killpg(process.pid or 0, number)


def _begin(
    answer: Connection,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    environment: Mapping[str, str],
    output: Path,
) -> None:
    os.setsid()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # the server's own; what starts ranks anew looks here for how the program was started
    sys.modules["__main__"].__spec__ = None
    answer.send(function(*args))


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os.killpg(0, signal.SIGKILL)
