"""Whether files are there in full, as can be told before anything is read of them."""

import codecs
import mmap
import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

from hydralight.errors import UserError, first_line
from hydralight.packed import MAGIC, opened, packing

MARKS = {  # longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
PEEK = 4096  # bytes
TAR_END = 1024  # bytes, of zeros


def check_whole(files: Sequence[str], kind: str, options: Mapping[str, Any]) -> None:
    """Refuse files that cannot be read, or would be read in part, or as something else.

    Args:
        files: Their paths.
        kind: The `datasets` builder that is to read them.
        options: Its options.

    Raises:
        UserError: a file is no ordinary one, is empty, or is cut short.
    """
    for file in files:
        try:
            mode = os.stat(file).st_mode
            if not stat.S_ISREG(mode):
                raise UserError(f"{file} is {_name(mode)}, and no file: save it to a file first.")
            with open(file, "rb") as stream:
                head = stream.read(PEEK)
        except OSError as error:
            raise UserError(f"{file} cannot be opened: {error.strerror}.") from error
        suffix = Path(file.lower()).suffix
        if suffix in MAGIC and not head.startswith(MAGIC[suffix]) and head:
            raise UserError(f"{file} is damaged, or not what its suffix says: it is no {suffix}.")
        if (what := _cut_short(file, packing(head), kind)) is not None:
            raise UserError(f"{file} is damaged, or not what its suffix says: {what}.")
        if kind in ("csv", "json", "text", "conll") and _is_utf8(options):
            _check_text(file)
    if len(files) == 1 and os.path.getsize(files[0]) == 0:
        raise UserError(f"{files[0]} has no rows.")


def _name(mode: int) -> str:
    kinds = {
        "a pipe": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
        "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    }
    return next((name for name, is_one in kinds.items() if is_one(mode)), "a folder")


def _cut_short(file: str, packed: str | None, kind: str) -> str | None:
    """What is missing of a file whose reader would not tell."""
    if kind == "webdataset" and packed is None:
        with open(file, "rb") as stream:
            stream.seek(-min(TAR_END, os.path.getsize(file)), os.SEEK_END)
            return None if stream.read() == bytes(TAR_END) else "it ends without a tar's end mark"
    if packed == ".zst":
        with (
            open(file, "rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return None if ends_with_a_frame(data) else "it ends within a frame"
    if packed == ".zip":
        try:
            with zipfile.ZipFile(file) as archive:
                archive.infolist()
        except zipfile.BadZipFile as error:
            return first_line(error)
    return None


def ends_with_a_frame(data: Any) -> bool:
    """Whether the last frame of zstd data is whole.

    Only headers are read (RFC 8878). `libzstd` checks the contents, but it takes the end of the
    input for the end of the data.
    """
    place, size = 0, len(data)
    while place < size:
        magic = data[place : place + 4]
        if len(magic) == 4 and magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5:
            place += 8 + int.from_bytes(data[place + 4 : place + 8], "little")  # to be skipped
            continue
        header = data[place : place + 18]  # at most
        try:
            checked = zstandard.get_frame_parameters(header).has_checksum
            place += zstandard.frame_header_size(header)
        except zstandard.ZstdError:
            return False
        last = False
        while not last:
            block = int.from_bytes(data[place : place + 3], "little")
            last = bool(block & 1) or place >= size
            place += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)  # or one byte, repeated
        place += 4 * checked
    return place == size


def _is_utf8(options: Mapping[str, Any]) -> bool:
    return str(options.get("encoding", "utf-8")).lower().replace("_", "-").startswith("utf-8")


def _check_text(file: str) -> None:
    """Refuse what is no UTF-8 although it may decode as such; bad bytes are found by reading."""
    try:
        with opened(file) as stream:
            ends = [stream.read(PEEK)]
            if packing(Path(file)) is None:  # a file system that crashed leaves zeros at the end
                stream.seek(max(0, os.path.getsize(file) - PEEK))
                ends.append(stream.read(PEEK))
    except (OSError, EOFError):
        return  # reading says more
    encoding = next((name for mark, name in MARKS.items() if ends[0].startswith(mark)), None)
    if encoding is not None:
        raise UserError(
            f"{file} is not UTF-8 text: name its encoding, data.reader={{encoding: {encoding}}}."
        )
    if any(b"\0" in part for part in ends):
        raise UserError(
            f"{file} has NUL bytes in it: it is damaged, or its encoding is another, such as "
            "data.reader={encoding: utf-16-le}."
        )
