"""Where a prepared corpus is: in a folder, or at a URL of a store that objects are put into.

Both have files by their names in the corpus, such as `train/0123-000.tokens` and `index.json`.
"""

import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

import xxhash
from filelock import FileLock, Timeout

from hydralight.cached import locked, told_if_full
from hydralight.data.corpus.claims import Claims
from hydralight.data.corpus.leases import Leases
from hydralight.data.corpus.shards import INDEX
from hydralight.errors import UserError
from hydralight.runs.files import replacing, write_text
from hydralight.stores.listing import asked, named, store_of
from hydralight.stores.retries import tried
from hydralight.stores.written import (
    content_of,
    create,
    is_written,
    objects_below,
    put,
    remove,
)

ASKED = 16  # objects that a store is asked for at once


@dataclass(frozen=True)
class Here:
    """A corpus in a folder of this machine, or of a disk that several see.

    Args:
        folder: The folder.
    """

    folder: Path

    def __str__(self) -> str:
        """Return what messages call it."""
        return str(self.folder)

    def check_writable(self) -> None:
        """Look whether files can be written to such a place."""

    def read(self, name: str) -> str | None:
        """Return the text of a file; None where there is none."""
        try:
            return (self.folder / name).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_all(self, names: Iterable[str]) -> list[str | None]:
        """Return the texts of files."""
        return [self.read(name) for name in names]

    def write(self, name: str, text: str) -> None:
        """Write a file, which is there whole or not at all."""
        with told_if_full(self.folder):
            write_text(self.folder / name, text)

    def create(self, name: str, text: str) -> None:
        """Write a file where there is none."""
        if not self.has(name):
            self.write(name, text)

    def has(self, name: str) -> bool:
        """Whether there is a file."""
        return (self.folder / name).is_file()

    def names(self, *folders: str) -> set[str]:
        """Return the names of all files in some folders, whole or not."""
        found = (path for folder in folders for path in (self.folder / folder).glob("*"))
        return {path.relative_to(self.folder).as_posix() for path in found}

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, if they are there."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    @contextmanager
    def writing(self, unit: str) -> Iterator[Path]:
        """Have the folder that files of a unit are written in."""
        yield self.folder

    def keep(self, folder: Path, names: Iterable[str]) -> None:
        """Take files that have been written as a whole in that folder."""

    def copy(self, name: str) -> Path:
        """Return where a file is on this machine."""
        return self.folder / name

    def claims(self, what: str) -> Claims:
        """Return this process's claims to units."""
        return Claims(self.folder / "claims" / what)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Be at it."""
        yield


@dataclass(frozen=True)
class There:
    """A corpus at a URL; what is written or read as files is on this machine for that time.

    Args:
        url: The URL.
        scratch: A folder for such files, of all corpora.
        token: Tells this process's copies from those of others.
    """

    url: str
    scratch: Path
    token: str = field(default_factory=lambda: secrets.token_hex(4), compare=False)
    _index: list[str] = field(default_factory=list, compare=False, repr=False)  # once it is read

    def __str__(self) -> str:
        """Return what messages call it."""
        return named(self.url.rstrip("/"))

    def check_writable(self) -> None:
        """Look whether objects can be put into such a store.

        Raises:
            UserError: it is read alone.
        """
        if not is_written(self.url):
            raise UserError(
                f"{self} has no prepared corpus, and nothing can be put there one by one: prepare "
                "a folder, and copy it there; or name s3://, gs:// or az://."
            )

    @property
    def own(self) -> Path:
        """The folder for files of this corpus."""
        return self.scratch / xxhash.xxh3_64_hexdigest(self.url.rstrip("/").encode())

    def url_of(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> str | None:
        """Return the text of an object; None where there is none. The index is read once."""
        if name == INDEX and self._index:
            return self._index[0]
        content = content_of(self.url_of(name))
        text = None if content is None else content.decode("utf-8", "replace")
        if name == INDEX and text is not None:
            self._index[:] = [text]
        return text

    def read_all(self, names: Iterable[str]) -> list[str | None]:
        """Return the texts of objects, which are asked for together."""
        with ThreadPoolExecutor(ASKED) as pool:
            return [*pool.map(self.read, names)]

    def write(self, name: str, text: str) -> None:
        """Put an object in the place of what there is."""
        put(self.url_of(name), text.encode())
        if name == INDEX:
            self._index[:] = [text]

    def create(self, name: str, text: str) -> None:
        """Put an object where there is none; of several machines, one does."""
        create(self.url_of(name), text.encode())

    def has(self, name: str) -> bool:
        """Whether there is an object."""
        store, path = store_of(self.url_of(name))
        with asked(self.url_of(name)):
            store.invalidate_cache()
            return bool(tried(lambda: store.exists(path)))

    def names(self, *folders: str) -> set[str]:
        """Return the names of all objects in some folders."""
        return {f"{one}/{name}" for one in folders for name in objects_below(self.url_of(one))}

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, if they are there."""
        with ThreadPoolExecutor(ASKED) as pool:
            [*pool.map(remove, map(self.url_of, names))]

    @contextmanager
    def writing(self, unit: str) -> Iterator[Path]:
        """Have an empty folder that files of a unit are written in, which is removed at the end."""
        folder = self.own / unit
        with told_if_full(self.scratch):
            self.own.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                rmtree(folder, ignore_errors=True)  # of a kill
                folder.mkdir()
                try:
                    yield folder
                finally:
                    rmtree(folder, ignore_errors=True)

    def keep(self, folder: Path, names: Iterable[str]) -> None:
        """Put files that have been written as a whole in a folder."""
        for name in names:
            put(self.url_of(name), folder / name)

    @property
    def _copies(self) -> Path:
        return self.own / f"copies-{self.token}"

    def copy(self, name: str) -> Path:
        """Return where a copy of an object is, for as long as it is prepared.

        Raises:
            UserError: there is no such object, or it cannot be read, or the disk is full.
        """
        path = self._copies / name
        if not path.exists():
            content = content_of(self.url_of(name))
            if content is None:
                raise UserError(f"There is no file {self}/{name}")
            with told_if_full(self.scratch), replacing(path, "wb") as file:
                file.write(content)
        return path

    def claims(self, what: str) -> Leases:
        """Return this process's claims to units."""
        return Leases(self.url_of(f"claims/{what}"))

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Have room for copies, and remove them at the end, and what kills have left."""
        with told_if_full(self.scratch):
            self._copies.mkdir(parents=True, exist_ok=True)
        with locked(self._copies):
            for folder in self.own.glob("*/"):
                lock = folder.with_name(f"{folder.name}.lock")
                if folder != self._copies:
                    with suppress(Timeout), FileLock(lock, timeout=0):
                        rmtree(folder, ignore_errors=True)
            try:
                yield
            finally:
                rmtree(self._copies, ignore_errors=True)
