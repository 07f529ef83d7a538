"""Objects of a store that are written: each is there whole or not at all."""

from pathlib import Path
from typing import Any

from hydralight.stores.listing import (
    AZURE,
    GCS,
    S3,
    STORES,
    File,
    asked,
    file_of,
    named,
    scheme_of,
    store_of,
)
from hydralight.stores.retries import Short, status_of, tried

TAKEN = (409, 412)  # statuses of a conditional put that somebody else was before


def is_written(url: str) -> bool:
    """Whether a URL is in a store that objects are put into one by one."""
    return STORES.get(scheme_of(url) or "") in (S3, GCS, AZURE)


def put(url: str, content: bytes | Path) -> None:
    """Put an object, or the content of a file, in the place of what there is.

    A client that sends it in parts makes one object of them at the end.

    Raises:
        UserError: it cannot be written.
    """
    store, path = store_of(url)
    size = len(content) if isinstance(content, bytes) else content.stat().st_size

    def once() -> None:
        if isinstance(content, bytes):
            store.pipe_file(path, content)
            return
        store.put_file(str(content), path)
        store.invalidate_cache()
        if (there := store.info(path)["size"]) != size:
            raise Short(f"{there} of {size} bytes of {named(url)} are there")

    with asked(url, "written"):
        tried(once)


def create(url: str, content: bytes) -> bool:
    """Put an object where there is none, and say whether there was none.

    Of several processes one puts it (`If-None-Match: *` of S3 and Azure, `ifGenerationMatch=0` of
    Google). It may say that there was one where the answer to its own put was lost.

    Raises:
        UserError: it cannot be written.
    """
    store, path = store_of(url)

    def once() -> bool:
        try:
            store.pipe_file(path, content, mode="create")
        except Exception as error:
            if not _is_taken(error):
                raise
            return False
        return True

    with asked(url, "written"):
        return tried(once)


def _is_taken(error: Exception) -> bool:
    number = status_of(error) or getattr(error, "code", None)  # gcsfs' own
    return isinstance(error, FileExistsError) or number in TAKEN


def content_of(url: str) -> bytes | None:
    """Return the content of an object; None where there is none.

    Raises:
        UserError: it cannot be read.
    """
    store, path = store_of(url)
    with asked(url):
        try:
            found: bytes = tried(lambda: store.cat_file(path))
        except FileNotFoundError as error:
            if error.__cause__ is not None and status_of(error) not in (404, 410):
                raise  # fsspec's for whatever a web server did
            return None
        return found


def objects_below(url: str) -> dict[str, File]:
    """Return all objects below a URL, by the rest of their names.

    Raises:
        UserError: they cannot be listed.
    """
    store, path = store_of(url)

    def once() -> dict[str, Any]:
        store.invalidate_cache()
        try:
            found: dict[str, Any] = store.find(path, detail=True)
        except FileNotFoundError:
            return {}
        return found

    with asked(url):
        found = tried(once)
    below = f"{path.rstrip('/')}/"
    return {
        name[len(below) :]: file_of(store.unstrip_protocol(name), info)
        for name, info in found.items()
        if name.startswith(below) and info["type"] == "file"
    }


def remove(url: str) -> None:
    """Remove an object, if it is there.

    Raises:
        UserError: it cannot be removed.
    """
    store, path = store_of(url)

    def once() -> None:
        try:
            store.rm_file(path)
        except FileNotFoundError:
            return

    with asked(url, "removed"):
        tried(once)
