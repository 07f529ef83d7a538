"""Pushes in the background: one at a time, in a process of its own, and the newest waits."""

import json
import logging
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydralight.runs.files import remove
from hydralight.uploads.folder import said_of

log = logging.getLogger(__name__)

POLL = 0.1  # seconds between two looks at a push that is waited for


class Pushes:
    """What a run pushes: folders, of which one is on its way and the newest waits.

    A push is a process, so that it takes neither the training's interpreter nor its threads, and
    ends whenever it is to. Folders that were sent, or that a newer one has overtaken, are removed.

    Args:
        repo: On the hub.
        private: Of a repository that is made.
        revision: The branch; `main` unless said.
    """

    def __init__(self, repo: str, private: bool | None, revision: str | None) -> None:
        self.asked = {"repo": repo, "private": private, "revision": revision}
        self.process: subprocess.Popen[str] | None = None
        self.folder: Path | None = None  # which is on its way
        self.waiting: Path | None = None
        self.failed = False  # whether the last one that ended did,
        self.passes = False  # and whether another attempt may do better
        self.told = ""  # the last refusal

    def add(self, folder: Path) -> None:
        """Take a folder, which is removed later; another one that has been waiting is skipped."""
        if self.waiting is not None:
            remove(self.waiting)
        self.waiting = folder
        self.look()

    def open(self) -> None:
        """Make the repository, so that a mistake is told at the run's start."""
        self._start(None)

    def look(self) -> None:
        """See whether the push has ended, and begin the next; it takes microseconds."""
        if self.process is not None and self.process.poll() is not None:
            self._ended()
        if self.process is None and self.waiting is not None:
            folder, self.waiting = self.waiting, None
            self._start(folder)

    def _start(self, folder: Path | None) -> None:
        self.folder = folder
        environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hydralight.uploads"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the training
        )
        assert self.process.stdin is not None
        line = json.dumps({"folder": None if folder is None else str(folder), **self.asked})
        with suppress(BrokenPipeError):  # it is gone already, which the next look tells
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def _ended(self) -> None:
        """Tell what has become of a push, a refusal once as long as it is the same."""
        process, folder = self.process, self.folder
        assert process is not None
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        self._close()
        ended: dict[str, Any] = {"refused": "its process was ended.", "passes": True}
        answer = json.loads(lines[-1]) if lines else ended
        refused = answer.get("refused", "")
        self.failed, self.passes = bool(refused), answer.get("passes", False)
        if refused and refused != self.told:
            log.warning("nothing is pushed to %s: %s", self.asked["repo"], refused)
        self.told = refused
        if folder is not None:
            if not refused:
                log.info("pushed: %s, %s", said_of(folder), answer["address"])
            remove(folder)

    def _close(self) -> None:
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
        self.process = self.folder = None

    def finish(self, seconds: float) -> bool:
        """Wait for what is on its way and what waits; return whether the last one has arrived."""
        ends = time.monotonic() + seconds
        while self.process is not None or self.waiting is not None:
            if time.monotonic() > ends:
                return False
            time.sleep(POLL)
            self.look()
        return not self.failed

    def give_up(self) -> None:
        """End the push that is on its way, at once, and forget what waits."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for folder in (self.folder, self.waiting):
            if folder is not None:
                remove(folder)
        self._close()
        self.waiting = None
