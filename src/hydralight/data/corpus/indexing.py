"""The index of a corpus, and the sample that is kept with it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from datasets import Dataset

from hydralight.data.corpus.pieces import Unit
from hydralight.data.corpus.shards import (
    FORMAT,
    INDEX,
    Done,
    Shard,
    keep_record,
    read_index,
    record_in,
)
from hydralight.data.corpus.stale import previous_of, remove_stale
from hydralight.data.corpus.told import told_counts
from hydralight.runs.checksums import checksum
from hydralight.runs.files import replacing

if TYPE_CHECKING:
    from hydralight.data.corpus.shards import Home

log = logging.getLogger(__name__)


def write_index(
    home: "Home",
    units: Sequence[Unit],
    states: Sequence[Mapping[str, Any]],
    made_with: Mapping[str, Any],
    sample: Dataset | None = None,
) -> None:
    """Write the index, from the records of all units, and remove what is needed no more.

    Args:
        home: Of the corpus.
        units: All that it is made of.
        states: Of its files.
        made_with: What it depends on, beside these.
        sample: Some rows of it, to be kept with it; those that are kept unless given.
    """
    train, validation, counts = [], [], dict[str, int]()
    for record in map(record_in, home.read_all(unit.record for unit in units)):
        assert record is not None
        done = Done.of(record)
        train += done.train
        validation += done.validation
        for what, number in done.counts.items():
            counts[what] = counts.get(what, 0) + number
    done = Done(train, validation, counts)
    before = read_index(home)
    kept = None if before is None else before.get("sample")
    if sample is not None:
        kept = asdict(keep_sample(home, sample))
    files = {*done.files, *([kept["file"]] if kept else [])}
    previous = previous_of(before, files)
    own = {"inputs": states, "made_with": made_with, "sample": kept, "previous": previous}
    keep_record(home, INDEX, done, format=FORMAT, **own)
    log.info("%s: %s", home, told_counts(done))
    remove_stale(home, units, files.union(previous))


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
