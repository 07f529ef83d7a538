"""Windows of a stream as files: made by processes ahead of training, or when they are asked for.

Each of the processes has its own places of every window. What the next window is made of is in the
records of this one, so that all of them, and all that train, find it out alike, and nobody has to
tell another. Who trains writes into a mark which windows are still read, and which one is wanted.
"""

import json
import multiprocessing
import os
import shutil
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from hydralight.data.corpus.pool import begin_as_one_of_many
from hydralight.data.corpus.shards import Shard, read_record
from hydralight.data.stream.windows import Cursor, Window, Windows
from hydralight.errors import UserError
from hydralight.runs.files import write_text
from hydralight.runs.sealed import sealed_json

AHEAD = 2  # windows that are made before they are wanted
PAUSE = 0.02  # seconds between two looks
FORGOTTEN = 86_400.0  # seconds after which another machine's folder is nobody's
PRELOAD = "hydralight.data.corpus.work"
Task = Callable[[int, int, int, int, int], None]


def window_in(folder: Path, windows: Windows, cursor: Cursor) -> Window | None:
    """Return a window; None where not all of it is there.

    Raises:
        UserError: it cannot be made; the sentence is that of the process that tried.
    """
    read, shards = [], list[Shard]()
    for place, one in enumerate(windows.places(cursor)):
        if one is None:
            read.append((0, True))
            continue
        record = read_record(record_of(folder, cursor.number, place))
        if record is None:
            return None
        if "error" in record:
            raise UserError(record["error"])
        read.append((record["read"], record["ended"]))
        shards += [Shard(**shard) for shard in record["train"]]
    return Window(cursor, windows.after(cursor, read), tuple(shards))


def record_of(folder: Path, number: int, place: int) -> Path:
    """Return where it is written what a window has of a unit."""
    return folder / f"{number:08}-{place:03}.json"


def make(
    task: Task,
    folder: Path,
    windows: Windows,
    cursor: Cursor,
    own: Callable[[int], bool] = lambda place: True,
) -> None:
    """Make those places of a window that are one's own."""
    share = windows.share(cursor)
    for place, one in enumerate(windows.places(cursor)):
        if one is None or not own(place):
            continue
        path = record_of(folder, cursor.number, place)
        if read_record(path) is not None:
            continue
        try:
            task(cursor.number, place, *one, share)
        except UserError as error:
            write_text(path, sealed_json({"error": str(error)}))


def remove_before(
    folder: Path, number: int, own: Callable[[int], bool] = lambda place: True
) -> None:
    """Remove the files of windows that nobody reads any more."""
    for path in folder.glob("[0-9]*-*"):
        window, place = path.name[:8], path.name[9:12]
        if int(window) < number and own(int(place)):
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------- the folder


def new_folder(root: Path, name: str) -> Path:
    """Return a folder for the windows of a run, and remove those of processes that are gone."""
    root.mkdir(parents=True, exist_ok=True)
    for path in root.iterdir():
        if is_forgotten(path):
            shutil.rmtree(path, ignore_errors=True)
    folder = root / f"{socket.gethostname()}-{name}"
    folder.mkdir(exist_ok=True)
    return folder


def is_forgotten(folder: Path) -> bool:
    """Whether the processes that marked a folder are gone."""
    try:
        marks = [path.name for path in folder.glob("*.mark")]
        age = time.time() - max(path.stat().st_mtime for path in (folder, *folder.glob("*.mark")))
    except OSError:
        return False
    if not folder.name.startswith(f"{socket.gethostname()}-") or not Path("/proc").exists():
        return age > FORGOTTEN
    alive = any(Path("/proc", name.removesuffix(".mark")).exists() for name in marks)
    return not alive and (bool(marks) or age > FORGOTTEN)


def mark(folder: Path, keep: int, wanted: int) -> None:
    """Say which windows this process still reads, and which one it wants next."""
    write_text(folder / f"{os.getpid()}.mark", json.dumps([keep, wanted]))


def marks_in(folder: Path) -> list[tuple[int, int]]:
    """Return what all processes that train have said."""
    found = []
    for path in folder.glob("*.mark"):
        with suppress(OSError, ValueError):
            keep, wanted = json.loads(path.read_text(encoding="utf-8"))
            found.append((keep, wanted))
    return found


# ---------------------------------------------------------------- the processes


def get_ready() -> None:
    """Begin the process that others are forked from: its imports take as long as reading does."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([PRELOAD])
    forkserver.ensure_running()


class Makers:
    """Processes that make windows ahead of training; or none, where each process makes its own.

    Args:
        task: Encodes what a window has of a unit; it goes to the processes.
        folder: Where the files are.
        windows: What they are made of.
        workers: How many processes this one starts.
        first: A window that has been made before.
        readers: Processes that train with these windows.
    """

    def __init__(
        self,
        task: Task,
        folder: Path,
        windows: Windows,
        workers: int,
        first: Window | None = None,
        readers: int = 1,
    ) -> None:
        self.task, self.folder, self.windows, self.first = task, folder, windows, first
        self.workers, self.readers = workers, readers
        self._alone = workers == 0 and readers == 1
        self._processes: list[Any] = []
        self._keep = self._wanted = 0
        owner = workers > 0 or self._alone
        self.close = weakref.finalize(self, end, self._processes, folder if owner else None)

    def start(self, cursor: Cursor) -> None:
        """Begin at a window."""
        if self.first is not None and cursor == self.first.cursor:
            cursor = self.first.after
        self._keep = self._wanted = cursor.number
        mark(self.folder, self._keep, self._wanted)
        context = multiprocessing.get_context("forkserver")
        if self.workers:
            get_ready()
        for number in range(self.workers):
            share = number, self.workers
            process = context.Process(
                target=_run,
                args=(self.task, self.folder, self.windows, cursor, share, self.readers),
                daemon=True,
            )
            process.start()
            self._processes.append(process)

    def window(self, cursor: Cursor) -> Window:
        """Return a window, once it is there.

        Raises:
            UserError: it cannot be made.
        """
        if self.first is not None and cursor == self.first.cursor:
            return self.first
        self._wanted = cursor.number
        mark(self.folder, self._keep, self._wanted)
        while True:
            # asked before the window, which tells what a process that ends has written
            ended = any(process.exitcode is not None for process in self._processes)
            if (found := window_in(self.folder, self.windows, cursor)) is not None:
                return found
            if ended:
                raise UserError(
                    "a process that encodes the stream was killed, perhaps for want of memory: "
                    "take fewer of them by data.workers, and resume the run."
                )
            if self._alone:
                make(self.task, self.folder, self.windows, cursor)
            else:
                time.sleep(PAUSE)

    def release(self, number: int) -> None:
        """Say that no window before this one is read any more."""
        if number > self._keep:
            self._keep = number
            mark(self.folder, self._keep, self._wanted)
            if self._alone:
                remove_before(self.folder, number)


def end(processes: Sequence[Any], folder: Path | None) -> None:
    """End processes, and remove what they have made."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    task: Task,
    folder: Path,
    windows: Windows,
    cursor: Cursor,
    share: tuple[int, int],
    readers: int,
) -> None:
    """Make one's own places of all windows, as a process that ends when its parent does."""
    begin_as_one_of_many()
    number, of = share

    def own(place: int) -> bool:
        return place % of == number

    while True:
        marks = marks_in(folder)
        while max((wanted for _, wanted in marks), default=0) + AHEAD < cursor.number:
            time.sleep(PAUSE)
            marks = marks_in(folder)
        if len(marks) == readers:
            # another of these processes may still look at the window before this one
            remove_before(folder, min(cursor.number - 1, *(keep for keep, _ in marks)), own)
        make(task, folder, windows, cursor, own)
        try:
            while (found := window_in(folder, windows, cursor)) is None:
                time.sleep(PAUSE)
        except UserError:
            return  # who trains reads it too
        cursor = found.after
