"""Text files that are a row each, with every line end as it stands in the file."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from hydralight.packed import opened

OPTIONS = {"sample_by", "encoding", "encoding_errors"}


def are_whole(kind: str, options: Mapping[str, Any]) -> bool:
    """Whether text files are asked for as rows of a whole file each."""
    return kind == "text" and options.get("sample_by") == "document" and options.keys() <= OPTIONS


def whole_texts(files: Sequence[str], options: Mapping[str, Any]) -> Dataset:
    """Read a row a file, with the name of its folder, which may be a label.

    The builder of `datasets` would turn every line end into a line feed.
    """
    texts = []
    for file in files:
        encoding, errors = options.get("encoding"), options.get("encoding_errors")
        with io.TextIOWrapper(opened(file), encoding, errors, newline="") as stream:
            texts.append(stream.read())
    folders = [Path(file).absolute().parent.name for file in files]
    return Dataset.from_dict({"text": texts, "folder": folders})
