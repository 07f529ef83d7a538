"""Files of stores as streams, and as copies in the cache that are read like any local file."""

import io
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit

import datasets
import pyarrow.parquet as pq
import xxhash

from hydralight.cached import intact, locked, seal, told_if_full
from hydralight.errors import UserError
from hydralight.runs.files import write_text
from hydralight.stores.listing import HTTP, STORES, File, asked, listed, scheme_of, store_of
from hydralight.stores.listing import unchanged as is_unchanged
from hydralight.stores.retries import Short, tried

log = logging.getLogger(__name__)

RANGE = 16_000_000  # bytes that are asked for at once
FILES = 8  # that are fetched at once
NAME = ".url"  # beside a copy: where it is from


class Changed(UserError):
    """A file is another one than when it was listed."""

    def __init__(self, file: File) -> None:
        super().__init__(
            f"{file.name} has changed while it was read: start again when it is written no more."
        )


class WholeOnly(UserError):
    """A web server gives a file from its beginning only."""


def cache_folder() -> Path:
    """Return the folder of all copies."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "hydralight/fetched"


def files_at(url: str) -> list[str]:
    """Return local copies of the files that a URL or a glob names.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    for attempt in range(3):
        try:
            with ThreadPoolExecutor(FILES) as pool:
                return [str(copy) for copy in pool.map(fetched, listed(url))]
        except Changed:
            if attempt == 2:
                raise
    raise AssertionError


def fetched(file: File) -> Path:
    """Return the local copy of a file, which is fetched where it is not there.

    A copy has its final name and a checksum when it is whole. What a process that was killed has
    fetched of it is used by the next one, if the store tells versions of the file apart. Of several
    processes one fetches, and the others wait.

    Raises:
        Changed: it is no longer what was listed.
        UserError: it cannot be read, or the disk is full.
    """
    copy = copy_of(file)
    with told_if_full(cache_folder()):
        copy.parent.mkdir(parents=True, exist_ok=True)
        with locked(copy):
            if not intact(copy):
                partial = copy.with_name(copy.name + ".partial")
                try:
                    _fetch(file, partial)
                except Changed:
                    partial.unlink(missing_ok=True)
                    raise
                write_text(copy.parent.parent / NAME, file.name)
                seal(partial, copy)
    return copy


def forget(file: File) -> None:
    """Remove the copy of a file that is needed no more, whole or in part."""
    copy = copy_of(file)
    if copy.parent.exists():
        with locked(copy):
            shutil.rmtree(copy.parent.parent)


def copy_of(file: File) -> Path:
    """Return where the copy of a file is: by its URL and version, in a folder named as its own."""
    key = xxhash.xxh3_128_hexdigest(repr((file.name, file.size, file.version)).encode())
    path = PurePosixPath(unquote(urlsplit(file.name).path))
    return cache_folder() / key / (path.parent.name or "_") / (path.name or "_")


def _fetch(file: File, partial: Path) -> None:
    if not takes_ranges(file):
        _fetch_whole(file, partial)
        return
    start = partial.stat().st_size if partial.exists() and file.version is not None else 0
    with partial.open("ab") as out, Ranges(file) as ranges:
        out.truncate(start)
        ranges.seek(start)
        while block := ranges.read(RANGE):
            out.write(block)
        if start == file.size:
            ranges.check()


def _fetch_whole(file: File, partial: Path) -> None:
    """Fetch from a server that gives files from their beginning only."""
    store, path = store_of(file.url)

    def once() -> None:
        store.get_file(path, str(partial))
        if file.size is not None and partial.stat().st_size != file.size:
            raise Short(f"{partial.stat().st_size} of {file.size} bytes of {file.name} came")

    with asked(file.url):
        tried(once)
    if not is_unchanged(file):
        raise Changed(file)


# ---------------------------------------------------------------- streams


def takes_ranges(file: File) -> bool:
    """Whether a store gives parts of a file; only web servers may not."""
    if file.size is None:
        return False
    if STORES[scheme_of(file.url) or ""] is not HTTP or file.size < 2:
        return True
    with Ranges(file) as ranges:
        try:
            ranges.part(1, 2)
        except WholeOnly:
            return False
    return True


def opened(file: File, ahead: int = RANGE) -> BinaryIO:
    """Open a file of a store to read its bytes, from anywhere in it.

    What does not come, or comes in part, is asked for again. Where the end has been read, it is
    looked up whether the file is still what was listed. A server that gives no parts of
    files has it fetched whole.

    Args:
        file: As `listed` returns it.
        ahead: Bytes that are asked for at once, at least.

    Raises:
        Changed: it is not, when its end is read.
        UserError: it cannot be read.
    """
    if not takes_ranges(file):
        return fetched(file).open("rb")
    return cast(BinaryIO, io.BufferedReader(Ranges(file), ahead))


class Ranges(io.RawIOBase):
    """A file of a store that is read range by range, each as long as what is asked for.

    Args:
        file: The file.
    """

    def __init__(self, file: File) -> None:
        super().__init__()
        self.file = file
        self.size = file.size or 0
        self.place = 0
        self.store = STORES[scheme_of(file.url) or ""]
        store, path = store_of(file.url)
        # a web server need not be asked for the size once more; the client of S3 wants to, and then
        # asks for parts of this version alone
        known = {"size": file.size} if self.store is HTTP else {}
        with asked(file.url):
            self._open: Any = tried(lambda: store.open(path, "rb", cache_type="none", **known))

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range.

        Raises:
            Changed: the store no longer has the version that was listed.
            WholeOnly: the server does not give ranges.
            UserError: it cannot be read.
        """

        def once() -> bytes:
            self._open.seek(start)
            try:
                found: bytes = self._open.read(stop - start)
            except OSError as error:
                if type(error).__name__ == "FileExpired":  # of s3fs
                    raise Changed(self.file) from error
                raise
            except ValueError as error:  # fsspec's, where another range came than was asked for
                raise WholeOnly(f"The server gives no parts of {self.file.name}.") from error
            if len(found) != stop - start:
                raise Short(f"{len(found)} of {stop - start} bytes of {self.file.name} came")
            return found

        with asked(self.file.url):
            return tried(once, few=self.store.patient) if stop > start else b""

    def check(self) -> None:
        """Look whether the file is still what was listed.

        Raises:
            Changed: it is not.
        """
        if not is_unchanged(self.file):
            raise Changed(self.file)

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes; at the end, see that all of them are of one version."""
        stop = min(self.place + len(buffer), self.size)
        found = self.part(self.place, stop)
        buffer[: len(found)] = found
        if found and stop == self.size:
            self.check()
        self.place = stop
        return len(found)

    def readall(self) -> bytes:
        """Return all that follows."""
        return b"".join(iter(lambda: self.read(RANGE) or b"", b""))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        self.place = min(max(base + offset, 0), self.size)
        return self.place

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self.place

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True


def parquet(file: File) -> pq.ParquetFile:
    """Open a Parquet file of a store, of which only the columns and row groups that are read come.

    Whether it is still what was listed is looked up with its footer, when it is opened, and by
    `unchanged` later.
    """
    raw = Ranges(file) if takes_ranges(file) else fetched(file)
    return pq.ParquetFile(raw, pre_buffer=True)


# ---------------------------------------------------------------- what copies are called


def url_of(path: str) -> str:
    """Return the URL that a local copy is from; any other path as it is."""
    try:
        return (Path(path).parent.parent / NAME).read_text() if _is_copy(path) else path
    except OSError:
        return path


def _is_copy(path: str) -> bool:
    return Path(path).is_relative_to(cache_folder())


@contextmanager
def by_their_urls() -> Iterator[None]:
    """Call copies by their URLs in what is raised in here.

    Raises:
        UserError: with the same sentence otherwise.
    """
    try:
        yield
    except UserError as error:
        said = str(error)
        for copy in sorted(set(_copies_in(said)), key=len, reverse=True):
            said = said.replace(copy, url_of(copy))
        if said != str(error):
            error.args = (said,)
        raise


def _copies_in(text: str) -> Sequence[str]:
    """Return the copies that a text names; a name may have spaces in it."""
    found = []
    for match in re.finditer(re.escape(str(cache_folder())) + r"/([0-9a-f]{32})/", text):
        copies = (path for path in Path(match[0]).glob("*/*") if str(path) in text)
        found += [str(path) for path in copies]
    return found
