"""Which rows of a corpus have the texts of an earlier row: exact, and bounded in memory."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from hydralight.data.corpus.pieces import Unit
from hydralight.runs.files import replacing

if TYPE_CHECKING:
    from hydralight.data.corpus.shards import Home
    from hydralight.data.corpus.work import Work

ASKED = 16  # files of hashes that a store is asked for at once
MOST = 16_000_000  # hashes that are sorted at a time: about 1 GB with their places


@dataclass(frozen=True)
class Hash:
    """Writes the hashes of the rows of a unit: 16 bytes a row.

    Args:
        work: Says which rows are kept.
        home: Of the corpus.
    """

    work: "Work"
    home: "Home"

    def __call__(self, unit: Unit, step: Callable[[int], None]) -> None:
        """Do a unit."""
        counts: Counter[str] = Counter()
        found = [np.zeros((0, 2), dtype=np.uint64)]
        for piece in unit.pieces:
            before = 0
            for rows in self.work.rows(piece, counts):
                found.append(rows.hashes)
                step(rows.done - before)
                before = rows.done
            step(piece.size - before)
        with self.home.writing(unit.name) as folder:
            write(folder / hashes_of(unit), np.concatenate(found))
            self.home.keep(folder, [hashes_of(unit)])

    def is_done(self, unit: Unit) -> bool:
        """Whether they are there."""
        return self.home.has(hashes_of(unit))

    def done_among(self, units: Sequence[Unit]) -> set[str]:
        """Return the names of the units whose hashes are there."""
        files = self.home.names("duplicates")
        return {unit.name for unit in units if hashes_of(unit) in files}

    # ------------------------------------------------------------ what recurs

    def find(self, units: Sequence[Unit]) -> list[Unit]:
        """Return the units with which of their rows recur: all but the first in the corpus.

        That is in their names too, so that one is done again where other files change it.
        Hashes are sorted in as many parts, by their first bits, as keep the memory bounded.
        """
        with ThreadPoolExecutor(ASKED) as pool:
            copies = [*pool.map(self.home.copy, map(hashes_of, units))]
        hashes = [np.load(copy, mmap_mode="r") for copy in copies]
        sizes = [len(one) for one in hashes]
        starts = np.cumsum([0, *sizes])
        recurs = np.zeros(int(starts[-1]), dtype=bool)  # a byte a row
        bits = max(0, (int(starts[-1]) // MOST).bit_length())
        for part in range(1 << bits):
            parts, places = [], []
            for one, start in zip(hashes, starts, strict=False):
                high = np.asarray(one[:, 0])
                inside = np.flatnonzero(high >> np.uint64(64 - bits) == part) if bits else None
                chosen = np.arange(len(one)) if inside is None else inside
                parts.append(one[chosen])
                places.append(chosen + start)
            values, where = np.concatenate(parts), np.concatenate(places)
            order = np.lexsort((where, values[:, 1], values[:, 0]))
            values, where = values[order], where[order]
            recurs[where[1:][(values[1:] == values[:-1]).all(axis=1)]] = True
        found = []
        for unit, start, stop in zip(units, starts, starts[1:], strict=False):
            own = recurs[start:stop]
            path = self.home.copy(hashes_of(unit)).with_name(f"{unit.name}.recur.npy")
            write(path, own)
            name = f"{unit.name}-{xxhash.xxh3_64_hexdigest(own.tobytes())}"
            found.append(replace(unit, name=name, left_out=path))
        return found


def hashes_of(unit: Unit) -> str:
    """Return the name of the file with the hashes of a unit."""
    return f"duplicates/{unit.name}.hashes.npy"


def write(path: Path, values: np.ndarray) -> None:
    """Write an array, whole or not at all."""
    with replacing(path, "wb") as file:
        np.save(file, values)
