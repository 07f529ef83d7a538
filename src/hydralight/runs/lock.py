"""One process at a time in a directory."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydralight.errors import UserError
from hydralight.runs.files import open_own, told

log = logging.getLogger(__name__)

NAME = ".lock"
_here: set[Path] = set()  # where this process is at work; the system would let it in again


class InUse(UserError):
    """Another process, or another part of this one, is at work in a directory."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others out of a directory, which is made if it is not there.

    The lock belongs to this process alone: the system gives it back when the process ends, however
    that happens, and processes that are forked from it do not hold it.

    Raises:
        InUse: another process is at work in it.
        UserError: nothing can be written there.
    """
    path = folder.resolve() / NAME
    if path in _here:
        raise InUse(f"{folder} is in use by this very process: wait for its end.")
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    _here.add(path)
    try:
        with suppress(OSError):  # a full disk; the lock is held
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        _here.discard(path)
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Return the descriptor of a lock's file, which is locked."""
    while True:
        descriptor = open_own(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            _lock(descriptor, path)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner has ended just now, and removed it


def _lock(descriptor: int, path: Path) -> None:
    try:
        # of this process: `flock` would be of those that it forks too, which may outlive it
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        owner = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise InUse(f"{path.parent} is in use by {owner}: wait for its end.") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        log.warning("%s has no locks: let one process at a time write there", path.parent)


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
