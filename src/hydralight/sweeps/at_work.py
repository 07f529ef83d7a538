"""The trials that are at work: the next one is asked for as soon as one has ended."""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from hydralight.runs.lock import NAME as LOCK
from hydralight.sweeps.launch import launched
from hydralight.sweeps.ray_launcher import RayLauncher
from hydralight.sweeps.worker import PATIENCE

if TYPE_CHECKING:
    from optuna.trial import Trial


class AtWork:
    """Trials in the hands of Hydra's launcher; leaving it by an exception asks them to end.

    A launcher comes back when all that it was given has ended. So it is given one trial at a time,
    each in a thread that waits for it.

    Args:
        launcher: Where they run.
        folder: The sweep's directory.
        here: Whether that is this process: one after the other then, and in no thread.
    """

    def __init__(self, launcher: Launcher, folder: Path, here: bool) -> None:
        self.launcher, self.folder, self.here = launcher, folder, here
        self.ended: SimpleQueue[tuple[Trial, Any]] = SimpleQueue()
        self.threads: dict[int, Thread] = {}  # by the trial's number

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.stop()

    def __len__(self) -> int:
        return len(self.threads)

    def begin(self, trial: "Trial", job: Sequence[str]) -> None:
        """Launch a trial with its overrides; its number is the name of its directory."""
        thread = Thread(target=self._run, args=(trial, job), daemon=True)
        self.threads[trial.number] = thread
        if self.here:
            self._run(trial, job)
        else:
            thread.start()

    def _run(self, trial: "Trial", job: Sequence[str]) -> None:
        returned: Any
        try:
            (returned,) = launched(self.launcher, [list(job)], trial.number)
        except BaseException as error:  # a worker of joblib sends us its Ctrl-C
            returned = error
        self.ended.put((trial, returned))

    def next(self) -> "tuple[Trial, JobReturn | BaseException]":
        """Wait for a trial to end, and return it with what its launcher brought or raised."""
        trial, returned = self.ended.get()
        del self.threads[trial.number]
        return trial, returned

    def stop(self) -> None:
        """Ask the trials at work to end, as far as their launcher lets us, and wait for them."""
        if self.here or not self.threads:
            return
        if isinstance(self.launcher, RayLauncher):
            self.launcher.stop()
            return
        workers = [
            child.pid for child in multiprocessing.active_children() if child.pid
        ]  # joblib's
        for pid in workers:
            os.kill(pid, signal.SIGINT)
        end = time.monotonic() + (PATIENCE + 5 if workers else 0)
        runs = [self.folder / str(number) for number in self.threads]
        while time.monotonic() < end and any((run_dir / LOCK).exists() for run_dir in runs):
            time.sleep(0.1)
        for pid in workers:  # of joblib; our exit would wait for them
            os.kill(pid, signal.SIGKILL)
