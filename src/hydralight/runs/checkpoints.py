"""The checkpoints of a run: put in place whole, recorded, and checked before they are opened.

Beside each `<name>.ckpt` lies its record, `<name>.json`. A checkpoint is a file, or the folder of a
sharded training, of which the record covers all files. What is done, in this order, leaves at each
moment at least one checkpoint that fits a record, wherever the process is killed:

1. `checkpoint.partial` is written, and its checksum taken. It is the file's and not each tensor's:
   it covers the optimizer and the rest too, and nothing is opened to check it;
2. `step-<n>.json` is written: a record whose checkpoint is not there yet means nothing;
3. `checkpoint.partial` becomes `step-<n>.ckpt`: from here on, this checkpoint can be resumed from;
4. `last.ckpt` becomes the same file, or a folder of the same files. Until 5, its record is
   `step-<n>.json`;
5. `last.json` becomes a copy of that record;
6. what is more than `save_total_limit` is removed, each checkpoint before its record.

A reader therefore looks a checkpoint's checksum up in all the records of the folder.
"""

import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from hydralight.errors import UserError, first_line
from hydralight.runs.checksums import ALGORITHM, checksum
from hydralight.runs.files import copy_folder, partial_of, remove, write_text
from hydralight.runs.sealed import sealed_json, unsealed_json

log = logging.getLogger(__name__)

PARTIAL = "checkpoint.partial"  # one that is being written


ENDLESS = 2**48  # batches of an epoch that has no end; more than any training takes


@dataclass(frozen=True)
class Record:
    """What is known of a checkpoint without opening it.

    Args:
        step: Optimizer steps.
        epoch: As the trainer counts it, which has not ended where the last batch has just been.
        consumed: Batches that a device has taken from the training data, over all epochs.
        batches_per_epoch: How many of them are an epoch.
        checksum: Of the whole file, after the name of its algorithm: `xxh3_128:<hexadecimal>`.
        accumulate_grad_batches: How many of the batches are a step.
    """

    step: int
    epoch: int
    consumed: int
    batches_per_epoch: int
    checksum: str
    accumulate_grad_batches: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-self.batches_per_epoch // self.accumulate_grad_batches)

    @property
    def epochs(self) -> int:
        """Epochs whose batches have all been taken."""
        return self.consumed // self.batches_per_epoch

    @property
    def text(self) -> str:
        """The content of its file, which has a checksum of its own."""
        return sealed_json(asdict(self))


# ---------------------------------------------------------------- writing


def put_in_place(folder: Path, record: Record, save_total_limit: int | None) -> None:
    """Make `checkpoint.partial` the last checkpoint, and remove what is more than the limit.

    Args:
        folder: Of the checkpoints.
        record: Of `checkpoint.partial`.
        save_total_limit: How many to keep; None keeps all, and 1 only `last.ckpt`.

    Raises:
        OSError: the disk is full, or the like; the checkpoints before are intact.
    """
    path = folder / f"step-{record.step:08d}.ckpt"
    retire(path)  # the same step of an earlier attempt, which has another record
    content = record.text
    write_text(path.with_suffix(".json"), content)
    (folder / PARTIAL).replace(path)
    make_last(path, content)
    remove_old(folder, save_total_limit)


def make_last(path: Path, record: str) -> None:
    """Make a checkpoint `last.ckpt` too, with its record."""
    folder = path.parent
    last = folder / "last.ckpt"
    remove(last.with_name("last.ckpt.previous"))  # which a kill has left
    if path.is_dir():
        copy_folder(path, last)  # between its two renames there is no last.ckpt
        write_text(folder / "last.json", record)
        return
    if last.is_dir():
        retire(last)
    link = partial_of(last)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, link)
    link.replace(last)
    link.unlink(missing_ok=True)  # where both were the same file, replacing did nothing
    write_text(folder / "last.json", record)


def tidy(path: Path, save_total_limit: int | None) -> None:
    """Put the checkpoints in order that a kill has left, where a run has gone on from one of them.

    Args:
        path: The checkpoint that is intact, and has been loaded.
        save_total_limit: As in `put_in_place`.
    """
    folder = path.parent
    kept = number_of_steps(save_total_limit)
    if path.name == "last.ckpt" and (kept is None or len(numbered(folder)) <= kept):
        return
    records = [read_record(one) for one in folder.glob("*.json")]
    own = checksum(path)
    (record, *_) = [one for one in records if one is not None and one.checksum == own]
    content = record.text
    if path.name == "last.ckpt":
        write_text(folder / "last.json", content)
    else:
        make_last(path, content)
    remove_old(folder, save_total_limit)


def number_of_steps(save_total_limit: int | None) -> int | None:
    """Return how many `step-<n>.ckpt` are kept; where one checkpoint is, `last.ckpt` is it."""
    return 0 if save_total_limit == 1 else save_total_limit


def numbered(folder: Path) -> list[Path]:
    """Return the files `step-<n>.ckpt`."""
    return [p for p in folder.glob("step-*.ckpt") if p.stem.removeprefix("step-").isdecimal()]


def remove_old(folder: Path, save_total_limit: int | None) -> None:
    """Remove what is more than the limit, and the records without a checkpoint."""
    number = number_of_steps(save_total_limit)
    if number is None:
        return
    for path in sorted(numbered(folder), reverse=True)[number:]:
        retire(path)
    for path in folder.glob("step-*.json"):
        if not path.with_suffix(".ckpt").exists():
            path.unlink()


def retire(path: Path) -> None:
    """Remove a checkpoint, if it is there; of a folder, no half is left under its name."""
    if path.is_dir():
        path = path.rename(partial_of(path))
    remove(path)


# ---------------------------------------------------------------- reading


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints, the newest first; of two of the same step `last.ckpt` is first."""
    found = [p for p in [folder / "last.ckpt", *numbered(folder)] if p.exists()]

    def step(path: Path) -> int:
        if path.stem != "last":
            return int(path.stem.removeprefix("step-"))
        record = read_record(path.with_suffix(".json"))
        return 0 if record is None else record.step

    return sorted(found, key=lambda path: (step(path), path.stem == "last"), reverse=True)


def read_record(path: Path) -> Record | None:
    """Return a record; None where there is none, or what is there is none."""
    try:
        record = Record(**unsealed_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    known = isinstance(record.checksum, str) and record.checksum.startswith(f"{ALGORITHM}:")
    numbers = [record.step, record.epoch, record.consumed, record.batches_per_epoch]
    numbers.append(record.accumulate_grad_batches)
    right = all(type(number) is int and number >= 0 for number in numbers)
    some = right and record.batches_per_epoch and record.accumulate_grad_batches
    return record if known and some else None


def intact_checkpoint(folder: Path) -> tuple[Path, Record]:
    """Return the newest checkpoint that is, bit by bit, what was written, and its record.

    The others that had to be passed over are named in the log. A checkpoint without a record, which
    may be an older version's or anybody's, is passed over too: nobody can tell whether it is whole.

    Raises:
        UserError: there is none.
    """
    records = [read_record(path) for path in folder.glob("*.json")]
    known = {record.checksum: record for record in records if record is not None}
    passed_over: list[str] = []
    for path in checkpoints_in(folder):
        own = path.with_suffix(".json")
        try:
            record = known.get(checksum(path)) if known else None
        except OSError as error:
            passed_over.append(f"{path} is damaged ({first_line(error)})")
            continue
        if record is not None:
            for message in passed_over:
                log.warning("%s: resuming from %s, of step %d", message, path, record.step)
            return path, record
        if read_record(own) is None:
            passed_over.append(
                f"{path} cannot be checked (there is no intact {own.name} that tells its checksum; "
                "versions of Hydralight that wrote none can resume it)"
            )
        else:
            passed_over.append(f"{path} is damaged (its checksum is not that in {own.name})")
    raise UserError(f"{'; '.join(passed_over)}: there is no other checkpoint to resume from.")
