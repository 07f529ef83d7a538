"""Shards of a corpus at a URL, in a folder of this machine that has a bounded size."""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import xxhash
from filelock import FileLock

from hydralight.cached import told_if_full
from hydralight.data.corpus.shards import INDEX, Shard
from hydralight.errors import UserError
from hydralight.runs.checksums import checksum
from hydralight.runs.files import OURS, partial_of
from hydralight.stores.listing import asked, store_of
from hydralight.stores.retries import Short, tried

CHUNK = 4_000_000  # bytes
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Cache:
    """Fetches shards, and removes those that have not been used for longest.

    Several processes may use one folder: a shard is fetched once. What another one has mapped into
    memory stays there when it is removed.

    Args:
        url: Of the corpus.
        root: The folder of all corpora, whose size is bounded.
        limit: Bytes of all shards in it.
    """

    url: str
    root: Path
    limit: int

    @property
    def folder(self) -> Path:
        """Where the shards of this corpus are."""
        return self.root / xxhash.xxh3_64_hexdigest(self.url.rstrip("/").encode())

    def __call__(self, shard: Shard) -> Path:
        """Return where a shard is; it is fetched if need be.

        Raises:
            UserError: it cannot be had, or is not what the index says; or the disk is full.
        """
        path = self.folder / shard.file
        if self._is_there(path, shard):
            return path
        with told_if_full(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            # a file for each of so many shards, and not of all that there ever were
            with FileLock(self.root / f".{int(shard.checksum[-2:], 16)}.lock"):
                if not self._is_there(path, shard):
                    self._fetch(path, shard)
        return path

    def _is_there(self, path: Path, shard: Shard) -> bool:
        with suppress(FileNotFoundError):
            os.utime(path)  # it has just been used
            return path.stat().st_size == shard.bytes
        return False

    def _fetch(self, path: Path, shard: Shard) -> None:
        partial = partial_of(path)
        try:
            with FileLock(self.root / ".lock"):
                self._make_room(shard)
                with partial.open("xb") as file:
                    file.truncate(shard.bytes)  # so that others see what it will take
            with asked(self._url_of(shard.file)):
                tried(lambda: self._copy(shard, partial))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _copy(self, shard: Shard, partial: Path) -> None:
        store, path = store_of(self._url_of(shard.file))
        with partial.open("r+b") as file, store.open(path, "rb") as remote:
            while chunk := remote.read(CHUNK):
                file.write(chunk)
            file.truncate()
        if checksum(partial) != shard.checksum:
            raise Short(f"what came is not what {INDEX} says")

    def _make_room(self, shard: Shard) -> None:
        if shard.bytes > self.limit:
            raise UserError(
                f"data.cache_size={self.limit} bytes has no room for {shard.file} of "
                f"{shard.bytes}: raise it."
            )
        files = []
        for path in self.root.rglob("*"):
            with suppress(FileNotFoundError):
                if path.suffix in (".tokens", ".arrow") or OURS.search(path.name):
                    state = path.stat()
                    files.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in files)
        for changed, size, path in sorted(files):
            if total + shard.bytes <= self.limit:
                break
            if path.suffix == ".partial" and time.time() - changed < 3600:
                continue  # another process is at it
            path.unlink(missing_ok=True)
            total -= size

    def _url_of(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"


class Ahead:
    """Fetches the shards that are read next, in a thread.

    Args:
        path_of: Fetches one.
        shards: All of them.
    """

    def __init__(self, path_of: Any, shards: Sequence[Shard]) -> None:
        self.path_of, self.shards = path_of, shards
        self._wanted: list[int] = []
        self._changed = Condition()
        Thread(target=self._run, daemon=True).start()

    def __call__(self, numbers: Sequence[int]) -> None:
        """Ask for shards, in the place of those that were asked for before."""
        with self._changed:
            self._wanted = list(numbers)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._wanted))
                number = self._wanted.pop(0)
            with suppress(Exception):  # whoever reads it is told
                self.path_of(self.shards[number])


def bytes_of(size: str | int) -> int:
    """Return the bytes of a size that is written as `50GB`.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(size).upper())
    if found is None:
        raise UserError(f"data.cache_size={size} should be a size, such as 50GB.")
    return int(float(found[1]) * UNITS[found[2]])
