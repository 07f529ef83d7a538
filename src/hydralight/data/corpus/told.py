"""What is said of a prepared corpus: what it was made with, what has changed, what was left out."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydralight.data.corpus.shards import Done, record_in
from hydralight.errors import UserError, count
from hydralight.runs.sealed import sealed_json

if TYPE_CHECKING:
    from hydralight.data.corpus.shards import Home

log = logging.getLogger(__name__)

MADE_WITH = "made_with.json"
CODE = "code"  # of what encodes; another is told, and not refused


def compare(home: "Home", before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare what a corpus was made with to what is asked for.

    Raises:
        UserError: it would be another one.
    """
    for name in {**before, **now}:
        if before.get(name) == now.get(name):
            continue
        if name == CODE:
            log.warning("%s was prepared by another version, which may encode otherwise", home)
            continue
        values = f" ({before.get(name)}, and now {now.get(name)})" if "." in name else ""
        raise UserError(
            f"{home} was prepared with another value of {name}{values}: name another folder in "
            "data.prepared, or remove this one."
        )


def begin(home: "Home", made_with: Mapping[str, Any]) -> None:
    """Note what a corpus is made with, where that is not noted yet.

    Raises:
        UserError: one with other values was begun there, and perhaps never finished.
    """
    home.create(MADE_WITH, sealed_json(made_with))
    begun = record_in(home.read(MADE_WITH))
    if begun is None:
        home.write(MADE_WITH, sealed_json(made_with))
    else:
        compare(home, begun, made_with)


def changed(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """Say which files have changed."""
    was = {one["file"]: one for one in before}
    found = [one["file"] for one in now if was.pop(one["file"], None) != one]
    names = [*found, *was]
    more = f" and {count(len(names) - 1, 'other file')}" if len(names) > 1 else ""
    return f"{names[0] if names else 'the order of files'}{more} changed"


def told_counts(done: Done) -> str:
    """Say what became of the rows."""
    tokens = sum(shard.tokens for shard in done.train)
    size = sum(shard.bytes for shard in done.train)
    kept = ("read", "train", "validation")
    said = [
        f"{done.counts.get('read', 0):,} rows read",
        f"{done.counts.get('train', 0):,} to train on",
    ]
    if number := done.counts.get("validation"):
        said.append(f"{number:,} to validate on")
    out = [f"{n:,} {why}" for why, n in done.counts.items() if n and why not in kept]
    said.append(f"left out: {', '.join(out)}" if out else "none left out")
    shards = count(len(done.train), "shard")
    return f"{'; '.join(said)}; {tokens:,} tokens in {shards} of {size / 1e6:,.1f} MB"
