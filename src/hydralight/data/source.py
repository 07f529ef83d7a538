"""Where rows come from: files, folders, the hub, or a function of one's own."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset

from hydralight.config.ranges import Format
from hydralight.data.columns import paths_of, rename_roles, with_rest
from hydralight.data.read.files import (
    cut,
    files_of,
    is_local,
    joined,
    read_aligned,
    read_local,
)
from hydralight.data.read.formats import builder_of
from hydralight.data.read.hub import load_hub
from hydralight.data.read.images import folder_of, image_files, joined_to_table, located, naming
from hydralight.data.read.inputs import begins_an_object, looks_like_a_file, read_input
from hydralight.data.roles import ColumnNames, Where, check_lines, switched_off
from hydralight.data.shape import Shape
from hydralight.errors import UserError, did_you_mean
from hydralight.stores.fetched import by_their_urls

SPLITS = ("train", "validation", "test")
OwnSplits = Mapping[str, Dataset | Iterable[Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was typed of where the rows are, and which columns play which roles.

    Args:
        path: Hub id, local file, glob or folder, the URL of a file or glob, or a list of files; or
            a mapping from split to such. A path or URL may end in a slice as HF's split names do:
            `my.csv[:10%]`. Within a split, a mapping from column names to files, `{en: train.en,
            de: train.de}`, is of text files that are aligned line by line.
        name: Config name of a hub data set.
        revision: Branch, tag or commit of a hub data set.
        splits: For hub data: split to HF's split expression, such as `{train: "train[:1%]"}`.
            Local data is used whole, or sliced in its own path.
        columns: Role to column name, where they differ; several names make a list, and null says
            that there is no column for it.
        columns_by_split: For splits whose columns differ, what goes before `columns`: several
            references in `test`, say. A split that is cut out of train has the columns of train.
        reader: Options of the `datasets` builder that reads local files (`sep`, `encoding`,
            `field`, `sample_by`, …), and `format` where suffixes do not say what files hold.
        metadata: A table with a row for each image of `path`, whose column of file names is the
            role `image`; folders' names are then no labels.
        image_dir: Where the files are that a table in `path` names; its own folder unless said.
        source: Called without arguments, returns the splits: data sets, or rows as dicts. A `path`
            that is given goes before it.
    """

    path: Any = None
    name: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] | None = None
    columns: ColumnNames | None = None
    columns_by_split: Mapping[str, ColumnNames | None] | None = None
    reader: Mapping[str, Any] | None = None
    metadata: str | None = None
    image_dir: str | None = None
    source: Callable[[], OwnSplits] | None = None

    def __post_init__(self) -> None:
        for name in ("splits", "columns", "columns_by_split", "reader"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Mapping):
                raise UserError(f"data.{name}={value} should be a mapping: {{key: value}}.")
        parts = self.path.values() if isinstance(self.path, Mapping) else [self.path]
        for part in parts:
            if part == "" or part == []:
                raise UserError("data.path is empty: give data.path=<hub id, file or folder>.")
            inner = part.values() if isinstance(part, Mapping) else part
            if not (part is None or isinstance(part, str)) and (
                not isinstance(inner, Iterable) or not all(isinstance(one, str) for one in inner)
            ):
                raise UserError(
                    f"data.path={self.path} should be a path, a list of paths, or {{split: path}}."
                )
            texts = [inner] if isinstance(inner, str) else list(inner or ())
            if not all(text.strip() for text in texts) or (part is not None and not texts):
                raise UserError("data.path is empty: give data.path=<hub id, file or folder>.")

    def columns_of(self, split: str) -> ColumnNames:
        """Return the columns of a split by role; those of `predict` are for what is predicted."""
        return {**(self.columns or {}), **((self.columns_by_split or {}).get(split) or {})}

    @by_their_urls()
    def read(self, shape: Shape | None = None, known: Iterable[str] = SPLITS) -> dict[str, Dataset]:
        """Return the splits with their own columns.

        Args:
            shape: Unfolds nested rows, and says which roles are files.
            known: The splits that `path` may name.

        Raises:
            UserError: something is not there, cannot be read, or is empty.
        """
        unfold = None if shape is None else shape.unfold
        _check_splits("data.columns_by_split", self.columns_by_split or (), [*known, "predict"])
        if self.path is not None:
            found = self._read_path(known, unfold)
        elif self.source is not None:
            found = _own(self.source())
            _check_splits("data.source", found, known)
            found = {split: unfold(rows) if unfold else rows for split, rows in found.items()}
        else:
            raise UserError("data.path has no value: give data.path=<hub id, file or folder>.")
        if shape is not None and shape.keeps_columns:
            found = {split: with_rest(rows) for split, rows in found.items()}
        return found if shape is None or not shape.file_roles else self._with_files(found, shape)

    def _read_path(self, known: Iterable[str], unfold: Any) -> dict[str, Dataset]:
        """Read what `path` names."""
        path = {"train": self.path} if isinstance(self.path, list) else self.path
        reader = {} if self.metadata is not None else dict(self.reader or {})
        if isinstance(path, Mapping):
            _check_splits("data.path", path, [*known, "predict"])
            found = {}
            for split, value in path.items():
                if isinstance(value, Mapping):
                    found[split] = read_aligned(split, value, reader)
                elif value is not None:  # else a recipe's split that is not wanted
                    paths = [value] if isinstance(value, str) else list(value)
                    if len(paths) > 1:
                        local = [file for one in paths if is_local(one) for file in files_of(one)]
                        builder_of(local, reader)  # refuses files of several formats
                    parts = [self._part(one, split, reader, unfold) for one in paths]
                    found[split] = joined(paths, parts, split) if len(parts) > 1 else parts[0]
        elif is_local(path):
            found = read_local(path, reader, unfold)
        elif cut(path)[1]:
            raise UserError(f"A slice of the hub data set {path} goes in data.splits, by split.")
        else:
            found = load_hub(path, self.name, self.revision, self.splits or {})
        for split, rows in found.items():
            if len(rows) == 0:
                named = ", ".join(map(str, path.values())) if isinstance(path, Mapping) else path
                raise UserError(f"The split {split} of {named} has no rows.")
        return found

    def _part(self, path: str, split: str, reader: dict[str, Any], unfold: Any) -> Dataset:
        """Read what one path has for a split."""
        if not is_local(path):
            bare, slice_ = cut(path)
            expression = (self.splits or {}).get(split, split) + slice_
            return load_hub(bare, self.name, self.revision, {split: expression})[split]
        found = read_local(path, reader, unfold)
        if split not in found and len(found) > 1:
            raise UserError(f"{path} has no split {split}; its splits are {', '.join(found)}.")
        return found[split] if split in found else next(iter(found.values()))

    def _with_files(self, found: dict[str, Dataset], shape: Shape) -> dict[str, Dataset]:
        """Find the images that a table names: in `metadata`, or in `path` itself."""
        (role,) = shape.file_roles
        if self.metadata is not None:
            name = str((self.columns or {}).get(role) or role)
            (table,) = replace(self, path=self.metadata, metadata=None).read().values()
            if name not in table.column_names:  # which is told with all roles, where one fits
                name = naming(found.values(), table) or name
            return {
                s: joined_to_table(rows, table, name, self.metadata) for s, rows in found.items()
            }
        with_images = {}
        for split, rows in found.items():
            name = str(self.columns_of(split).get(role) or role)
            column = name if name in rows.column_names else role
            with_images[split] = located(rows, column, self.folder(split))
        return with_images

    def folder(self, split: str) -> str:
        """Return where the image files are that a table names."""
        return self.image_dir or ("." if self.path is None else folder_of(self.path, split))

    def further(self, one: Mapping[str, Any]) -> "Source":
        """Return where the rows of a further set are; what it does not say is as here.

        Args:
            one: Its settings, such as `path`.
        """
        own = {key: one[key] for key in ("reader", "columns") if one.get(key) is not None}
        place = {key: one.get(key) for key in ("path", "name", "revision")}
        return replace(self, splits=None, source=None, columns_by_split=None, **place, **own)

    # ------------------------------------------------------------ what is to be predicted

    @by_their_urls()
    def read_input(
        self, text: str, shape: Shape, format: Format | None = None
    ) -> tuple[Dataset, Where]:
        """Return the rows of an input, named by role, and what messages call it.

        Args:
            text: A file of any format that training reads; "-" for standard input; or a text
                itself (`data/read/inputs.py`). For images a file, a folder, a glob, or a table.
            shape: Says which roles an input has.
            format: What it holds, where it does not tell.

        Raises:
            UserError: there is no such file, nothing in it, or a column that training used is
                missing.
        """
        said = self.columns_of("predict")
        off = switched_off(said)
        roles = [role for role in shape.roles if role not in shape.targets and role not in off]
        read = replace(self, source=None, metadata=None)
        if shape.file_roles and text != "-" and format is None and not begins_an_object(text):
            files = image_files(text)
            if files is not None:
                images = Dataset.from_dict({roles[0]: [str(file) for file in files]})
                return located(images, roles[0], "."), Where("input")
            if not looks_like_a_file(text):
                raise UserError(f"input={text}: there is no image there.")
        used = {role: names for role, names in said.items() if role not in off}
        # what training used is needed, what it did without is taken where it is there
        needed = [role for role in roles if role not in shape.optional_roles or role in used]
        rows, name, lines, is_text = read_input(
            text,
            (needed or roles)[0],
            lambda file, reader: replace(read, path={"predict": file}, reader=reader).read(shape),
            self.reader or {},
            format,
        )
        if is_text and len(needed) > 1:
            fields = ", ".join(f'"{role}": …' for role in needed)
            raise UserError(
                f"{name} is a text, and this task reads {' and '.join(needed)}: give JSON lines "
                f"instead, as {{{fields}}}."
            )
        there = {*rows.column_names, *rows.flatten().column_names}
        columns = {
            role: names
            for role, names in used.items()
            if role in roles and there.issuperset(head for head, _ in paths_of(names, there, role))
        }
        where = Where(name, columns)
        taken = [role for role in roles if role in needed or role in rows.column_names]
        named = rename_roles(rows, taken, where)
        if lines:
            check_lines(named, needed, where, lines)
        if shape.file_roles and not looks_like_a_file(text):
            named = located(named, roles[0], ".")
        return named, where


def _own(splits: OwnSplits) -> dict[str, Dataset]:
    """Take what a source of the user's own returns."""
    if not isinstance(splits, Mapping) or not splits:
        raise UserError("data.source should return splits: {train: rows, validation: rows}.")
    found = {}
    for split, rows in splits.items():
        try:
            found[split] = rows if isinstance(rows, Dataset) else Dataset.from_list(list(rows))
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"data.source: the split {split} is no data set, and no rows as dicts ({error})."
            ) from error
        if len(found[split]) == 0:
            raise UserError(f"data.source: the split {split} has no rows.")
    return found


def _check_splits(key: str, splits: Iterable[str], known: Iterable[str]) -> None:
    names = list(dict.fromkeys(known))
    for split in splits:
        if split not in names:
            raise UserError(
                f"{key} names the split '{split}'{did_you_mean(split, names)} (there are: "
                f"{', '.join(name for name in names if name != 'predict')})"
            )
