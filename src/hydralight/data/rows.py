"""From a source to the rows of each split: named by role, checked, carved and mixed."""

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from datasets import Dataset

from hydralight.config.ranges import Format
from hydralight.data.columns import NoColumn, rename_roles
from hydralight.data.distinct import check_distinct
from hydralight.data.leaks import groups_apart, inputs_apart
from hydralight.data.mix import Mix
from hydralight.data.propose import as_typed, proposed
from hydralight.data.readings import check_names, readings
from hydralight.data.roles import Where, check_targets_there
from hydralight.data.shape import Shape
from hydralight.data.source import SPLITS, Source
from hydralight.data.splits import Splits
from hydralight.data.unlabelled import targets_that_lack, without
from hydralight.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Rows:
    """What has been read.

    Args:
        splits: Prepared rows by split, and by the name of a further set to evaluate.
        shape: The shape, which knows its labels by now.
        cut: The splits whose rows are no longer numbered as in the source.
        sets: Prepared rows of the sets that are mixed in, by name.
    """

    splits: dict[str, Dataset]
    shape: Shape
    cut: frozenset[str] = frozenset()
    sets: dict[str, Dataset] = field(default_factory=dict)

    def texts(self) -> Iterator[str]:
        """Yield the texts that are trained on, role by role, to train a tokenizer on."""
        if "train" not in self.splits:
            raise UserError("there are no training texts to train a tokenizer on: name them.")
        train = self.splits["train"]
        for role in self.shape.text_roles:
            for rows in (train, *self.sets.values()) if role in train.column_names else ():
                for batch in rows.select_columns([role]).iter(1000):
                    yield from map(self.shape.text_of, batch[role])

    def texts_key(self) -> str:
        """Return what tells these texts from others; it is empty where there are none."""
        train = self.splits.get("train")
        return "-".join(one._fingerprint for one in (train, *self.sets.values()) if one is not None)

    @contextmanager
    def naming(self, split: str) -> Iterator[None]:
        """Name the split, or the set that is mixed in, in what is said of one of its rows.

        Raises:
            UserError: what was raised in here, with that before it.
        """
        try:
            yield
        except UserError as error:
            part = ", as cut out of the training data" if split in self.cut else ""
            if not str(error).startswith("row "):
                raise
            what = split if split.startswith("data.mix.") else f"the {split} split{part}"
            raise UserError(f"{what}, {error}.") from error


def read_rows(
    source: Source,
    parting: Splits,
    mix: Mix,
    shape: Shape,
    known: Iterable[str] = SPLITS,
    only_columns: bool = False,
    needed: Collection[str] | None = None,
) -> Rows:
    """Read all splits.

    Args:
        source: Where the rows are.
        parting: How train is parted.
        mix: Further sets.
        shape: What an example is.
        known: The splits that `data.path` may name.
        only_columns: Whether nothing but columns may be proposed, as a model is trained already.
        needed: The splits that are trained on or evaluated, all unless said; the others need not
            be labelled.

    Raises:
        UserError: whatever is wrong with what was typed, or with a row.
    """
    limit = shape.length_limit
    if limit is not None and getattr(shape, limit) < 4:
        raise UserError(f"data.{limit}={getattr(shape, limit)} leaves nothing of an input.")
    read = source.read(shape, known)
    where = {split: Where.of(source.path, split, source.columns_of(split)) for split in read}
    asked = {"stratify_by": parting.stratify_by, "group_by": parting.group_by}
    by = {key: column for key, column in asked.items() if column and "train" in read}
    for key, column in by.items():
        names = read["train"].column_names
        if column not in (*shape.roles, *names, *read["train"].flatten().column_names):
            raise UserError(
                f"data.{key}={column}: {where['train']} has no such column"
                f"{did_you_mean(column, names)} (there are: {', '.join(names)})"
            )
    group = by.get("group_by")  # which the splits are compared by
    check_roles(source, shape.roles if group is None else [*shape.roles, group])
    rows: dict[str, Dataset] = {}
    for split, one in read.items():
        if needed is not None and split not in needed:
            lacking = targets_that_lack(one, shape, where[split])
            where[split] = without(lacking, where[split])
        else:
            lacking = []
        there = {*one.column_names, *one.flatten().column_names}
        named = group in there or group in where[split].columns
        further = by.values() if split == "train" else [group] if group and named else []
        roles = [*(role for role in shape.roles if role not in lacking), *further]
        try:
            rows[split] = rename_roles(one, roles, where[split], shape.optional_roles)
        except NoColumn as error:
            own = [column for column in roles if column not in shape.roles]
            alone = "train" in rows  # whose columns fit
            of = f"data.columns_by_split.{split}" if alone else ""
            sentence = with_proposal(
                error, one, shape, source, split, own, only_columns or alone, columns_of=of
            )
            raise UserError(sentence) from error
        check_names(source, split, one, shape.roles)
    declared = next((d for s, one in rows.items() if (d := shape.declared(one, where[s]))), ())
    shape = shape.named(rows, where)
    rows = {
        split: shape.with_targets(shape.prepare(one, where[split]), where[split])
        for split, one in rows.items()
    }
    for split, one in rows.items():
        check_distinct(one, shape, where[split])
    parted = parting.part(apart(rows, shape, parting, where, group))
    if cut_out := [s for s in source.columns_by_split or () if s in parted and s not in rows]:
        raise UserError(
            f"data.columns_by_split.{cut_out[0]}: the data has no such split, and what is cut out "
            "of train has its columns: name a file for it in data.path."
        )
    cut = {s for s in parted if s not in rows or len(parted[s]) != len(rows[s])}
    extra = set(by.values()) - set(shape.roles)
    splits = {
        split: one.remove_columns([c for c in one.column_names if c in extra])
        for split, one in parted.items()
    }
    shape = shape.settled(splits.get("train"), declared)
    for name, one in (mix.extra_eval or {}).items():
        if (other := read_set("data.extra_eval", name, one, source, shape)) is not None:
            splits[name] = other
    sets: dict[str, Dataset] = {}
    if mix.sets and "train" in splits:
        others = {n: read_set("data.mix", n, one, source, shape) for n, one in mix.sets.items()}
        known_sets = {n: other for n, other in others.items() if other is not None}
        sets = mix.aligned(splits["train"], mixed_apart(known_sets, splits, shape, parting))
    return Rows(splits, shape, frozenset(cut), sets)


def to_predict(source: Source, text: str, shape: Shape, format: Format | None) -> Dataset:
    """Return the prepared rows of what is to be predicted: a file, standard input, or a text."""
    rows, where = source.read_input(text, shape, format)
    check_distinct(rows, shape, where, values=False)
    return shape.prepare(rows, where)


def prompts(source: Source, file: str, shape: Shape) -> Dataset:
    """Return the prepared rows of a file of prompts."""
    rows, where = source.read_input(file, shape)
    return shape.prepare(without_blanks(rows), where)


def without_blanks(rows: Dataset) -> Dataset:
    """Return the rows of a table without blank lines of text."""

    def is_blank(row: dict[str, Any]) -> bool:
        said = [value for value in row.values() if value is not None]  # a bad row has none
        return bool(said) and not any(str(value).strip() for value in said)

    return rows.filter(lambda row: not is_blank(row))


def check_split(rows: Rows, split: str, source: Source, trains: bool) -> None:
    """Check a split before it is encoded.

    Args:
        rows: Of all splits.
        split: Its name.
        source: Where they come from.
        trains: Whether it is trained on.

    Raises:
        UserError: there is no such split, or it has no targets, or not those that training needs.
    """
    if split not in rows.splits:
        part = f" or set data.{split}_fraction" if split in ("validation", "test") else ""
        raise UserError(
            f"there is no '{split}' split (there are: {', '.join(rows.splits)}): "
            f"name one in data.path{part}."
        )
    where = Where.of(source.path, split, source.columns_of(split))
    targets = [t for t in rows.shape.targets if t not in rows.shape.optional_roles]
    check_targets_there(rows.splits[split], targets, where)
    if trains:
        rows.shape.check_trainable(rows.splits[split], where)


def check_roles(source: Source, roles: Sequence[str]) -> None:
    """Check the roles that `columns_by_split` names.

    Raises:
        UserError: one is not known.
    """
    for split, columns in (source.columns_by_split or {}).items():
        for role in columns or ():
            if role not in roles:
                raise UserError(
                    f"data.columns_by_split.{split} names {role!r}, which is no role of this task; "
                    f"its roles are {', '.join(roles)}{did_you_mean(role, roles)}"
                )


def apart(
    rows: dict[str, Dataset],
    shape: Shape,
    parting: Splits,
    where: Mapping[str, Where],
    group_by: str | None,
) -> dict[str, Dataset]:
    """Look for what ready-made splits have in common, before others are cut out of train."""
    if "train" not in rows:
        return rows
    given = {s: one for s, one in rows.items() if s != "validation" or parting.fold is None}
    if len(given) > 1 and group_by is not None:
        given = groups_apart(given, group_by, parting.group_leaks, where)
    inputs = [role for role in shape.text_roles if role not in shape.targets]
    common = [r for r in inputs if all(r in one.column_names for one in given.values())]
    if shape.targets:  # lines of a corpus may well recur
        given = inputs_apart(given, common, parting.duplicates)
    return {**rows, **given}


def mixed_apart(
    others: dict[str, Dataset], splits: Mapping[str, Dataset], shape: Shape, parting: Splits
) -> dict[str, Dataset]:
    """Look for inputs of the sets of `mix`, which are trained on, in what is evaluated."""
    if not shape.targets:
        return others
    inputs = [role for role in shape.text_roles if role not in shape.targets]
    for name, split in product(others, [split for split in splits if split != "train"]):
        pair = {split: splits[split], f"data.mix.{name}": others[name]}
        common = [r for r in inputs if all(r in one.column_names for one in pair.values())]
        others[name] = inputs_apart(pair, common, parting.duplicates)[f"data.mix.{name}"]
    return others


def with_proposal(
    error: NoColumn,
    rows: Dataset,
    shape: Shape,
    source: Source,
    split: str,
    by: Sequence[str] = (),
    only_columns: bool = False,
    of: str = "data",
    lead: Sequence[str] = (),
    columns_of: str = "",
) -> str:
    """Return the sentence on a column that is not there, and a line to paste if one would do.

    The line is of the keys of `of`, and begins with `lead`; the key of columns may be another one.
    """
    folder, first = source.folder(split), list[str]()
    for reader, read in readings(source, split, rows):
        recipe, key = source.columns_of(split), columns_of or f"{of}.columns"
        line = proposed(read, shape, recipe, by, folder, only_columns, key)
        other = [shlex.quote(f"{of}.reader={_mapping(reader)}")] if reader else []
        first = first or other
        if line:
            return f"{error.what}: try {' '.join([*lead, *other, line])}"
    if first:
        return f"{error.what}: try {' '.join([*lead, *first])}"
    return str(error)


def _mapping(values: Mapping[str, Any]) -> str:
    """Return a mapping as it is typed."""
    return f"{{{', '.join(f'{key}: {as_typed(value)}' for key, value in values.items())}}}"


def read_set(
    argument: str, name: str, one: Mapping[str, Any], source: Source, shape: Shape
) -> Dataset | None:
    """Read one set of `extra_eval` or `mix`; None where it is prepared, and its files are gone."""
    read = source.further(one)
    found = read.read(shape)
    if not found:
        return None
    split = one.get("split")
    if split is None:
        order = ("train",) if argument == "data.mix" else ("validation", "test", "train")
        split = next((s for s in order if s in found), next(iter(found)))
    if split not in found:
        raise UserError(f"{argument}.{name} has no split '{split}': {', '.join(found)}.")
    where = Where(f"{argument}.{name} ({one.get('path')})", read.columns or {})
    try:
        rows = rename_roles(found[split], shape.roles, where, shape.optional_roles)
    except NoColumn as error:
        of = f"{argument}.{name}"
        alone = isinstance(one["path"], str) and one.keys() == {"path"}
        # a path alone becomes a mapping, which further keys can be added to
        lead = [shlex.quote(f"{of}={_mapping({'path': one['path']})}")] if alone else []
        said = with_proposal(error, found[split], shape, read, split, (), True, of, lead)
        raise UserError(said) from error
    prepared = shape.with_targets(shape.prepare(rows, where), where)
    check_distinct(prepared, shape, where)
    if argument == "data.mix":
        shape.check_trainable(prepared, where)
    return prepared
