"""Which rows of a stream make which window: a pure function of the units and of what was read.

A pass goes through all units in an order of its own. So many of them are open side by side; a
window takes the next rows of each. A unit that ends leaves its place to the next one. How many rows
that were is known once they have been read, and is all that has to be known to go on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hydralight.data.corpus.permutation import Permutation
from hydralight.data.corpus.shards import Shard

FIRST_BYTES = 500_000  # of the first window, which training waits for
BITS = 32  # of a row's index: its place in its window; the window's number is above them
BYTES = 32_000_000  # of a window, about, once those before have doubled up to it

Place = tuple[int, int]  # a unit, and its rows that windows before have had


@dataclass(frozen=True)
class Cursor:
    """The beginning of a window.

    Args:
        number: Of the window, counted on from pass to pass.
        epoch: The pass that it is of.
        begun: Units that the pass has begun.
        places: Those that are open, by place; None where the last one has ended.
    """

    number: int = 0
    epoch: int = 0
    begun: int = 0
    places: tuple[Place | None, ...] = ()

    def state(self) -> dict[str, Any]:
        """Return plain values, which a checkpoint keeps."""
        return {**asdict(self), "places": [place and list(place) for place in self.places]}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Cursor":
        """Return what `state` returned."""
        places = tuple(place and tuple(place) for place in state["places"])
        return cls(**{**state, "places": places})


@dataclass(frozen=True)
class Window:
    """A window that has been made.

    Args:
        cursor: Its beginning.
        after: The beginning of the next one.
        shards: Its rows.
    """

    cursor: Cursor
    after: Cursor
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Windows:
    """The windows of a stream, one after the other.

    Args:
        units: How many there are.
        seed: Of the order of units in each pass.
        side_by_side: Units that a window has rows of.
        first_bytes: Of the first window.
        bytes: Of a window, at most, about.
    """

    units: int
    seed: int
    side_by_side: int
    first_bytes: int = field(default_factory=lambda: FIRST_BYTES)
    bytes: int = field(default_factory=lambda: BYTES)

    def places(self, cursor: Cursor) -> list[Place | None]:
        """Return what a window reads, by place."""
        number = min(self.side_by_side, self.units)
        places = list(cursor.places) or [None] * number
        order = Permutation(self.units, self.seed, cursor.epoch)
        begun = cursor.begun
        for index, place in enumerate(places):
            if place is None and begun < self.units:
                places[index] = (int(order(np.array([begun]))[0]), 0)
                begun += 1
        return places

    def share(self, cursor: Cursor) -> int:
        """Return the bytes that a window takes of each unit; the first windows are small."""
        size = min(self.bytes, self.first_bytes << min(cursor.number, 30))
        return max(1, size // sum(place is not None for place in self.places(cursor)))

    def after(self, cursor: Cursor, read: Sequence[tuple[int, bool]]) -> Cursor:
        """Return the beginning of the next window.

        Args:
            cursor: Of this one.
            read: By place, how many rows of the unit the window has had, and whether it has ended.
        """
        opened = self.places(cursor)
        begun = cursor.begun + sum(
            now is not None and (not cursor.places or before is None)
            for now, before in zip(opened, cursor.places or opened, strict=True)
        )
        places = tuple(
            None if place is None or ended else (place[0], place[1] + rows)
            for place, (rows, ended) in zip(opened, read, strict=True)
        )
        number = cursor.number + 1
        if begun == self.units and not any(places):
            return Cursor(number, cursor.epoch + 1)
        return Cursor(number, cursor.epoch, begun, places)
