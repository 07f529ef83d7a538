"""Packed files, which `datasets` unpacks by their first bytes."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

MAGIC = {
    ".gz": b"\x1f\x8b",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ\0",
    ".zst": b"\x28\xb5\x2f\xfd",
    ".zip": b"PK\x03\x04",
}


def packing(head: bytes | Path) -> str | None:
    """Return the suffix of what a file that begins so is packed by, if it is packed."""
    if isinstance(head, Path):
        with head.open("rb") as file:
            head = file.read(8)
    return next((suffix for suffix, magic in MAGIC.items() if head.startswith(magic)), None)


def opened(file: str) -> BinaryIO:
    """Open a file, packed or not, to read its bytes."""
    return unpacked(open(file, "rb"))


def unpacked(raw: BinaryIO) -> BinaryIO:
    """Return what reads the bytes that are in an open file, packed or not.

    How far it has come in the file itself is still told by `raw.tell()`.
    """
    packed = packing(raw.read(8))
    raw.seek(0)
    if packed == ".zip":
        archive = zipfile.ZipFile(raw)
        return cast(BinaryIO, archive.open(archive.namelist()[0]))
    if packed == ".zst":
        unpacker = zstandard.ZstdDecompressor()
        return io.BufferedReader(unpacker.stream_reader(raw, read_across_frames=True))
    opens: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return raw if packed is None else opens[packed](raw)
