"""A sample of a corpus in the place of its training rows, before these are read."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hydralight.data.corpus.inputs import Inputs, inputs_of
from hydralight.data.corpus.permutation import Permutation
from hydralight.data.corpus.reading import batches, beginning
from hydralight.data.mix import Mix, folder_of
from hydralight.data.shape import Shape
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError
from hydralight.stores.listing import named

ROWS, BYTES, UNITS = 10_000, 64_000_000, 64  # at most


def sampled(
    source: Source, splits: Splits, mix: Mix, shape: Shape, prepared: str
) -> tuple[Source, Splits, Mix, Shape]:
    """Return a source that has a sample in the place of train, of which nothing is cut off.

    Args:
        source: Where the rows are.
        splits: How train would be parted.
        mix: What it would be mixed with.
        shape: What an example is.
        prepared: The folder of the corpus.

    Raises:
        UserError: train would be parted, or its labels are not known before all rows have been
            read, or it is of images.
    """
    if splits.fold is not None:
        raise UserError("data.fold parts data that is not prepared: leave out data.prepared.")
    if shape.file_roles:
        raise UserError("data.prepared is for texts, and not for images: leave it out.")
    regression = getattr(shape, "problem_type", "") == "regression"
    if getattr(shape, "labels", ()) is None and not regression:
        raise UserError("data.prepared reads rows as they come: name all labels in data.labels.")
    own = {field.name: getattr(source, field.name) for field in fields(source)}
    paths = source.path if isinstance(source.path, Mapping) else {"train": source.path}
    train = paths.get("train")
    shown = named(train) if isinstance(train, str) else [named(one) for one in train or ()]
    own["path"] = {**paths, "train": f"a sample of {shown}"}  # as messages call it
    whole = replace(splits, validation_fraction=0.0, test_fraction=0.0)
    sets = {
        name: {**one, "prepared": folder_of(name, one, prepared)} for name, one in mix.sets.items()
    }
    return Sampled(**own, origin=source, prepared=prepared), whole, replace(mix, mix=sets), shape


@dataclass(frozen=True, kw_only=True)
class Sampled(Source):
    """The same source with a sample of train, from all over its files; none where they are gone."""

    origin: Source
    prepared: str

    def further(self, one: Mapping[str, Any]) -> Source:
        """Return where the rows of a further set are: a sample of one that is prepared."""
        origin = self.origin.further(one)
        if "prepared" not in one:  # it is evaluated
            return origin
        own = {field.name: getattr(origin, field.name) for field in fields(origin)}
        return Sampled(**{**own, "path": {}}, origin=origin, prepared=one["prepared"])

    def read(self, shape: Shape | None = None, known: Any = ()) -> dict[str, Dataset]:
        """Return the splits."""
        found: dict[str, Dataset] = {}
        inputs = inputs_of(self.origin, self.prepared)
        if inputs is not None:
            rows = sample(inputs)
            found["train"] = rows if shape is None or not shape.unfold else shape.unfold(rows)
        others = {split: one for split, one in self.path.items() if split != "train" and one}
        if others:
            found |= replace(self.origin, path=others).read(shape, known)
        return found


def sample(inputs: Inputs) -> Dataset:
    """Return some rows, from the beginnings of units all over the corpus."""
    units = inputs.units()
    chosen = np.sort(Permutation(len(units), 0)(np.arange(len(units)))[:UNITS]).tolist()
    tables: list[pa.Table] = []
    for number in chosen:
        rows, size = -(-ROWS // len(chosen)), BYTES // len(chosen)
        for table, _ in beginning(units[number].pieces[0], inputs.kind, inputs.options):
            # a slice would keep all of the table in memory
            tables.append(table.take(pa.array(range(min(rows, len(table))))))
            rows, size = rows - len(tables[-1]), size - tables[-1].nbytes
            if rows <= 0 or size <= 0:
                break
    if not tables:
        for _ in batches(units[0].pieces[0], inputs.kind, inputs.options):
            break  # what is wrong with the file is told
        raise UserError(f"{inputs.files[0]} has no rows.")
    return Dataset(pa.concat_tables(tables, promote_options="permissive"))
