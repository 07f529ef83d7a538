"""A table that is made in parts, each of which is whole on disk before the next one is begun."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets import Dataset
from tqdm import tqdm

from hydralight.cached import intact, locked, seal, told_if_full
from hydralight.progress import interactive

log = logging.getLogger(__name__)

PART_BYTES = 32_000_000  # of source rows: a few seconds of work
MOST_PARTS = 256  # each is an open file
BATCH = 1000  # rows; parts end where batches end, so that what a batch joins is the same in parts
PATIENCE, INTERVAL = 2, 30  # seconds before a bar is shown, and between lines where there is none

Make = Callable[[int, int, Path, Callable[[int], None]], None]


def in_parts(rows: Dataset, folder: Path, make: Make, what: str, shown: bool = True) -> Dataset:
    """Return what is made from rows, found in the parts of a folder or put there.

    A part that is missing or damaged is made (again); the others stay as they are. Another process
    that makes the same is waited for.

    Args:
        rows: The source rows.
        folder: Of the parts.
        make: Makes the Arrow file of the rows from one number to another, and calls its last
            argument with a number of rows now and then.
        what: What it is called, such as "encoding train".
        shown: Whether a bar shows what takes longer than two seconds.

    Raises:
        UserError: the disk is full, or closed; what is finished stays.
    """
    paths = {span: folder / f"{span[0]:09}-{span[1]:09}.arrow" for span in spans(rows)}
    missing = {span: path for span, path in paths.items() if not intact(path)}
    if missing:
        with told_if_full(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder), progress(what, len(rows), shown) as step:
                _clear(folder, set(paths.values()))
                step(sum(stop - start for start, stop in paths.keys() - missing.keys()))
                for (start, stop), path in missing.items():
                    if intact(path):  # the other process was quicker
                        step(stop - start)
                        continue
                    if path.exists():
                        log.warning("%s is damaged; it is made again", path)
                    partial = path.with_name(f"{path.name}.partial")
                    make(start, stop, partial, step)
                    seal(partial, path)
    parts = [Dataset.from_file(str(path)) for path in paths.values()]
    return concatenated(parts)


def concatenated(parts: Sequence[Dataset]) -> Dataset:
    """Return the rows of several tables, one after the other."""
    # where a part has but empty lists in a column, their type is not known to it
    known = min(parts, key=lambda part: str(part.features).count("null")).features
    parts = [part if part.features == known else part.cast(known) for part in parts]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def spans(rows: Dataset) -> list[tuple[int, int]]:
    """Return the first row of each part, and the one behind its last."""
    number = len(rows)
    row_bytes = max(1, rows.data.nbytes // max(1, rows.data.num_rows))
    size = max(PART_BYTES // row_bytes, number // MOST_PARTS, 1)
    size = -(-size // BATCH) * BATCH
    return [(start, min(start + size, number)) for start in range(0, number, size)]


def _clear(folder: Path, parts: set[Path]) -> None:
    """Remove what dead attempts have left."""
    beside = {path.with_name(f"{path.name}.xxh3") for path in parts}
    for path in folder.iterdir():
        if path not in parts | beside:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def progress(what: str, total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal after two seconds, and a line now and then where there is none.

    Yields:
        A function that is called with the number of rows that have been done.
    """
    terminal = shown and interactive()
    done, said = 0, time.monotonic()
    with tqdm(
        total=total, desc=what, unit=" rows", delay=PATIENCE, leave=False, disable=not terminal
    ) as bar:

        def step(rows: int) -> None:
            nonlocal done, said
            done += rows
            bar.update(rows)
            if shown and not terminal and time.monotonic() - said > INTERVAL:
                said = time.monotonic()
                log.info("%s: %d of %d rows", what, done, total)

        yield step
