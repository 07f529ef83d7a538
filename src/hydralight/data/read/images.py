"""Images that a table names by their files, and images that are to be predicted."""

import glob
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

import datasets
from datasets import Dataset
from PIL import Image

from hydralight.errors import UserError, did_you_mean
from hydralight.stores.fetched import files_at
from hydralight.stores.listing import scheme_of


def located(rows: Dataset, column: str, folder: str) -> Dataset:
    """Turn a column of file names, relative to a folder, into images; leave images encoded."""
    if column not in rows.column_names:
        return rows  # what is missing is said where columns are named
    feature = rows.features[column]
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
        if scheme_of(folder) is not None:
            raise UserError(
                f"The images that the column {column} names are not fetched from {folder}: give "
                "the folder here that they are in, data.image_dir=…, or shards of them (.tar)."
            )
        base = Path(folder).expanduser().absolute()
        paths = [None if name is None else str(base / name) for name in rows[column][:]]
        names = rows.column_names
        features = datasets.Features({column: datasets.Image(decode=False)})
        images = Dataset.from_dict({column: paths}, features=features)
        rows = datasets.concatenate_datasets([rows.remove_columns(column), images], axis=1)
        return rows.select_columns(names)
    if isinstance(feature, datasets.Image):
        return rows.cast_column(column, datasets.Image(decode=False))
    return rows


def joined_to_table(images: Dataset, table: Dataset, column: str, where: str) -> Dataset:
    """Put the columns of a table beside the images that it names by file name."""
    if column not in table.column_names:
        raise UserError(
            f"{where} has no column {column!r} with the images' file names"
            f"{did_you_mean(column, table.column_names)} (data.columns={{image: …}} names another; "
            f"there are: {', '.join(table.column_names)})."
        )
    images = images.select_columns("image").cast_column("image", datasets.Image(decode=False))
    numbers: dict[str, int] = {}
    for number, name in enumerate(table[column][:]):
        key = PurePath(str(name)).as_posix()
        if key in numbers:
            raise UserError(f"{where}, row {number + 1}: {name} is in row {numbers[key] + 1} too.")
        numbers[key] = number
    chosen: dict[int, str] = {}
    for path in (image["path"] for image in images["image"]):
        parts = PurePath(path).parts  # the table may name a file alone, or with folders above it
        keys = (PurePath(*parts[start:]).as_posix() for start in range(len(parts)))
        row = next((numbers[key] for key in keys if key in numbers), None)
        if row is None:
            raise UserError(f"{where} has no row for {path}.")
        if row in chosen:
            raise UserError(
                f"{where}, row {row + 1} stands for both {chosen[row]} and {path}: name files with "
                "their folders."
            )
        chosen[row] = path
    rows = table.select(list(chosen)).remove_columns(column)
    return datasets.concatenate_datasets([images.rename_column("image", column), rows], axis=1)


def naming(images: Iterable[Dataset], table: Dataset) -> str | None:
    """Return the column of a table that names images by their files; None where none does."""
    for column in table.column_names:
        try:
            for one in images:
                joined_to_table(one, table, column, "")
        except UserError:
            continue
        return column
    return None


def folder_of(path: Any, split: str) -> str:
    """Return the folder of a table of file names."""
    if isinstance(path, Mapping):
        path = path.get(split, ".")
    first = path if isinstance(path, str) else next(iter(path))
    if scheme_of(first) is not None:
        return first.rpartition("/")[0]
    return str(Path(first).expanduser().parent)


def image_files(source: str) -> list[Path] | None:
    """Return the image files that an input names: a file, a folder or a glob.

    None where it names a table or is no image.

    Raises:
        UserError: there is no image there.
    """
    path = Path(source).expanduser()
    Image.init()
    if scheme_of(source) is not None:
        return list(map(Path, files_at(source))) if _is_image(Path(urlsplit(source).path)) else None
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _is_image(file)]
    elif any(sign in source for sign in "*?["):
        files = [Path(file) for file in sorted(glob.glob(source, recursive=True))]
    elif _is_image(path):
        files = [path] if path.exists() else []
    else:
        return None
    if not files:
        raise UserError(f"input={source}: there is no image there.")
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in Image.registered_extensions()
