"""Who does which unit, where several processes prepare one folder, on one machine or more."""

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

EXPIRES = 120.0  # seconds without a sign of life
BEAT = 15.0  # seconds between two


class Claims:
    """Claims of this process, as files that only one process can make.

    A claim is renewed now and then. One that has not been for two minutes, or whose process on
    this machine is gone, is anybody's. (Where a claim is lost although its owner lives, a unit is
    done twice, to the same files: nothing is spoilt.)

    Args:
        folder: Where claims are, on a disk that all see.
    """

    pause = 0.5  # seconds between two looks at what others have done

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._own: set[Path] = set()
        self._ended = Event()
        self._ahead: float | None = None  # the clock of the disk, of this machine's
        Thread(target=self._beat, daemon=True).start()

    def take(self, name: str) -> bool:
        """Claim a unit, if nobody else has."""
        path = self.folder / name
        try:
            with open(path, "x", encoding="utf-8") as file:
                json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
        except FileExistsError:
            if self._is_dead(path):
                self._clear(path)
                return self.take(name)
            return False
        self._own.add(path)
        return True

    def release(self, name: str) -> None:
        """Give a claim back."""
        path = self.folder / name
        self._own.discard(path)
        path.unlink(missing_ok=True)

    def release_all(self) -> None:
        """Give all claims back, for good."""
        self._ended.set()
        for path in list(self._own):
            self.release(path.name)

    def _beat(self) -> None:
        """Renew the claims now and then."""
        while not self._ended.wait(BEAT):
            for path in list(self._own):
                with suppress(FileNotFoundError):
                    os.utime(path)

    def _is_dead(self, path: Path) -> bool:
        try:
            changed, content = path.stat().st_mtime, path.read_bytes()
        except OSError:
            return False
        return self._now() - changed > EXPIRES or is_gone(content)

    def _now(self) -> float:
        """Return the time by the clock of the disk, which may be another machine's."""
        if self._ahead is None:
            self._ahead = self._disk_time() - time.monotonic()
        return self._ahead + time.monotonic()

    def _disk_time(self) -> float:
        probe = self.folder / f".{secrets.token_hex(4)}"
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()

    def _clear(self, path: Path) -> None:
        """Remove a dead claim; of several processes that try, one does."""
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with suppress(FileNotFoundError):
            path.rename(aside)
            aside.unlink()


def is_gone(content: bytes) -> bool:
    """Whether the process that wrote a claim ran on this machine, and does no more."""
    try:
        owner = json.loads(content or b"{}")
    except ValueError:
        return False
    here = owner.get("host") == socket.gethostname()
    return here and not Path(f"/proc/{owner['process']}").exists() and Path("/proc").exists()
