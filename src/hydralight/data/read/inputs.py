"""What is to be predicted: a file, standard input, or a text."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from hydralight.data.read.formats import FORMATS, suffix
from hydralight.data.read.stdin import standard_input
from hydralight.errors import UserError

Load = Callable[[str, Mapping[str, Any]], dict[str, Dataset]]


def read_input(
    source: str,
    role: str,
    load: Callable[[str, Mapping[str, Any]], dict[str, Dataset]],
    reader: Mapping[str, Any],
) -> tuple[Dataset, str]:
    """Return the rows of an input with their own columns, and what messages call it.

    Args:
        source: A file of any format that training reads; "-" for lines on standard input; or a
            text itself.
        role: What lines and texts are.
        load: Reads a file with options of the reader.
        reader: Options of the reader of files.

    Raises:
        UserError: there is no such file, or nothing in it.
    """
    if source == "-":
        lines = [line for line in standard_input() if line.strip()]
        dataset, where = Dataset.from_dict({role: lines}), "standard input"
    elif looks_like_a_file(source):
        if not Path(source).expanduser().exists():
            raise UserError(f"input={source}: there is no such file.")
        options, where = reader, source
        is_text = suffix(source) in (".txt", ".text")
        if is_text and (rows := _as_trained(source, load, reader)) is not None:
            return rows, where
        if is_text:  # the training data may have been of another format
            options = {k: v for k, v in reader.items() if k in ("encoding", "sample_by")}
        (dataset,) = load(source, options).values()
        if is_text:
            dataset = dataset.rename_columns({"text": role} if role != "text" else {})
    else:
        dataset, where = Dataset.from_dict({role: [source]}), "input"
    if len(dataset) == 0:
        raise UserError(f"{where} is empty: there is nothing to predict.")
    return dataset, where


def _as_trained(source: str, load: Load, reader: Mapping[str, Any]) -> Dataset | None:
    """Read a text file as the training data was, whose reader said that such hold something else.

    None where it is not of that format: then it is plain text.
    """
    if reader.get("format", "text") == "text":
        return None
    try:
        (rows,) = load(source, reader).values()
    except UserError:
        return None
    return rows


def looks_like_a_file(source: str) -> bool:
    """Whether an input names a file, there or not, rather than being a text itself."""
    try:
        if Path(source).expanduser().exists():
            return True
    except OSError:  # too long for a name
        return False
    return " " not in source and (
        suffix(source) in FORMATS or source.startswith(("./", "../", "/", "~"))
    )
