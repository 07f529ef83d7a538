"""What a corpus needs no more, once its index is written: of files that changed, and of kills."""

from collections.abc import Collection
from pathlib import Path

from hydralight.data.corpus.claims import Claims
from hydralight.data.corpus.pieces import Unit
from hydralight.data.corpus.shards import Done


def remove_stale(folder: Path, units: Collection[Unit], done: Done) -> None:
    """Remove shards, records and hashes that belong to no unit, and what was never finished.

    What another process is at, as its claim says, is left to it.

    Args:
        folder: Of the corpus.
        units: All that it is made of.
        done: What the index says.
    """
    named = {folder / shard.file for shard in (*done.train, *done.validation)}
    claims = Claims(folder / "claims/encode")
    try:
        for path in (*folder.glob("train/*"), *folder.glob("validation/*")):
            unit = path.name.rpartition("-")[0]
            if path not in named and claims.take(unit):
                path.unlink(missing_ok=True)
                claims.release(unit)
    finally:
        claims.release_all()
    names = {unit.name for unit in units}
    bare = {name.partition("-")[0] for name in names}  # before what recurs was known
    for path in folder.glob("units/*.json"):
        if path.stem not in names:
            path.unlink(missing_ok=True)
    for path in folder.glob("duplicates/*.npy"):
        if path.name.partition(".")[0] not in bare:
            path.unlink(missing_ok=True)
