"""Local files and folders as `datasets.Dataset`s by split."""

import glob
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import yaml
from datasets import Dataset
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from hydralight.cached import no_room
from hydralight.data.read.faults import (
    bad_csv_row,
    bad_option,
    complaint,
    conll_columns,
    fault,
    refuse,
)
from hydralight.data.read.formats import DEFAULTS, FORMATS, builder_of, suffix
from hydralight.data.read.headers import check_header
from hydralight.data.read.texts import are_whole, whole_texts
from hydralight.data.read.whole import check_whole
from hydralight.errors import UserError, count, did_you_mean, first_line, told
from hydralight.stores.fetched import files_at
from hydralight.stores.listing import scheme_of

Unfold = Callable[[Dataset], Dataset]
_SLICE = re.compile(r"(.+?)(\[(?:-?[\d_]+%?)?:(?:-?[\d_]+%?)?\])?")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def read_local(
    path: str, reader: Mapping[str, Any], unfold: Unfold | None = None
) -> dict[str, Dataset]:
    """Read a file, glob or folder, or the slice of it that the path names (`my.csv[:10%]`).

    Args:
        path: The path, or the URL of a file or glob. A file or glob is the split `train`.
        reader: Options of the `datasets` builder, and `format`.
        unfold: Applied to the rows before they are sliced.

    Raises:
        UserError: it is not there, or cannot be read; a bad line is named.
    """
    bare, part = cut(path)
    folder = Path(bare).expanduser()
    if scheme_of(bare) is None and folder.is_dir():
        found = _read_folder(folder, reader)
    else:
        files = files_of(path)
        # `datasets` takes data files for globs.
        exact = [glob.escape(os.path.abspath(file)) for file in files]
        builder, options = builder_of(files, reader)
        found = _read(builder, path, files, builder, options, data_files={"train": exact})
    if unfold is not None:
        found = {split: unfold(rows) if len(rows) else rows for split, rows in found.items()}
    if not part:
        return found
    for split, rows in found.items():
        with told(f"The slice {path}"):
            spec = datasets.ReadInstruction.from_spec("rows" + part)
            (span,) = spec.to_absolute({"rows": len(rows)})
        if span.from_ >= span.to:
            raise UserError(f"The slice {path} has no rows: there are {len(rows)} in all.")
        found[split] = rows.select(range(span.from_, span.to))
    return found


def read_aligned(split: str, files: Mapping[str, str], reader: Mapping[str, Any]) -> Dataset:
    """Read text files that are aligned line by line: one column a file, one row a line."""
    columns = {}
    for column, file in files.items():
        (rows,) = read_local(file, {**reader, "format": "text"}).values()
        columns[column] = rows.rename_columns({"text": column})
    lengths = {files[column]: len(rows) for column, rows in columns.items()}
    if len(set(lengths.values())) > 1:
        counts = " and ".join(f"{file} has {count(n, 'line')}" for file, n in lengths.items())
        raise UserError(f"The files of the split {split} are not aligned: {counts}.")
    return datasets.concatenate_datasets(list(columns.values()), axis=1)


def joined(paths: Sequence[str], parts: Sequence[Dataset], split: str) -> Dataset:
    """Put the rows of one split's paths one after another.

    Raises:
        UserError: they do not have the same columns.
    """
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


def is_local(path: str) -> bool:
    """Whether a path is one here, there or not, or a URL, rather than a hub id."""
    bare = cut(path)[0]
    return (
        os.path.exists(path)
        or os.path.exists(bare)
        or bare.startswith((".", "/", "~"))
        or any(sign in bare for sign in "*?[")
        or suffix(bare) in FORMATS
        or not _HUB_ID.fullmatch(bare)
    )


def cut(path: str) -> tuple[str, str]:
    """Part `my.csv[:10]` into path and slice; the URL of a file here is its path."""
    path = path.removeprefix("file://")
    match = None if os.path.exists(path) else _SLICE.fullmatch(path)
    return (match[1], match[2] or "") if match else (path, "")


def files_of(path: str) -> list[str]:
    """Return the files that a path or glob names; none for a folder; of a URL, local copies."""
    if scheme_of(path) is not None:
        return files_at(cut(path)[0])
    bare = os.path.expanduser(cut(path)[0])
    if os.path.exists(bare):
        return [] if os.path.isdir(bare) else [bare]
    if files := [file for file in sorted(glob.glob(bare, recursive=True)) if os.path.isfile(file)]:
        return files
    if any(sign in bare for sign in "*?["):
        raise UserError(f"No file matches {bare}.")
    there = [str(file) for file in Path(bare).parent.glob("*")]
    raise UserError(f"There is no file or folder {bare}{did_you_mean(bare, there)}")


def _read_folder(folder: Path, reader: Mapping[str, Any]) -> dict[str, Dataset]:
    absolute = str(folder.absolute())
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        _refuse_saved_elsewhere(folder)
        try:
            loaded = datasets.load_from_disk(absolute)
        except Exception as error:
            raise UserError(
                f"The data set saved in {folder} is broken: {first_line(error)}."
            ) from error
        return {"train": loaded} if isinstance(loaded, Dataset) else dict(loaded)
    _refuse_named_elsewhere(folder)
    try:
        config = datasets.load_dataset_builder(absolute).config
    except FileNotFoundError as error:
        raise UserError(
            f"The folder {folder} holds no data files; known are {', '.join(FORMATS)} and what "
            "`datasets` reads from a folder."
        ) from error
    except Exception as error:
        raise UserError(f"The folder {folder} cannot be read: {first_line(error)}.") from error
    if "format" in reader:
        raise UserError(f"data.reader.format is for files: name those in {folder} by a glob.")
    kind = type(config).__name__.removesuffix("Config").lower()
    own = {"sep": config.sep} if kind == "csv" else {}
    options = DEFAULTS.get(kind, {}) | own | dict(reader)
    files = [file for files in config.data_files.values() for file in files]
    return _read(absolute, str(folder), files, kind, options)


def _refuse_named_elsewhere(folder: Path) -> None:
    """Refuse a folder that names data outside of it, before `datasets` asks for that.

    Raises:
        UserError: it does, or what says which files it has cannot be read.
    """
    for name in (datasets.config.REPOCARD_FILENAME, datasets.config.REPOYAML_FILENAME):
        path = folder / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
            head = REGEX_YAML_BLOCK.search(text)
            text = text if path.suffix == ".yaml" else head[2] if head else ""
            said = yaml.safe_load(text)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {first_line(error)}.") from error
        configs = said.get("configs") if isinstance(said, dict) else None
        named = [c for c in configs or () if isinstance(c, dict)]
        _refuse_elsewhere(path, [c.get(key) for c in named for key in ("data_files", "data_dir")])


def _refuse_saved_elsewhere(folder: Path) -> None:
    """Refuse a saved data set whose parts lie outside of its folder.

    Raises:
        UserError: they do.
    """
    for path in (
        folder / "dataset_dict.json",
        *folder.glob("state.json"),
        *folder.glob("*/state.json"),
    ):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # reading says more
        if isinstance(said, dict):
            _refuse_elsewhere(path, [said.get("splits"), said.get("_data_files")])


def _refuse_elsewhere(path: Path, named: Any) -> None:
    for place in _texts(named):
        if "://" in place or place.startswith(("/", "~")) or ".." in Path(place).parts:
            raise UserError(
                f"{path} names {place}, which is not in the folder: take it out, or give it "
                "as data.path if you mean it."
            )


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping | list):
        for child in node.values() if isinstance(node, Mapping) else node:
            yield from _texts(child)


def _read(
    source: str, where: str, files: Sequence[str], kind: str, options: dict[str, Any], **kwargs: Any
) -> dict[str, Dataset]:
    """Let `datasets` read local files, and look for the bad line where it can't."""
    level = datasets.utils.logging.get_verbosity()
    try:
        datasets.utils.logging.set_verbosity(logging.CRITICAL)
        local = [file for file in files if "://" not in file]  # not those of a hub
        check_whole(local, kind, options)
        if kind == "csv":
            # A first row that is too long makes pandas take its first field for an index.
            refuse(bad_csv_row(file, options, rows=2) for file in files)
            for file in local:
                check_header(file, options)
        if kind == "conll":
            refuse(conll_columns(file, options) for file in files)
        if are_whole(kind, options) and "data_files" in kwargs:
            found = {"train": whole_texts(files, options)}
        else:
            found = dict(datasets.load_dataset(source, **kwargs, **options))
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        refuse([no_room(cause, datasets.config.HF_DATASETS_CACHE)])
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
