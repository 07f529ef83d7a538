"""The process that a trial runs in, forked from one that has imported the heavy libraries.

What a trial leaves in memory goes with its process, on a GPU too; what kills it kills nothing else.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hydralight.runs.files import open_own
from hydralight.sweeps.trial import Outcome, write_outcome

PATIENCE = 30  # seconds to end an optimizer step and write a checkpoint when asked to go


class Died(Exception):
    """The process ended without an answer; the message says how."""


def run_trial(
    train: Callable[[Path, Sequence[str]], Outcome],
    arguments: Sequence[str],
    run_dir: Path,
    *,
    environment: Mapping[str, str],
    optimized_metric: str,
    preload: str | None,
) -> Outcome:
    """Run a trial in a process of its own; what kills that is an outcome too.

    Args:
        train: Trains in a directory with these arguments, and returns an outcome whatever happens.
        arguments: Hydra's overrides.
        run_dir: The trial's directory.
        environment: Variables to set in the process.
        optimized_metric: What the trial's config optimises.
        preload: The module that `prepare` takes.
    """
    start = time.monotonic()
    output = run_dir / "output.log"
    try:
        outcome: Outcome = call(
            train,
            run_dir,
            list(arguments),
            environment=environment,
            output=output,
            preload=preload,
        )
    except Died as error:
        outcome = {"state": "failed", "reason": str(error), "metrics": {}}
    outcome["optimized_metric"] = optimized_metric
    outcome["seconds"] = round(time.monotonic() - start, 3)
    write_outcome(run_dir, outcome)
    return outcome


def prepare(preload: str | None) -> ForkServerContext:
    """Start the process that others are forked from, unless it is there; do not wait for it.

    Args:
        preload: The module that it imports at its start, by its dotted name; None for nothing. It
            is named from outside, as the code that trains stands above the sweeps.
    """
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # joblib's own, which a new process would look for in vain
        multiprocessing.set_start_method("forkserver", force=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([] if preload is None else [preload])
    forkserver.ensure_running()
    return context


def call(
    function: Callable[..., Any],
    *args: Any,
    environment: Mapping[str, str],
    output: Path,
    preload: str | None,
) -> Any:
    """Call a function in a process of its own, and return what it returns.

    The process leads a group, which ends with it: loader workers and the ranks of DDP are in it.
    It ends too when this process does, however that happens.

    Args:
        function: Named at the top of a module, as its name is what is sent.
        args: Anything that can be pickled.
        environment: Variables to set.
        output: File that takes its standard output and error.
        preload: The module that `prepare` takes.

    Raises:
        Died: it was killed, or has left without an answer.
    """
    context = prepare(preload)
    here, there = context.Pipe(duplex=False)
    variables = {**os.environ, **environment}
    process = context.Process(target=_begin, args=(there, function, args, variables, output))
    try:
        process.start()
        there.close()
        # the pipe alone stays open in what the process forked; Ray's way to interrupt a worker
        # does not end a wait, so none is long
        while not wait([here, process.sentinel], 1):
            pass
        if here.poll():
            return here.recv()
    except EOFError:
        pass
    except BaseException:  # Ctrl-C, which does not reach another group
        if process.pid is not None:  # else it ends by itself, as nobody knows it
            _ask_to_end(process)
        raise
    finally:
        if process.pid is not None:
            process.join(PATIENCE)
            _signal_group(process, signal.SIGKILL)
            process.join()
        here.close()
    raise Died(_how_it_died(process.exitcode or 0))


def _how_it_died(code: int) -> str:
    if code >= 0:
        return f"its process left with exit code {code}"
    name = signal.Signals(-code).name
    memory = " (often for want of memory)" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{memory}"


def _ask_to_end(process: BaseProcess) -> None:
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
    threading.Thread(target=_end_with_parent, args=(parent.sentinel,), daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    with open(output, "a", opener=open_own) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # the server's own; what starts ranks anew looks here for how the program was started
    sys.modules["__main__"].__spec__ = None
    answer.send(function(*args))


def _end_with_parent(sentinel: int) -> None:
    wait([sentinel])
    os.killpg(0, signal.SIGKILL)
