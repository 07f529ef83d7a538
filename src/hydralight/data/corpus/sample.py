"""A sample of a corpus in the place of its training rows, before these are read."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from hydralight.data.corpus.inputs import Inputs
from hydralight.data.corpus.permutation import Permutation
from hydralight.data.corpus.pictures import column_of
from hydralight.data.corpus.reading import batches, beginning
from hydralight.data.corpus.shards import Shard
from hydralight.data.mix import Mix
from hydralight.data.read.images import located
from hydralight.data.shape import Shape
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError
from hydralight.runs.checksums import checksum
from hydralight.runs.files import replacing
from hydralight.stores.listing import named

if TYPE_CHECKING:
    from hydralight.data.corpus.corpus import Corpus
    from hydralight.data.corpus.shards import Home

ROWS, BYTES, UNITS = 10_000, 64_000_000, 64  # at most


def sampled(
    source: Source, splits: Splits, mix: Mix, shape: Shape, corpus: "Corpus"
) -> tuple[Source, Splits, Mix, Shape]:
    """Return a source that has a sample in the place of train, of which nothing is cut off.

    Args:
        source: Where the rows are.
        splits: How train would be parted.
        mix: What it would be mixed with.
        shape: What an example is.
        corpus: Where it is prepared.

    Raises:
        UserError: train would be parted, or mixed with other data, or its labels are not known
            before all rows have been read.
    """
    if splits.fold is not None:
        raise UserError("data.fold parts data that is not prepared: leave out data.prepared.")
    if mix.mix:
        raise UserError("data.mix mixes data that is not prepared: leave out data.prepared.")
    if shape.file_roles and not (corpus.min_chars is corpus.max_chars is None):
        raise UserError("data.min_chars and data.max_chars are of texts: leave them out.")
    if shape.file_roles and source.metadata is not None:
        raise UserError(
            "data.metadata names images of a folder, which are not prepared: name tar shards of "
            "them, or a table with a column of them."
        )
    regression = getattr(shape, "problem_type", "") == "regression"
    if getattr(shape, "labels", ()) is None and not regression:
        raise UserError("data.prepared reads rows as they come: name all labels in data.labels.")
    own = {field.name: getattr(source, field.name) for field in fields(source)}
    paths = source.path if isinstance(source.path, Mapping) else {"train": source.path}
    train = paths.get("train")
    shown = named(train) if isinstance(train, str) else [named(one) for one in train or ()]
    own["path"] = {**paths, "train": f"a sample of {shown}"}  # as messages call it
    whole = replace(splits, validation_fraction=0.0, test_fraction=0.0)
    return Sampled(**own, origin=source, corpus=corpus), whole, mix, shape


@dataclass(frozen=True, kw_only=True)
class Sampled(Source):
    """The same source with a sample of train, from all over its files.

    It is the one that is kept with a corpus, if that is prepared. There is none where the files are
    gone, of one that an earlier version prepared.
    """

    origin: Source
    corpus: "Corpus"

    def read(self, shape: Shape | None = None, known: Any = ()) -> dict[str, Dataset]:
        """Return the splits."""
        found: dict[str, Dataset] = {}
        rows = self.corpus.sample(self.origin)
        if rows is not None:
            rows = rows if shape is None or not shape.unfold else shape.unfold(rows)
            for role in () if shape is None else shape.file_roles:
                column = column_of(role, self.origin.columns_of("train"), rows)
                rows = located(rows, column, self.origin.folder("train"))
            found["train"] = rows
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


def kept_sample(path: Path) -> Dataset:
    """Return the sample in a file, in memory, so that no cache is written beside it."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        return Dataset(reader.read_all())


def keep_sample(home: "Home", rows: Dataset) -> Shard:
    """Keep a sample with a corpus, for those who read it later."""
    table = rows.data.table
    with home.writing("sample") as folder:
        path = folder / "sample/rows.arrow"
        with replacing(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        own = checksum(path)
        name = f"sample/{own.rpartition(':')[2]}.arrow"
        path.replace(folder / name)
        home.keep(folder, [name])
        return Shard(name, len(rows), 0, 0, (folder / name).stat().st_size, own)
