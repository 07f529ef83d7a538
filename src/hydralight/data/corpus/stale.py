"""What a corpus needs no more, once its index is written: of files that changed, and of kills."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from hydralight.data.corpus.pieces import Unit
from hydralight.data.corpus.shards import Done

if TYPE_CHECKING:
    from hydralight.data.corpus.shards import Home


def previous_of(before: dict[str, Any] | None, files: Collection[str]) -> list[str]:
    """Return the files that only the index before needs, or if that is the same, the one before it.

    A training that began with it may still read them.

    Args:
        before: The index that is replaced, if there is one.
        files: What the new one needs.
    """
    if before is None:
        return []
    old = {*Done.of(before).files, (before.get("sample") or {}).get("file", "")} - {"", *files}
    return sorted(old or {*before.get("previous", ())} - {*files})


def remove_stale(home: "Home", units: Collection[Unit], needed: Collection[str]) -> None:
    """Remove shards, records and hashes that belong to no unit, and what was never finished.

    What another process is at, as its claim says, is left to it.

    Args:
        home: Of the corpus.
        units: All that it is made of.
        needed: The names of shards that are kept.
    """
    claims = home.claims("encode")
    try:
        for name in sorted(home.names("train", "validation") - {*needed}):
            unit = name.partition("/")[2].rpartition("-")[0]
            if claims.take(unit):
                home.remove([name])
                claims.release(unit)
    finally:
        claims.release_all()
    names = {unit.name for unit in units}
    bare = {name.partition("-")[0] for name in names}  # before what recurs was known
    files = home.names("units", "duplicates", "sample") - {*needed}
    home.remove(
        name
        for name in files
        for kind, _, file in [name.partition("/")]
        if file.partition(".")[0] not in (names if kind == "units" else bare)
    )
