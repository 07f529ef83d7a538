"""Records that carry a checksum of themselves, so that a torn or changed one is told from a whole.

It is in the file, and comes and goes with what it is of, wherever a process is killed. Records
without one, which may be an older version's or anybody's, are taken as they stand.
"""

import json
import re
from typing import Any

import xxhash

from hydralight.runs.as_json import as_json, unspelled

KEY = "own_checksum"  # of a JSON record; a YAML record has a comment as its first line
LABEL = "xxh3_128 of the rest: "


class Changed(ValueError):
    """A record is not what was written."""

    def __init__(self) -> None:
        super().__init__("it is not what was written into it")


def checksum_of(values: Any) -> str:
    """Return the checksum of plain values, whatever the order of keys."""
    return xxhash.xxh3_128_hexdigest(json.dumps(values, sort_keys=True).encode())


def sealed_json(content: Any) -> str:
    """Return a mapping, or a list as the `values` of one, as the text of a sealed record."""
    values = json.loads(as_json(content if isinstance(content, dict) else {"values": content}))
    return json.dumps({**values, KEY: LABEL + checksum_of(values)}, indent=2) + "\n"


def unsealed_json(text: str) -> Any:
    """Return what a JSON record holds, without its seal.

    Raises:
        ValueError: it is no JSON, or not what was written.
    """
    content = json.loads(text)  # also the bare NaN that earlier versions wrote
    if not isinstance(content, dict):
        return unspelled(content)
    if KEY not in content and not any(str(value).startswith(LABEL) for value in content.values()):
        return unspelled(content)
    # the records of checkpoints once had it without the label
    if str(content.pop(KEY, None)).removeprefix(LABEL) != checksum_of(content):
        raise Changed
    content = unspelled(content)
    return content["values"] if content.keys() == {"values"} else content


def sealed_yaml(text: str) -> str:
    """Return a YAML text behind a comment with its checksum."""
    return f"# {LABEL}{xxhash.xxh3_128_hexdigest(text.encode())}\n{text}"


def unsealed_yaml(text: str) -> str:
    """Return the text of a YAML record without its seal, or raise `Changed`."""
    seal, _, rest = text.partition("\n")
    if not re.search("# xxh3|of the rest", seal):
        return text
    if seal != f"# {LABEL}{xxhash.xxh3_128_hexdigest(rest.encode())}":
        raise Changed
    return rest
