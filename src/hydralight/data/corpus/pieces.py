"""Pieces of files, and the units of them that a corpus is prepared in."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Piece:
    """A part of a file, or all of it.

    Args:
        file: Its path.
        start: The byte that it begins at, of lines; or the row group, of Parquet.
        stop: The one behind its last; None is the file's end.
        size: Bytes of the file.
    """

    file: str
    start: int = 0
    stop: int | None = None
    size: int = 0


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
