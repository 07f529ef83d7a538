"""A sample of a corpus in the place of its training rows, before these are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hydralight.data.corpus.inputs import Inputs, inputs_of
from hydralight.data.corpus.permutation import Permutation
from hydralight.data.corpus.pieces import Piece, Unit
from hydralight.data.corpus.reading import batches, beginning, groups_of
from hydralight.data.mix import Mix, folder_of
from hydralight.data.shape import Shape
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.data.stream.own import NAME, OwnRows, first, splits_of
from hydralight.errors import UserError
from hydralight.stores.listing import named

ROWS, BYTES, UNITS = 10_000, 64_000_000, 64  # at most


def sampled(
    source: Source,
    splits: Splits,
    mix: Mix,
    shape: Shape,
    prepared: str | None,
    most: int | None = None,
) -> tuple[Source, Splits, Mix, Shape]:
    """Return a source that has a sample in the place of train, of which nothing is cut off.

    Args:
        source: Where the rows are.
        splits: How train would be parted.
        mix: What it would be mixed with.
        shape: What an example is.
        prepared: The folder of the corpus; None where train is streamed.
        most: Rows of the sample; 10,000 unless said.

    Raises:
        UserError: train would be parted, or its labels are not known before all rows have been
            read, or it is of images.
    """
    key = "data.streaming" if prepared is None else "data.prepared"
    if splits.fold is not None:
        raise UserError(f"data.fold parts data that is encoded as a whole: leave out {key}.")
    if shape.file_roles:
        raise UserError(f"{key} is for texts, and not for images: leave it out.")
    regression = getattr(shape, "problem_type", "") == "regression"
    if getattr(shape, "labels", ()) is None and not regression:
        raise UserError(f"{key} reads rows as they come: name all labels in data.labels.")
    own = {field.name: getattr(source, field.name) for field in fields(source)}
    paths = source.path if isinstance(source.path, Mapping) else {"train": source.path}
    train = paths.get("train")
    shown = named(train) if isinstance(train, str) else [named(one) for one in train or ()]
    own["path"] = {**paths, "train": f"a sample of {shown or NAME}"}  # as messages call it
    whole = replace(splits, validation_fraction=0.0, test_fraction=0.0)
    sets = {
        name: {**one, "prepared": prepared and folder_of(name, one, prepared)}
        for name, one in mix.sets.items()
    }
    sample = Sampled(**own, origin=source, prepared=prepared, most=most or ROWS)
    return sample, whole, replace(mix, mix=sets), shape


@dataclass(frozen=True, kw_only=True)
class Sampled(Source):
    """The same source with a sample of train, from all over its files; none where they are gone."""

    origin: Source
    prepared: str | None
    most: int

    def further(self, one: Mapping[str, Any]) -> Source:
        """Return where the rows of a further set are: a sample of one that is prepared."""
        origin = self.origin.further(one)
        if "prepared" not in one:  # it is evaluated
            return origin
        own = {field.name: getattr(origin, field.name) for field in fields(origin)}
        own["path"] = {}
        return Sampled(**own, origin=origin, prepared=one["prepared"], most=self.most)

    def read(self, shape: Shape | None = None, known: Any = ()) -> dict[str, Dataset]:
        """Return the splits."""
        found: dict[str, Dataset] = {}
        inputs = inputs_of(self.origin, self.prepared)
        if isinstance(inputs, OwnRows):
            own = splits_of(inputs.source)
            del own["train"]
            rows = first(inputs.source)
            if own:
                found = replace(self.origin, source=lambda: own).read(shape, known)
            return {
                "train": rows if shape is None or not shape.unfold else shape.unfold(rows),
                **found,
            }
        if inputs is not None:
            rows = sample(inputs, self.most, self.prepared is None)
            found["train"] = rows if shape is None or not shape.unfold else shape.unfold(rows)
        others = {split: one for split, one in self.path.items() if split != "train" and one}
        if others:
            found |= replace(self.origin, path=others).read(shape, known)
        return found


def sample(inputs: Inputs, most: int, streams: bool) -> Dataset:
    """Return some rows, from the beginnings of units all over the corpus."""
    units = inputs.parts() if streams else inputs.units()
    # a slice would keep all of a table in memory
    tables = [
        table.take(pa.array(range(len(table)))) for _, _, table in beginnings(units, inputs, most)
    ]
    if not tables:
        for _ in batches(units[0].pieces[0], inputs.kind, inputs.options):
            break  # what is wrong with the file is told
        raise UserError(f"{inputs.files[0]} has no rows.")
    return Dataset(pa.concat_tables(tables, promote_options="permissive"))


def beginnings(
    units: Sequence[Unit], inputs: Inputs | OwnRows, most: int | None = None
) -> Iterator[tuple[Piece, int, pa.Table]]:
    """Yield pieces all over the corpus, with rows of theirs, and how many come before these."""
    if isinstance(inputs, OwnRows):
        yield units[0].pieces[0], 0, first(inputs.source).data.table
        return
    most = most or ROWS
    chosen = np.sort(Permutation(len(units), 0)(np.arange(len(units)))[:UNITS]).tolist()
    for number in chosen:
        rows, size = -(-most // len(chosen)), BYTES * max(1, most // ROWS) // len(chosen)
        for piece in units[number].pieces:
            if inputs.kind == "parquet" and piece.is_whole:  # else all of it may be fetched
                piece = next(iter(groups_of(piece)), (piece, 0))[0]
            seen = 0
            for table, _ in beginning(piece, inputs.kind, inputs.options):
                taken = min(rows, len(table))
                yield piece, seen, table.slice(0, taken)
                seen += taken
                size -= table.nbytes * taken // len(table)
                rows -= taken
                if rows <= 0 or size <= 0:
                    break
            if rows <= 0 or size <= 0:
                break
