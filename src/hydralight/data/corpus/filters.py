"""Which rows of a corpus are left out, and the count of them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from hydralight.data.corpus.pieces import Piece
from hydralight.errors import UserError, told

NUMBER = "number of the row"  # in its piece; a column beside those of the roles


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which rows of a corpus are left out.

    Args:
        min_chars: Of all texts of a row together, at least.
        max_chars: The same, at most.
        only: Columns of the file to the values, or lists of them, that a row has to have.
        keep: Called with a row of the file, says whether it is kept.
    """

    min_chars: int | None = None
    max_chars: int | None = None
    only: Mapping[str, Any] = field(default_factory=dict)
    keep: Callable[[dict[str, Any]], Any] | None = None

    def of_file(self, rows: Dataset, counts: Counter[str], piece: Piece) -> Dataset:
        """Leave out what the file's own columns say, and count it."""
        for column, values in self.only.items():
            if column not in rows.column_names:
                raise UserError(
                    f"data.only.{column}: {piece.file} has no such column (there are: "
                    f"{', '.join(name for name in rows.column_names if name != NUMBER)})."
                )
            wanted = set(values) if isinstance(values, list | tuple) else {values}
            kept = [value in wanted for value in rows[column][:]]
            rows = _those(rows, kept, f"another {column}", counts)
        if self.keep is not None:
            shown = rows.remove_columns(NUMBER)
            with told("data.keep"):
                kept = [bool(self.keep(row)) for row in shown]
            rows = _those(rows, kept, "refused by data.keep", counts)
        return rows

    def of_texts(self, sizes: list[int], counts: Counter[str]) -> np.ndarray:
        """Return which rows have texts of a size that is kept, and count the others."""
        found = np.asarray(sizes)
        short = found < (self.min_chars or 0)
        long = found > (np.inf if self.max_chars is None else self.max_chars)
        counts["too short"] += int(short.sum())
        counts["too long"] += int(long.sum())
        return ~(short | long)


def _those(rows: Dataset, kept: Sequence[bool], why: str, counts: Counter[str]) -> Dataset:
    counts[why] += len(kept) - sum(kept)
    return rows if all(kept) else rows.select(np.flatnonzero(kept))
