"""Checksums of files and of folders, and of all files of an exported model."""

import hashlib
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path

import xxhash

from hydralight.errors import UserError
from hydralight.runs.files import write_text
from hydralight.runs.reading import read_json

log = logging.getLogger(__name__)

ALGORITHM = "xxh3_128"
NAME = "checksums.json"  # of a folder
EXPORTED = "exported.json"  # what an export says of itself
FOR_PEOPLE = ("README.md",)  # who edit it


def checksum(path: Path) -> str:
    """Return the checksum of a file, which is read once as bytes and never unpickled.

    That of a folder is taken of the names and checksums of all its files.

    That takes a core of an AMD EPYC 1 s for 10.5 GB in memory, where the system keeps what was just
    written; else it is as fast as the disk. (`torch.load` takes the same core 1 s for 1.8 GB.)
    """
    if path.is_dir():
        with ThreadPoolExecutor() as pool:  # reading and hashing leave the interpreter free
            files = _files(path)
            own = dict(zip(map(str, files), pool.map(checksum, files), strict=True))
        names = {str(Path(name).relative_to(path)): value for name, value in own.items()}
        return f"{ALGORITHM}:{xxhash.xxh3_128_hexdigest(json.dumps(names).encode())}"
    with path.open("rb") as file:
        return f"{ALGORITHM}:{hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()}"


def write_checksums(folder: Path) -> None:
    """Write `checksums.json`, with the checksum of each file of a folder."""
    write_text(folder / NAME, json.dumps(checksums_of(folder), indent=2) + "\n")


def verify(folder: Path) -> None:
    """Check each file of a folder against `checksums.json`.

    Where an export of ours has lost that file, a warning says so; a folder that never had one is
    fine. A folder that has not changed since is not read again.

    Raises:
        UserError: a file is not, bit by bit, what was written, or not there, or not known.
    """
    if not (folder / NAME).is_file():
        if is_an_export(folder):
            _warn(folder)
        return
    every = [*_files(folder), folder / NAME]
    # the time of the last change of any kind, which nobody can set; but clocks are coarse
    state = tuple((str(p), p.stat().st_size, p.stat().st_ctime_ns) for p in every)
    settled = time.time_ns() - max(changed for _, _, changed in state) > 1e9
    (_verified if settled else _verified.__wrapped__)(folder, state)


@lru_cache(maxsize=64)
def _verified(folder: Path, state: tuple[tuple[str, int, int], ...]) -> None:
    on_purpose = f"if that was done on purpose, delete {NAME} beside it"
    advice = "export the model again, or delete it to go without checksums"
    known = read_json(folder / NAME, dict, advice)
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name not in (*known, *FOR_PEOPLE) and not any(p[0] == "." for p in name.split("/")):
            raise UserError(f"{path} is not among the files that {NAME} knows; {on_purpose}.")
    for name, expected in known.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is not there any more; {on_purpose}.")
        if checksum(path) == expected:
            continue
        if name in FOR_PEOPLE:
            log.warning("%s is not the text that was exported", path)
        else:
            raise UserError(
                f"{path} is damaged (its checksum is not that in {NAME}); {on_purpose}."
            )


@cache
def _warn(folder: Path) -> None:
    log.warning("%s has lost its %s: its files cannot be checked", folder, NAME)


def checksums_of(folder: Path) -> dict[str, str]:
    """Return the checksum of each file of a folder by its name, except that of checksums."""
    return {path.relative_to(folder).as_posix(): checksum(path) for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    found = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.name != NAME)


def is_an_export(folder: Path) -> bool:
    """Whether an export of ours has written a folder, also where its checksums are gone."""
    run = [folder.parent / name for name in (".hydra/config.yaml", "metrics.json")]
    of_a_run = folder.name == "model" and all(path.is_file() for path in run)
    return (folder / EXPORTED).is_file() or of_a_run


def is_ours(folder: Path) -> bool:
    """Whether a folder is one that an export of ours may replace: it is one, or there is nothing.

    A link to a folder counts as that.
    """
    if not (folder.exists() or folder.is_symlink()):
        return True
    exported = any((folder / name).is_file() for name in (NAME, EXPORTED))
    return folder.is_dir() and (exported or not any(folder.iterdir()))
