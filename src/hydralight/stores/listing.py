"""Stores of files at URLs: which there are, what is in them, and what goes wrong with them.

Whose files they are is told to a store by its client: by variables of the environment, and by the
client's own files. A config says nothing of it.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from hydralight.errors import UserError, did_you_mean, ended, first_line
from hydralight.runs.secrets import redact_message
from hydralight.stores.retries import status_of, tried


@dataclass(frozen=True)
class Store:
    """A kind of store.

    Args:
        package: What fsspec reads it with.
        extra: The extra of ours that installs the package; "" where it is always there.
        who: Where its client finds the user's credentials.
        patient: Whether its client tries again by itself, for about half a minute or more.
    """

    package: str
    extra: str
    who: str
    patient: bool = False


S3 = Store("s3fs", "s3", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or ~/.aws")
GCS = Store("gcsfs", "gcs", "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth")
AZURE = Store(
    "adlfs",
    "azure",
    "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with "
    "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or az login",
    patient=True,
)
HUB = Store("huggingface_hub", "", "HF_TOKEN, or hf auth login", patient=True)
HTTP = Store("aiohttp", "", "~/.netrc")
STORES = {"s3": S3, "s3a": S3, "gs": GCS, "gcs": GCS, "az": AZURE, "abfs": AZURE, "abfss": AZURE}
STORES |= {"hf": HUB, "https": HTTP, "http": HTTP}
TIMES = ("LastModified", "last_modified", "updated", "Last-Modified")
TAGS = ("ETag", "etag", "blob_id", "Content-MD5", "content_md5", "Digest")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://.*", re.DOTALL)


@dataclass(frozen=True)
class File:
    """A file in a store, as it was when it was listed.

    Args:
        url: Where it is; there may be a signature in it.
        size: Bytes; None where the store does not say.
        etag: What the store calls its content; None where it does not.
        mtime: When it was changed, as the store writes it; None where it does not.
    """

    url: str = field(repr=False)
    size: int | None
    etag: str | None
    mtime: str | None

    @property
    def name(self) -> str:
        """Its URL as it is shown and written down: without a query that has a signature."""
        return named(self.url)

    @property
    def version(self) -> str | None:
        """What tells its content from that of another time; None where nothing but the size can."""
        return self.etag or self.mtime

    def is_still(self, other: "File") -> bool:
        """Whether another look at it found the same content, as far as the store tells."""
        tags = (self.etag, other.etag) if self.etag and other.etag else (self.mtime, other.mtime)
        return self.size == other.size and tags[0] == tags[1]


def scheme_of(path: str) -> str | None:
    """Return the scheme of a URL in small letters; None for what is none, or a local file's."""
    match = _SCHEME.fullmatch(path)
    return None if match is None or match[1].lower() == "file" else match[1].lower()


def named(url: str) -> str:
    """Return a URL without a query that has a signature, which is another one each day."""
    bare = urlunsplit(urlsplit(url)._replace(query="")) if "?" in url else url
    return redact_message(bare if redact_message(url) != url else url)


def has_magic(url: str) -> bool:
    """Whether a URL is a glob; a question mark is none where it begins a query."""
    return bool(re.search(r"[*\[]" if scheme_of(url) in ("http", "https") else r"[*?\[]", url))


def listed(url: str) -> list[File]:
    """Return the file of a URL, or the files of a glob in the order of their names.

    Raises:
        UserError: there is none, it is a folder, or the store does not let it be seen.
    """
    store, path = store_of(url)
    with asked(url):
        store.invalidate_cache()
        found = {}
        if has_magic(path):
            found = tried(lambda: store.glob(path, detail=True), few=True)
            names = [name for name, info in found.items() if info["type"] == "file"]
            if found and not names:
                raise UserError(f"{named(url)} matches folders only: name the files in them.")
            if any(found[name].get("size") is None for name in names):  # from a page of links
                with ThreadPoolExecutor(8) as pool:
                    infos = pool.map(lambda name: tried(lambda: store.info(name)), names)
                    found = dict(zip(names, infos, strict=True))
            if not names and not store.isfile(path):
                _look_for_bucket(url, store, path)
                raise UserError(f"No file matches {named(url)}.")
            found = {name: found[name] for name in sorted(names)}
        if not found:
            missing = None
            try:
                found = {path: tried(lambda: store.info(path), few=True)}
            except FileNotFoundError as error:
                missing = error
            if missing is not None:
                _look_for_bucket(url, store, path)
                raise missing
            if found[path]["type"] != "file":
                raise UserError(
                    f"{named(url)} is a folder: name the files in it by a glob, as in "
                    f"{named(url).rstrip('/')}/*.jsonl."
                )
        return [file_of(store.unstrip_protocol(name), info) for name, info in found.items()]


def _look_for_bucket(url: str, store: Any, path: str) -> None:
    """Let the client say that there is no such bucket, if it can."""
    if STORES[scheme_of(url) or ""] in (S3, GCS, AZURE):
        store.ls(path.partition("/")[0])


def unchanged(file: File) -> bool:
    """Whether a file is still what it was when it was listed, as far as its store tells.

    Raises:
        UserError: it is gone, or the store does not answer.
    """
    store, path = store_of(file.url)
    with asked(file.url):
        store.invalidate_cache()
        return file.is_still(file_of(file.url, tried(lambda: store.info(path))))


def file_of(url: str, info: dict[str, Any]) -> File:
    """Return the file that a client tells of."""
    tag = next((str(info[key]) for key in TAGS if info.get(key)), None)
    time = next((str(info[key]) for key in TIMES if info.get(key)), None)
    return File(url, info.get("size"), tag, time)


# ---------------------------------------------------------------- clients


def store_of(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec for a URL, and the path in it.

    Raises:
        UserError: there is no such store, its package is missing, or a password is in the URL.
    """
    from fsspec.core import url_to_fs

    scheme = scheme_of(url) or ""
    if scheme not in STORES or "::" in url:
        known = ", ".join(f"{one}://" for one in STORES)
        near = did_you_mean(scheme, STORES)
        raise UserError(f"{named(url)} is in no store that is known: there are {known}{near}")
    user = urlsplit(url).netloc.rpartition("@")[0]
    if ":" in user or (user and STORES[scheme] is HTTP):
        raise UserError(
            f"The URL {named(url)} has a user or a password in it: leave that out, and put it in "
            f"{STORES[scheme].who}."
        )
    with asked(url):
        return url_to_fs(url, **_options(scheme))


def _options(scheme: str) -> dict[str, Any]:
    """Return how a client waits, and that bytes come as they are kept."""
    if STORES[scheme] is HTTP:
        import aiohttp

        client = {
            "trust_env": True,  # proxies, and the passwords of ~/.netrc
            "auto_decompress": False,
            "headers": {"Accept-Encoding": "identity"},
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60),
        }
        return {"client_kwargs": client}
    if STORES[scheme] is S3:
        config = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
        return {"config_kwargs": config, "anon": _anonymous()}
    return {}


def _anonymous() -> bool:
    """Whether the client of S3 has no credentials; open buckets can be read without."""
    from botocore.session import Session

    return Session().get_credentials() is None


@contextmanager
def asked(url: str, what: str = "read") -> Iterator[None]:
    """Turn what a client raises about a URL into a sentence.

    Args:
        url: The URL.
        what: What was to be done with it: it was to be "read" or "written".

    Raises:
        UserError: it did.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(_sentence(url, error, what)) from error


def _sentence(url: str, error: Exception, what: str) -> str:
    store, name = STORES[scheme_of(url) or "http"], named(url)
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)  # type: ignore[arg-type]
    said = redact_message(first_line(chain[-1] if isinstance(error, FileNotFoundError) else error))
    if isinstance(error, ImportError):
        how = f"pip install 'hydralight[{store.extra}]'" if store.extra else f"install {error.name}"
        return f"{name} is read by the package {store.package}, which is not installed: {how}"
    status = status_of(error)
    words = " ".join(f"{type(one).__name__} {one}" for one in chain)
    if "Must provide either a connection_string" in words or "CredentialsError" in words:
        return f"{name} cannot be {what} without credentials: set {store.who}."
    if status in (401, 403) or isinstance(error, PermissionError) or "AuthenticationE" in words:
        knows = f"The store knows the user by {store.who}"
        return f"{name} may not be {what} ({ended(said)[:200]} {knows})."
    missing = isinstance(error, FileNotFoundError) or status == 404
    if re.search(
        r"NoSuchBucket|ContainerNotFound|bucket does not exist|container does not|such container",
        words,
    ):
        return f"There is no bucket or container of {name}: look at its name, and at the account."
    if missing and (status in (404, 410) or len(chain) == 1 or store is not HTTP):
        return f"There is no file {name}"
    return f"{name} cannot be {what}: {ended(said)}"
