"""What is wrong with a file that cannot be read: which line, and what to do."""

import csv
import io
import json
import lzma
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from datasets.arrow_writer import SchemaInferenceError

from hydralight.errors import UserError, count, did_you_mean, first_line
from hydralight.packed import opened

BROKEN = (zlib.error, lzma.LZMAError, zstandard.ZstdError, zipfile.BadZipFile)
_DIALECT = {"quoting", "quotechar", "escapechar", "doublequote", "skipinitialspace"}
_CSV_DEFAULTS = {"encoding", "keep_default_na", "na_values"}


def refuse(faults: Iterable[str | None]) -> None:
    """Raise the first complaint there is as a `UserError`."""
    for fault in faults:
        if fault:
            raise UserError(fault)


def bad_option(kind: str, files: Sequence[str], error: BaseException) -> str | None:
    """Say which option of `data.reader` the builder does not have, if that is the error."""
    if not (isinstance(error, TypeError) and "unexpected keyword argument" in str(error)):
        return None
    option = str(error).split("'")[1]
    known = vars(datasets.load_dataset_builder(kind, data_files=list(files)).config)
    if kind != "csv" and option in _CSV_DEFAULTS | _DIALECT | {"sep", "delimiter", "column_names"}:
        return (
            f"data.reader has no option {option!r} for {kind} files: data.reader={{format: csv, "
            f"{option}: …}} reads them as csv."
        )
    near = did_you_mean(option, ["format", *known])
    return f"data.reader has no option {option!r} for {kind} files{near}"


def complaint(where: str, cause: BaseException) -> str:
    """What to say where no single line is to blame."""
    error: BaseException | None = cause
    while error is not None and not isinstance(error, datasets.table.CastError):
        error = error.__cause__ or error.__context__
    if error is not None or "Schema at index" in str(cause):
        what = first_line(cause) if error is None else error.details().rstrip(".")
        return f"The files of {where} do not have the same columns: {what}."
    empty = (StopIteration, SchemaInferenceError, pd.errors.EmptyDataError)
    if isinstance(cause, empty) or "to no data" in str(cause):
        return f"{where} has no rows."
    return f"{where} cannot be read: {first_line(cause)}."


def fault(file: str, kind: str, options: Mapping[str, Any]) -> str | None:
    """Read a file once more, for the first line that is wrong."""
    encoding = str(options.get("encoding", "utf-8")).lower()
    try:
        if kind == "parquet":
            pq.read_schema(file)
        if kind not in ("csv", "json", "text", "conll"):
            return None
        with opened(file) as stream:
            for number, line in enumerate(stream, start=1):
                if encoding.startswith("utf-8") and not _decodes(line):
                    return (
                        f"Line {number} of {file} is not UTF-8 text: name the file's encoding, as "
                        "in data.reader={encoding: latin-1}."
                    )
        if kind == "csv":
            return bad_csv_row(file, options)
        return _bad_json(file, options) if kind == "json" else None
    except (EOFError, OSError, *BROKEN, pa.ArrowInvalid) as error:
        return f"{file} is damaged, or not what its suffix says: {first_line(error)}."
    except (UnicodeError, LookupError):  # the chosen encoding is to blame
        return None


def _decodes(line: bytes) -> bool:
    try:
        return bool(line.decode("utf-8"))
    except UnicodeDecodeError:
        return False


def bad_csv_row(file: str, options: Mapping[str, Any], rows: int | None = None) -> str | None:
    """The first row whose number of fields is not the header's, among the first `rows`.

    Without a header it is the number of `column_names`: pandas takes the fields before the last
    ones for an index.
    """
    names = options.get("column_names")
    sep = options.get("delimiter") or options.get("sep", ",")
    known = _DIALECT | _CSV_DEFAULTS | {"sep", "delimiter", "column_names"}
    said = {key for key in options if (key, options[key]) != ("header", None)}
    if said - known or len(sep) != 1:
        return None  # the other options change what a row is
    csv.field_size_limit(sys.maxsize)
    dialect = {key: options[key] for key in _DIALECT & set(options)}
    with io.TextIOWrapper(opened(file), options["encoding"], newline="") as text:
        reader = csv.reader(text, delimiter=sep, strict=True, **dialect)
        start, width = 1, len(names or ())
        says = "the header has" if names is None else "data.reader.column_names has"
        try:
            for row in islice(reader, rows):
                width = width or len(row)
                if row and len(row) != width:
                    return (
                        f"Line {start} of {file} has {count(len(row), 'field')} where {says} "
                        f"{width} (fields that hold the separator or a line break need quotes)."
                    )
                start = reader.line_num + 1
        except csv.Error as error:
            if "unexpected end" in str(error) or sep == "\t":
                return (
                    f"The quotes on line {start} of {file} do not enclose a whole field (where "
                    "quotes are plain text, say data.reader={quoting: 3})."
                )
    return None


def conll_columns(file: str, options: Mapping[str, Any]) -> str | None:
    """The first line whose columns are not those that are named; the builder would not tell."""
    names, comment = options["column_names"], options.get("comment_prefix")
    with io.TextIOWrapper(opened(file), options["encoding"], errors="replace") as text:
        for number, line in enumerate(text, start=1):
            line = line.rstrip("\r\n")
            if not line.strip() or line.startswith("-DOCSTART-"):
                continue
            if comment is not None and line.startswith(comment):
                continue
            columns = line.split(options.get("delimiter"))
            if len(columns) != len(names):
                said = (
                    f"Line {number} of {file} has {count(len(columns), 'column')} "
                    f"({', '.join(columns)[:60]}), and data.reader.column_names names "
                    f"{', '.join(names)}"
                )
                if line.startswith("#"):
                    how = "'data.reader={comment_prefix: \"#\"}' takes it for a comment"
                elif len(columns) > 2:
                    others = [f"c{place}" for place in range(1, len(columns) - 1)]
                    own = ", ".join(["tokens", *others, "tags"])
                    how = f"'data.reader={{column_names: [{own}]}}' takes the first and the last"
                else:
                    how = "data.reader.delimiter says what is between them, whitespace unless said"
                return f"{said}: {how}."
    return None


def _bad_json(file: str, options: Mapping[str, Any]) -> str | None:
    """The first line that is no JSON, in JSON lines or in one document."""
    number = 1
    try:
        with io.TextIOWrapper(opened(file), options.get("encoding", "utf-8-sig")) as text:
            first = text.readline()
            lines = ".json" not in Path(file.lower()).suffixes or re.fullmatch(
                r"\{.*\}", first.strip()
            )
            if not lines:
                document = json.loads(first + text.read())
                field = options.get("field")
                if field is None or (isinstance(document, dict) and field in document):
                    return None
                there = f"; it has {', '.join(document)}" if isinstance(document, dict) else ""
                return f"{file} has no field {field!r}{there}."
            for number, line in enumerate(chain([first], text), start=1):
                if line.strip() and not isinstance(json.loads(line.strip()), dict):
                    return f"Line {number} of {file} is not a JSON object: {line.strip()[:40]}"
    except json.JSONDecodeError as error:
        line_number = number + error.lineno - 1
        return f"Line {line_number} of {file} is not valid JSON: {error.msg}, column {error.colno}."
    return None
