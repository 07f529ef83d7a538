"""Formats of files, by their suffixes, and the `datasets` builders that read them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hydralight.errors import UserError
from hydralight.packed import MAGIC
from hydralight.stores.listing import scheme_of

UNIVERSAL = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
CONLLU = {"column_names": list(UNIVERSAL), "delimiter": "\t", "comment_prefix": "#"}
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".parquet": ("parquet", {}),
    ".arrow": ("arrow", {}),
    ".tar": ("webdataset", {}),
    ".txt": ("text", {}),
    ".text": ("text", {}),
    ".conll": ("conll", {}),
    ".conllu": ("conll", CONLLU),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    # An empty cell is missing; "NA" and "None" are text like any other.
    "csv": {"encoding": "utf-8-sig", "keep_default_na": False, "na_values": [""]},
    "json": {"parse_agent_traces": False},
    "text": {"encoding": "utf-8-sig"},
    "conll": {"encoding": "utf-8-sig", "column_names": ["tokens", "tags"]},
}


def builder_of(files: Sequence[str], reader: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the `datasets` builder and its options for files.

    Args:
        files: Their paths, of one format.
        reader: The user's options of the builder; and `format`, where suffixes do not tell it.

    Raises:
        UserError: the files have no known format, or several.
    """
    options = {key: value for key, value in reader.items() if key != "format"}
    for key in {"sep", "delimiter"} & options.keys():  # "\t" as typed in a shell or in YAML
        options[key] = str(options[key]).replace("\\t", "\t")
    builders = sorted({builder for builder, _ in FORMATS.values()})
    if (chosen := reader.get("format")) is not None:
        if chosen not in builders:
            raise UserError(f"data.reader.format is one of {', '.join(builders)}, not {chosen}.")
        return chosen, DEFAULTS.get(chosen, {}) | options
    for file in files:
        if suffix(file) not in FORMATS:
            raise UserError(
                f"The suffix of {file} is not one of {', '.join(FORMATS)} (also with "
                f"{', '.join(MAGIC)}): say what it holds, data.reader={{format: …}}, one of "
                f"{', '.join(builders)}."
            )
        if FORMATS[suffix(file)] != FORMATS[suffix(files[0])]:
            raise UserError(
                f"The files of one split must have one format, but {files[0]} is "
                f"{suffix(files[0])[1:]} and {file} is {suffix(file)[1:]}."
            )
    builder, own = FORMATS[suffix(files[0])] if files else ("", {})
    return builder, DEFAULTS.get(builder, {}) | own | options


def suffix(file: str) -> str:
    """Return the suffix that tells the format: that before .gz and the like, but for parquet."""
    path = Path((urlsplit(file).path if scheme_of(file) else file).lower())
    inner = path.with_suffix("").suffix if path.suffix in MAGIC else path.suffix
    return path.suffix if inner == ".parquet" else inner
