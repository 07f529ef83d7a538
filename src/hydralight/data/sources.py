"""From what the user typed (files, folders, hub ids) to `datasets.Dataset`s by split and role."""

import glob
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from datasets.exceptions import DatasetNotFoundError

from hydralight.data.faults import (
    bad_csv_row,
    bad_option,
    complaint,
    conll_columns,
    count,
    fault,
    refuse,
    suffix,
)
from hydralight.errors import UserError, did_you_mean, first_line
from hydralight.hub import hub_answers

log = logging.getLogger(__name__)

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".parquet": ("parquet", {}),
    ".txt": ("text", {}),
    ".text": ("text", {}),
    ".conll": ("conll", {}),
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    # An empty cell is missing; "NA" and "None" are text like any other.
    "csv": {"encoding": "utf-8-sig", "keep_default_na": False, "na_values": [""]},
    "json": {"parse_agent_traces": False},
    "text": {"encoding": "utf-8-sig"},
    "conll": {"encoding": "utf-8-sig", "column_names": ["tokens", "tags"]},
}
_SLICE = re.compile(r"(.+?)(\[(?:-?[\d_]+%?)?:(?:-?[\d_]+%?)?\])?")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_splits(
    path: str | Mapping[str, str | Sequence[str] | Mapping[str, str]],
    *,
    name: str | None = None,
    revision: str | None = None,
    splits: Mapping[str, str] | None = None,
    reader: Mapping[str, Any] | None = None,
    unfold: Callable[[Dataset], Dataset] = lambda rows: rows,
) -> dict[str, Dataset]:
    """Load the splits of a data set from local files and folders, or from the hub.

    Args:
        path: A file, glob, folder or hub id, or a mapping from split names to one or several of
            them. A file or glob alone is the split `train`; a folder may come from `save_to_disk`;
            a local path may end in a slice as HF's split names do: `my.csv[:10%]`. A mapping from
            column names to files within a split, `{en: train.en, de: train.de}`, is of text files
            that are aligned line by line.
        name: The configuration of the hub data set.
        revision: The git revision of the hub data set.
        splits: Our split names to HF split expressions of the hub data set, such as
            `{"train": "train[:1%]"}`; without it, those of train, validation and test that it has.
        reader: Options of the `datasets` builder that reads the local files (`sep`, `quoting`,
            `encoding`, `field`, `sample_by`, …), and `format` (csv, json, parquet, text or conll)
            for files whose suffix does not say what they hold.
        unfold: Applied to the rows of files before they are sliced.

    Raises:
        UserError: A path, split or configuration is not there, or cannot be read.
    """
    reader = dict(reader or {})
    if not isinstance(path, str):
        hub = (name, revision, splits or {})
        found = {}
        for split, value in path.items():
            if value is None:  # a recipe's split that is not wanted
                continue
            if isinstance(value, Mapping):
                found[split] = _load_aligned(split, value, reader)
            else:
                paths = [value] if isinstance(value, str) else value
                found[split] = _load_split(split, paths, reader, hub, unfold)
    elif _is_local(path):
        found = _load_local(path, reader, unfold)
    else:
        found = _load_hub(path, name, revision, splits or {})
    for split, rows in found.items():
        if len(rows) == 0:
            raise UserError(f"The split {split} of {_spell(path)} has no rows.")
    return found


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the progress bars of `datasets` for what takes long."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _is_local(path: str) -> bool:
    bare = _cut(path)[0]
    return (
        os.path.exists(path)
        or os.path.exists(bare)
        or bare.startswith((".", "/", "~"))
        or any(sign in bare for sign in "*?[")
        or suffix(bare) in FORMATS
        or not _HUB_ID.fullmatch(bare)
    )


def _cut(path: str) -> tuple[str, str]:
    """Part `my.csv[:10]` into path and slice."""
    match = None if os.path.exists(path) else _SLICE.fullmatch(path)
    return (match[1], match[2] or "") if match else (path, "")


def _load_split(
    split: str,
    paths: Sequence[str],
    reader: dict[str, Any],
    hub: tuple[str | None, str | None, Mapping[str, str]],
    unfold: Callable[[Dataset], Dataset],
) -> Dataset:
    """One split of a mapping: the rows of its paths one after another."""
    name, revision, splits = hub
    if files := [file for path in paths if _is_local(path) for file in _files(path)]:
        _builder(files, reader)
    parts = []
    for path in paths:
        if _is_local(path):
            found = _load_local(path, reader, unfold)
            if split not in found and len(found) > 1:
                raise UserError(f"{path} has no split {split}; its splits are {', '.join(found)}.")
            parts.append(found[split] if split in found else next(iter(found.values())))
        else:
            bare, cut = _cut(path)
            parts.append(
                _load_hub(bare, name, revision, {split: splits.get(split, split) + cut})[split]
            )
    for path, part in zip(paths, parts, strict=True):
        if set(part.column_names) != set(parts[0].column_names):
            raise UserError(
                f"{path} has the columns {', '.join(part.column_names)}, but {paths[0]} in the "
                f"same split {split} has {', '.join(parts[0].column_names)}."
            )
    features = parts[0].features
    return datasets.concatenate_datasets(
        [part if part.features == features else part.cast(features) for part in parts]
    )


def _load_aligned(split: str, files: Mapping[str, str], reader: dict[str, Any]) -> Dataset:
    """One column a file, one row a line."""
    columns = {}
    for column, file in files.items():
        (rows,) = _load_local(file, {**reader, "format": "text"}).values()
        columns[column] = rows.rename_columns({"text": column})
    lengths = {files[column]: len(rows) for column, rows in columns.items()}
    if len(set(lengths.values())) > 1:
        counts = " and ".join(f"{file} has {count(n, 'line')}" for file, n in lengths.items())
        raise UserError(f"The files of the split {split} are not aligned: {counts}.")
    return datasets.concatenate_datasets(list(columns.values()), axis=1)


def _load_local(
    path: str,
    reader: dict[str, Any],
    unfold: Callable[[Dataset], Dataset] = lambda rows: rows,
) -> dict[str, Dataset]:
    bare, cut = _cut(path)
    folder = Path(bare).expanduser()
    found = _load_folder(folder, reader) if folder.is_dir() else _load_files(path, reader)
    found = {split: unfold(rows) if len(rows) else rows for split, rows in found.items()}
    if not cut:
        return found
    for split, rows in found.items():
        (span,) = datasets.ReadInstruction.from_spec("rows" + cut).to_absolute({"rows": len(rows)})
        if span.from_ >= span.to:
            raise UserError(f"The slice {path} has no rows: there are {len(rows)} in all.")
        found[split] = rows.select(range(span.from_, span.to))
    return found


def _files(path: str) -> list[str]:
    """The files that a path or glob names; none for a folder."""
    bare = os.path.expanduser(_cut(path)[0])
    if os.path.exists(bare):
        return [] if os.path.isdir(bare) else [bare]
    if files := [file for file in sorted(glob.glob(bare, recursive=True)) if os.path.isfile(file)]:
        return files
    if any(sign in bare for sign in "*?["):
        raise UserError(f"No file matches {bare}.")
    there = [str(file) for file in Path(bare).parent.glob("*")]
    raise UserError(f"There is no file or folder {bare}{did_you_mean(bare, there)}")


def _builder(files: Sequence[str], reader: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The `datasets` builder and its options for files, which must be of one format."""
    options = {key: value for key, value in reader.items() if key != "format"}
    for key in {"sep", "delimiter"} & options.keys():  # "\t" as typed in a shell or in YAML
        options[key] = str(options[key]).replace("\\t", "\t")
    builders = sorted({builder for builder, _ in FORMATS.values()})
    if (chosen := reader.get("format")) is not None:
        if chosen not in builders:
            raise UserError(f"data.reader.format is one of {', '.join(builders)}, not {chosen}.")
        return chosen, _DEFAULTS.get(chosen, {}) | options
    for file in files:
        if suffix(file) not in FORMATS:
            raise UserError(
                f"The suffix of {file} is not one of {', '.join(FORMATS)} (also with .gz or "
                f".zst): say what it holds with data.reader.format, one of {', '.join(builders)}."
            )
        if FORMATS[suffix(file)] != FORMATS[suffix(files[0])]:
            raise UserError(
                f"The files of one split must have one format, but {files[0]} is "
                f"{suffix(files[0])[1:]} and {file} is {suffix(file)[1:]}."
            )
    builder, own = FORMATS[suffix(files[0])]
    return builder, _DEFAULTS.get(builder, {}) | own | options


def _load_files(path: str, reader: Mapping[str, Any]) -> dict[str, Dataset]:
    files = _files(path)
    builder, options = _builder(files, reader)
    # `datasets` takes data files for globs.
    exact = [glob.escape(os.path.abspath(file)) for file in files]
    return _prepare(builder, path, files, builder, options, data_files={"train": exact})


def _load_folder(folder: Path, reader: Mapping[str, Any]) -> dict[str, Dataset]:
    absolute = str(folder.absolute())
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        try:
            loaded = datasets.load_from_disk(absolute)
        except Exception as error:
            raise UserError(
                f"The data set saved in {folder} is broken: {first_line(error)}."
            ) from error
        return {"train": loaded} if isinstance(loaded, Dataset) else dict(loaded)
    try:
        config = datasets.load_dataset_builder(absolute).config
    except FileNotFoundError as error:
        raise UserError(
            f"The folder {folder} holds no data files; known are {', '.join(FORMATS)} and what "
            "`datasets` reads from a folder."
        ) from error
    except ValueError as error:
        raise UserError(f"The folder {folder} cannot be read: {first_line(error)}.") from error
    if "format" in reader:
        raise UserError(f"data.reader.format is for files: name those in {folder} by a glob.")
    kind = type(config).__name__.removesuffix("Config").lower()
    own = {"sep": config.sep} if kind == "csv" else {}
    options = _DEFAULTS.get(kind, {}) | own | dict(reader)
    files = [file for files in config.data_files.values() for file in files]
    return _prepare(absolute, str(folder), files, kind, options)


def _prepare(
    source: str, where: str, files: Sequence[str], kind: str, options: dict[str, Any], **kwargs: Any
) -> dict[str, Dataset]:
    """Let `datasets` read local files, and look for the bad line where it can't."""
    level = datasets.utils.logging.get_verbosity()
    try:
        datasets.utils.logging.set_verbosity(logging.CRITICAL)
        if kind == "csv":
            # A first row that is too long makes pandas take its first field for an index.
            refuse(bad_csv_row(file, options, rows=2) for file in files)
        if kind == "conll":
            refuse(conll_columns(file, options) for file in files)
        with without_bars():
            found = dict(datasets.load_dataset(source, **kwargs, **options))
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        refuse([bad_option(kind, files, cause)])
        refuse(fault(file, kind, options) for file in files)
        raise UserError(complaint(where, cause)) from error
    finally:
        datasets.utils.logging.set_verbosity(level)
    # pandas fills up a short row with missing cells, and takes plain quotes, frequent in tsv, for
    # quoting: it then drops them and joins lines.
    if kind == "csv" and (
        options.get("sep") == "\t" or any(rows.data[-1].null_count for rows in found.values())
    ):
        refuse(bad_csv_row(file, options) for file in files)
    return found


def _load_hub(
    path: str, name: str | None, revision: str | None, splits: Mapping[str, str]
) -> dict[str, Dataset]:
    if _cut(path)[1]:
        raise UserError(f"A slice of the hub data set {path} goes in data.splits, by split.")
    settings, forced = datasets.config, datasets.config.HF_HUB_OFFLINE
    # Without a network the hub's client retries for half a minute; offline, only the cache is read.
    settings.HF_HUB_OFFLINE = forced or not hub_answers()
    if settings.HF_HUB_OFFLINE and revision is not None:
        log.warning("Offline, the newest cached copy of %s stands for every revision.", path)
    try:
        loaded = datasets.load_dataset(
            path, name, revision=revision, split=list(splits.values()) or None
        )
    except DatasetNotFoundError as error:
        raise UserError(
            f"{path} is no file or folder here, and on the hub: {first_line(error)}."
        ) from error
    except (ConnectionError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and "LocalEntryNotFound" not in str(error):
            raise UserError(
                f"The hub data set {path} cannot be loaded: {first_line(error)}."
            ) from error
        why = "HF_HUB_OFFLINE is set" if forced else f"{settings.HF_ENDPOINT} cannot be reached"
        raise UserError(
            f"{path} is no file or folder here, and the hub data set cannot be had, as {why} and "
            f"{settings.HF_DATASETS_CACHE} has no copy of it: name local files in data.path, a "
            "mirror in HF_ENDPOINT, or an HF_HOME that has a copy."
        ) from error
    except Exception as error:
        raise UserError(
            f"The hub data set {path} cannot be loaded: {first_line(error)}."
        ) from error
    finally:
        settings.HF_HUB_OFFLINE = forced
    if splits:
        return dict(zip(splits, loaded, strict=True))
    found = {split: loaded[split] for split in ("train", "validation", "test") if split in loaded}
    if not found:
        raise UserError(
            f"The hub data set {path} has the splits {', '.join(loaded)}: say in data.splits which "
            "of them are train, validation and test."
        )
    return found


def _spell(path: str | Mapping[str, Any]) -> str:
    return path if isinstance(path, str) else ", ".join(str(value) for value in path.values())
