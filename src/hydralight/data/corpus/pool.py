"""Units done by several processes, each once, also where others do the rest of them."""

import ctypes
import logging
import multiprocessing
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from hydralight.data.corpus.pieces import Unit
from hydralight.errors import UserError
from hydralight.progress import clock, interactive

if TYPE_CHECKING:
    from hydralight.data.corpus.claims import Claims
    from hydralight.data.corpus.leases import Leases

log = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 0.1, 30.0  # seconds for each unit of others, and at most
INTERVAL = 30.0  # seconds between two lines where there is no terminal
PRELOAD = "hydralight.data.corpus.work"


class Task(Protocol):
    """What is done with each unit."""

    def __call__(self, unit: Unit, step: Callable[[int], None]) -> None:
        """Do a unit, and report bytes that are done."""

    def is_done(self, unit: Unit) -> bool:
        """Whether a unit is done."""

    def done_among(self, units: Sequence[Unit]) -> set[str]:
        """Return the names of the units that are done."""


_task: Task
_progress: Any


def do_all(
    units: Sequence[Unit], task: Task, claims: "Claims | Leases", workers: int, what: str
) -> None:
    """Do all units that are not done yet; return when they are, whoever did them.

    Args:
        units: In the order in which they are begun.
        task: Does one; it goes to other processes. It reports bytes that are done.
        claims: Of this process, which are given back at the end.
        workers: Processes; 0 does all of it in this one.
        what: What it is called, such as "preparing".

    Raises:
        UserError: a unit cannot be done, or a process was killed.
    """
    once = {unit.name: unit for unit in units}.values()
    total = sum(unit.size for unit in once)
    done_before = task.done_among([*once])
    to_do = [unit for unit in once if unit.name not in done_before]
    left = Left(to_do, claims, task.is_done)
    before = total - sum(unit.size for unit in to_do)
    try:
        with (
            _Executor(task, min(workers, len(to_do))) as executor,
            shown(what, total, executor) as show,
        ):
            running: dict[Future[None], Unit] = {}
            while left.units or running:
                while len(running) < max(1, workers) and (unit := left.take()) is not None:
                    running[executor.submit(unit)] = unit
                executor.before = before + left.done
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                if not running and left.units:
                    time.sleep(0.5)  # others have the rest
                for future in done:
                    unit = running.pop(future)
                    future.result()
                    claims.release(unit.name)
                show()
    except BrokenProcessPool as error:
        raise UserError(
            f"{what}: a process was killed, perhaps for want of memory: take fewer of them by "
            "data.workers; what is done stays."
        ) from error
    finally:
        claims.release_all()


class Left:
    """Units that are not known to be done, in the order in which this process tries to take them.

    At first it is that of the corpus. Once another process turns out to have one of them, it is a
    random one: where many machines all try the next unit, one of them has it, and the others have
    asked the disk for nothing. Where all that are left are others', they are not asked for again
    at once.

    Args:
        units: What is to be done.
        claims: Of this process.
        is_done: Whether a unit is done, as the disk says.
    """

    def __init__(
        self, units: Sequence[Unit], claims: "Claims | Leases", is_done: Callable[[Unit], bool]
    ) -> None:
        self.units = deque(units)
        self.claims, self.is_done = claims, is_done
        self.done = 0  # bytes, by others
        self._alone = True
        self._wait_until = 0.0

    def take(self) -> Unit | None:
        """Claim a unit; None where there is none that others have not claimed, or may be."""
        if time.monotonic() < self._wait_until:
            return None
        for _ in range(len(self.units)):
            unit = self.units.popleft()
            if self.is_done(unit):
                self.done += unit.size
            elif self.claims.take(unit.name):
                if not self.is_done(unit):
                    return unit
                self.claims.release(unit.name)  # another did it just before
                self.done += unit.size
            else:
                self.units.append(unit)
                if self._alone:
                    self._alone = False
                    random.Random().shuffle(self.units)  # the seed of the run is not touched
        self._wait_until = time.monotonic() + min(LONGEST_PAUSE, PAUSE * len(self.units))
        return None


class _Executor:
    """The processes, and how many bytes they have done; or this process alone."""

    def __init__(self, task: Task, workers: int) -> None:
        self.before = 0
        self._task, self._here = task, 0
        self._pool: ProcessPoolExecutor | None = None
        if workers > 0:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([PRELOAD])
            self._counter = context.Value("q", 0)
            self._pool = ProcessPoolExecutor(workers, context, _begin, (task, self._counter))

    @property
    def done(self) -> int:
        """Bytes that have been done."""
        return self.before + (self._here if self._pool is None else self._counter.value)

    def submit(self, unit: Unit) -> Future[None]:
        """Begin a unit; without processes, do it."""
        if self._pool is not None:
            return self._pool.submit(_do, unit)
        future: Future[None] = Future()
        try:
            self._task(unit, self._step)
            future.set_result(None)
        except Exception as error:
            future.set_exception(error)
        return future

    def _step(self, size: int) -> None:
        self._here += size

    def __enter__(self) -> "_Executor":
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if self._pool is not None:
            if kind is not None:
                for process in list((self._pool._processes or {}).values()):
                    process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)


def begin_as_one_of_many() -> None:
    """Set up a process that encodes beside others: quiet, and gone when its parent is."""
    import datasets

    datasets.disable_progress_bars()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are as many as the cores
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _begin(task: Task, progress: Any) -> None:
    """Take the task, in a process of the pool, which ends when its parent does."""
    global _task, _progress
    _task, _progress = task, progress
    begin_as_one_of_many()


def _do(unit: Unit) -> None:
    def step(size: int) -> None:
        with _progress.get_lock():
            _progress.value += size

    try:
        _task(unit, step)
    except UserError as error:
        raise UserError(str(error)) from None  # of a class that goes between processes
    finally:
        give_back_memory()


def give_back_memory() -> None:
    """Return what the allocator holds for nobody to the system, where it is glibc's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def shown(what: str, total: int, executor: Any) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal, or a line now and then, with the rate and the time left."""
    terminal, begin = interactive(), time.monotonic()
    first, said = None, begin
    with tqdm(
        total=total,
        desc=what,
        unit="B",
        unit_scale=True,
        leave=False,
        delay=2,
        disable=not terminal,
    ) as bar:

        def show() -> None:
            nonlocal first, said
            done = executor.done
            if first is None:
                first = executor.before
                bar.initial = first
            bar.update(done - bar.n)
            if not terminal and time.monotonic() - said > INTERVAL:
                said = time.monotonic()
                rate = (done - first) / (said - begin)
                left = clock((total - done) / rate) if rate > 0 else "?"
                log.info(
                    "%s: %.2f of %.2f GB, %.1f MB/s, %s left",
                    *(what, done / 1e9, total / 1e9, rate / 1e6, left),
                )

        yield show
