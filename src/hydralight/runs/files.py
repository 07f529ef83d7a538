"""Files and folders that are whole or not there, and that no link leads elsewhere.

What is being written has a name of its own beside its place (`<name>.<8 hexadecimals>.partial`),
which nobody can have put there before; what a kill leaves of it goes with the next start.
"""

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hydralight.errors import UserError, first_line

# a file is where a folder would be, or nothing may be written
ELSEWHERE = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS}

TRIES = 4  # to read a folder that is being replaced
OURS = re.compile(r"\.[0-9a-f]{8}\.partial$")
WANDB_LOG = re.compile(r"(\d+/)?wandb/[^/]+/logs/debug-core\.log")  # of a run, or of a trial's


def partial_of(path: Path) -> Path:
    """Return the name under which something is written before it is whole."""
    return path.with_name(f"{path.name[:200]}.{secrets.token_hex(4)}.partial")


@contextmanager
def replacing(path: Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that takes the place of `path` once it is whole; its folder is made if need be.

    Args:
        path: The file; a link in its place is replaced, not followed.
        mode: "w" for text (UTF-8), "wb" for bytes.
        options: Further arguments of `open`.

    Raises:
        UserError: the disk is full, or the like; what was there before is intact.
    """
    partial = partial_of(path)
    text: Any = {} if "b" in mode else {"encoding": "utf-8"}
    try:
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        # "x" makes a new file, and follows no link
        with told(path), open(partial, mode.replace("w", "x"), **text, **options) as file:
            yield file
        with told(path):
            partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Tell in a sentence that something cannot be written.

    Raises:
        UserError: in the place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        then = "name another place" if error.errno in ELSEWHERE else "make room there"
        raise UserError(f"{path} cannot be written ({reason}): {then}.") from error


def write_text(path: Path, text: str) -> None:
    """Write a file that appears only when it is whole; a `UserError` where that cannot be."""
    with replacing(path) as file:
        file.write(text)


def append_text(path: Path, text: str) -> None:
    """Add a text to a file that is no link, or leave the file as it was.

    Raises:
        UserError: the disk is full, or the like.
    """
    with told(path), open(path, "ab", buffering=0, opener=open_own) as file:
        size = file.seek(0, os.SEEK_END)
        content = text.encode()
        try:
            while content:
                content = content[file.write(content) :]
        except BaseException:
            file.truncate(size)
            raise


def open_own(path: str, flags: int) -> int:
    """Open a file that is written in place, as `open`'s opener; it is made if `flags` say so.

    Raises:
        OSError: it is a symbolic link, or it cannot be made the folder's own.
    """
    with suppress(FileNotFoundError):
        make_own(Path(path))
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def make_own(path: Path) -> None:
    """Put a copy in the place of a file that has a second name.

    By that name it may be somebody's elsewhere, or part of a backup (`cp -al`).

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be copied.
    """
    if os.lstat(path).st_nlink > 1:
        copy = partial_of(path)
        shutil.copyfile(path, copy, follow_symlinks=False)
        os.replace(copy, path)


# ---------------------------------------------------------------- folders


def new_folder(path: Path) -> Path:
    """Make an empty folder beside a place, to be written and then put there."""
    partial = partial_of(path)
    with told(path):
        partial.mkdir(parents=True)
    return partial


def replace_folder(new: Path, old: Path) -> None:
    """Put a complete folder in the place of another; `restore_folder` mends an interruption."""
    previous = old.with_name(f"{old.name}.previous")
    remove(previous)
    if old.exists():
        old.rename(previous)
    new.rename(old)
    remove(previous)


def restore_folder(path: Path) -> None:
    """Take back the previous folder where a replacement was interrupted between its two steps."""
    previous = path.with_name(f"{path.name}.previous")
    if previous.exists() and not path.exists():
        previous.rename(path)


def steadily(path: Path, read: Callable[[Path], Any]) -> Any:
    """Return what is read from a folder that another process may be replacing; change nothing.

    All of it is of one folder: where that has been replaced meanwhile, it is read again. One whose
    replacement was interrupted is read where it lies then, under the name of the previous one.
    """
    for left in reversed(range(TRIES)):
        there = path if path.exists() or left else path.with_name(f"{path.name}.previous")
        before = _identity(there)
        try:
            value = read(there if before else path)
            if not left or before == _identity(there):
                return value
        except (OSError, UserError):
            if not left or (before and before == _identity(there)):
                raise
        time.sleep(0.1)
    raise AssertionError


def _identity(folder: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = folder.stat()
        return found.st_ino, found.st_ctime_ns
    return None


def copy_folder(path: Path, copy: Path) -> None:
    """Copy a complete folder as a whole, by hard links where the disk has them."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    partial = partial_of(copy)
    shutil.copytree(path, partial, copy_function=link)
    replace_folder(partial, copy)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear_partials(place: Path) -> None:
    """Remove what a kill has left of what was to be written in a place."""
    for path in place.parent.glob(f"{glob_text(place.name)[:200]}.*.partial"):
        if OURS.search(path.name):
            remove(path)


def glob_text(text: str) -> str:
    """Return a pattern that matches just this text."""
    return re.sub(r"([*?[])", r"[\1]", text)


# ---------------------------------------------------------------- what others have put there


def refuse_links(folder: Path) -> None:
    """Look through a directory, which may be anybody's, before something is written in it.

    Raises:
        UserError: a link below it leads out of it, or something is neither a file nor a folder.
    """
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in sorted([*folders, *files]):
            path = Path(parent, name)
            if path.is_symlink():
                if WANDB_LOG.fullmatch(path.relative_to(folder).as_posix()) and path.is_file():
                    continue  # W&B's own, never written again
                if not _target(path).is_relative_to(root):
                    raise UserError(
                        f"{path} is a link that leads out of {folder}, where nothing is to be "
                        "written: remove it, or put in its place what it leads to."
                    )
                continue
            with suppress(FileNotFoundError):  # another process has just replaced it
                kind = path.stat().st_mode
                if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                    raise UserError(f"{path} is neither a file nor a folder: remove it.")


def _target(link: Path) -> Path:
    """Return where a link leads; the root of the file system for one that leads in a circle."""
    try:
        return link.resolve()
    except (OSError, RuntimeError):
        return Path("/")
