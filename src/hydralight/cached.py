"""Files of a cache: whole or not there, with a checksum beside each; one process writes them."""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
from filelock import FileLock, Timeout

from hydralight.errors import UserError
from hydralight.runs.checksums import checksum, checksums_of
from hydralight.runs.files import write_text

log = logging.getLogger(__name__)

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def cache_folder(kind: str) -> Path:
    """Return (and make) one of our folders in the cache of `datasets` (HF_HOME moves it)."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hydralight" / kind
    with told_if_full(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def seal(partial: Path, path: Path) -> None:
    """Give a file, or a folder of files, that has been written its checksum and its final name.

    The checksum comes first: a path that is there without one, or that does not fit the one that is
    there, is taken for damaged.
    """
    write_text(_beside(path), _checksums(partial))
    if partial.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    partial.replace(path)


def intact(path: Path) -> bool:
    """Whether a file or folder is there, and is what `seal` has seen.

    All of it is read, which costs what `checksum` says.
    """
    try:
        known = _beside(path).read_text()
        return path.exists() and known != "" and known == _checksums(path)
    except (OSError, UnicodeError):
        return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a path, which ends with this process; say so where another one has it."""
    lock = FileLock(_beside(path, ".lock"))
    try:
        lock.acquire(timeout=2)
    except Timeout:
        log.info("waiting for another process, which is making %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def told_if_full(folder: Path | str) -> Iterator[None]:
    """Turn a full or closed disk into a sentence.

    Raises:
        UserError: nothing can be written to the folder.
    """
    try:
        yield
    except OSError as error:
        if (sentence := no_room(error, folder)) is None:
            raise
        raise UserError(sentence) from error


def no_room(error: BaseException, folder: Path | str) -> str | None:
    """Say that the disk of a cache folder is full or closed, if that is the error."""
    number = getattr(error, "errno", None)
    ours = str(getattr(error, "filename", None) or "").startswith(str(folder))
    if number not in FULL and not (number in CLOSED and ours):
        return None
    what = "there is no room left for" if number in FULL else "nothing can be written to"
    then = "; what is finished in it stays, and the next start goes on" if number in FULL else ""
    return (
        f"{what} {folder} ({os.strerror(number)}): make room, or name another place for caches in "
        f"HF_HOME or HF_DATASETS_CACHE{then}."
    )


def _beside(path: Path, suffix: str = ".xxh3") -> Path:
    return path.with_name(path.name + suffix)


def _checksums(path: Path) -> str:
    """Return the checksum of a file, or of each file of a folder by its name."""
    if not path.is_dir():
        return checksum(path)
    return "\n".join(f"{own} {name}" for name, own in checksums_of(path).items())
