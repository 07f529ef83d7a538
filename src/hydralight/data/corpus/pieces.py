"""Pieces of files, and the units of them that a corpus is prepared in."""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hydralight.stores.fetched import opened
from hydralight.stores.listing import File

AHEAD = 2_000_000  # bytes that a store is asked for at once


@dataclass(frozen=True)
class Piece:
    """A part of a file, or all of it.

    Args:
        file: Its path, or its URL without a signature.
        start: The byte that it begins at, of lines; or the row group, of Parquet.
        stop: The one behind its last; None is the file's end.
        size: Bytes of the file.
        remote: The file as it was listed, where it is at a URL.
        time: When a file here was changed (ns), where it is looked at again as it is read.
    """

    file: str
    start: int = 0
    stop: int | None = None
    size: int = 0
    remote: File | None = None
    time: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the file."""
        return self.start == 0 and self.stop is None

    def opened(self) -> BinaryIO:
        """Open the file, here or where it is.

        Raises:
            UserError: it cannot be read, or is no longer what was listed.
        """
        return open(self.file, "rb") if self.remote is None else opened(self.remote, AHEAD)


@dataclass(frozen=True)
class Unit:
    """Pieces that are done as one, in their order.

    Args:
        name: Tells it from others: by its pieces, and the state that their files are in.
        pieces: What is read.
        left_out: Where it is written which of its rows are duplicates, once that is known.
    """

    name: str
    pieces: tuple[Piece, ...]
    left_out: Path | None = None

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(piece.size for piece in self.pieces)

    @property
    def record(self) -> str:
        """The name of the file that says that it is done."""
        return f"units/{self.name}.json"
