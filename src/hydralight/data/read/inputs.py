"""What is to be predicted: a file, standard input, or a text."""

import glob
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from datasets import Dataset

from hydralight.config.ranges import Format
from hydralight.data.read.formats import FORMATS, suffix
from hydralight.data.read.lines import read_objects
from hydralight.data.read.stdin import standard_input
from hydralight.errors import UserError
from hydralight.stores.listing import scheme_of

log = logging.getLogger(__name__)
Load = Callable[[str, Mapping[str, Any]], dict[str, Dataset]]
TYPED = ("text", "document", "json")  # what can be typed, or come by standard input
SAMPLES = {"text": "line", "document": "document"}  # as `datasets` calls them
_OBJECT = re.compile(r'\s*(\[\s*)?\{\s*["}]')  # or the first of a list, which is told


class Input(NamedTuple):
    """The rows of an input.

    Args:
        rows: With their own columns.
        name: What messages call it.
        lines: The number of each row's line, of JSON lines.
        is_text: Whether rows are nothing but texts.
    """

    rows: Dataset
    name: str
    lines: Sequence[int] = ()
    is_text: bool = False


def read_input(
    source: str,
    role: str,
    load: Load,
    reader: Mapping[str, Any],
    format: Format | None = None,
) -> Input:
    """Read an input.

    Args:
        source: A file of any format that training reads; "-" for standard input; or a text itself.
            What is no file is JSON lines where it begins as an object does (`{"`), and
            otherwise a text a line; what is typed, one text.
        role: What texts are.
        load: Reads a file with options of the reader.
        reader: Options of the reader of files.
        format: What it holds, where that does not tell.

    Raises:
        UserError: there is no such file, or nothing in it, or it is of another format.
    """
    if source != "-" and looks_like_a_file(source):
        source = source.removeprefix("file://")
        place = Path(source).expanduser()
        there = scheme_of(source) is not None or place.exists()
        if not there and not glob.glob(str(place), recursive=True):
            raise UserError(f"input={source}: there is no such file.")
        found = _read_file(source, role, load, reader, format)
    else:
        typed = source != "-"
        lines = source.split("\n") if typed else standard_input()
        found = _read_lines(lines, "input" if typed else "standard input", role, typed, format)
    if len(found.rows) == 0:
        raise UserError(f"{found.name} is empty: there is nothing to predict.")
    return found


def _read_lines(
    lines: Sequence[str], name: str, role: str, typed: bool, format: Format | None
) -> Input:
    """Read what was typed, or has come by standard input."""
    if format is not None and format not in TYPED:
        raise UserError(f"format={format} is for files: {name} is one of {', '.join(TYPED)}.")
    if format == "json" or (format is None and begins_an_object("\n".join(lines))):
        rows, numbers = read_objects(lines, name, role)
        return Input(rows, name, numbers)
    whole = format == "document" or (typed and format is None)
    texts = ["\n".join(lines)] if whole else list(lines)
    texts = [text for text in texts if text.strip()]
    return Input(Dataset.from_dict({role: texts}), name, is_text=True)


def _read_file(
    source: str, role: str, load: Load, reader: Mapping[str, Any], format: Format | None
) -> Input:
    untold = suffix(source) not in FORMATS and not Path(source).expanduser().is_dir()
    if format is None and untold and "format" not in reader:
        raise UserError(
            f"input={source}: its suffix does not say what it holds: add format=text (a text a "
            f"line), or another of {', '.join(get_args(Format))}."
        )
    is_text = format in SAMPLES or (format is None and _is_text(source, reader))
    if is_text and format is None and (as_trained := _as_trained(source, load, reader)) is not None:
        return Input(as_trained, source)
    options = dict(reader)
    if is_text:  # the training data may have been of another format
        options = {k: v for k, v in reader.items() if k in ("encoding", "sample_by")}
    elif format is not None and reader.get("format", format) != format:
        options = {}
    if is_text or format is not None:
        options["format"] = "text" if is_text else format
    if format in SAMPLES:
        options["sample_by"] = SAMPLES[format]
    (rows,) = load(source, options).values()
    if is_text:
        rows = rows.rename_columns({"text": role} if role != "text" else {})
    if format == "document":  # without the end of its last line
        rows = Dataset.from_dict({role: [text.rstrip("\r\n") for text in rows[role][:]]})
    return Input(rows, source, is_text=is_text)


def _is_text(source: str, reader: Mapping[str, Any]) -> bool:
    """Whether a file is text: by its suffix, or else by what the reader says."""
    kind = suffix(source)
    return kind in (".txt", ".text") or (kind not in FORMATS and reader.get("format") == "text")


def begins_an_object(text: str) -> bool:
    """Whether a text begins as JSON's objects do; other texts hardly ever begin with `{"`."""
    return _OBJECT.match(text) is not None


def _as_trained(source: str, load: Load, reader: Mapping[str, Any]) -> Dataset | None:
    """Read a text file as the training data was, whose reader said that such hold something else.

    None, with a warning, where it is not of that format: then it is plain text.
    """
    if reader.get("format", "text") == "text":
        return None
    try:
        (rows,) = load(source, reader).values()
    except UserError as error:
        said = "%s is read as plain text, as it cannot be read as the training data was: %s"
        log.warning(said, source, error)
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
        suffix(source) in FORMATS
        or source.startswith(("./", "../", "/", "~", "file://"))
        or scheme_of(source) not in (None, "http", "https")  # whose URLs may be texts
    )
