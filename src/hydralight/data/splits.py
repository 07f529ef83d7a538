"""Cutting a data set into train, validation and test."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import datasets
import numpy as np
import pandas as pd
from annotated_types import Ge, Interval
from datasets import Dataset

from hydralight.config.ranges import NotNegative, Seed
from hydralight.data.leaks import Policy
from hydralight.data.position import are_too_few_texts, carve_by_position
from hydralight.errors import UserError, count, did_you_mean

log = logging.getLogger(__name__)
Part = Annotated[float, Interval(ge=0, lt=1)]  # of the training rows


@dataclass(frozen=True, kw_only=True)
class Splits:
    """How the training rows are parted where the source has no validation or test split.

    Args:
        validation_fraction: Part of train that becomes validation where the source has none.
        test_fraction: The same for test.
        split_seed: Seed of that division, and of folds.
        stratify_by: Column whose values keep their proportions in it.
        group_by: Column whose groups stay together in it; between ready-made splits, `group_leaks`
            says what becomes of those that do not.
        group_leaks: Of groups that are in two ready-made splits: they are told (`report`), or their
            rows are left out (`drop`) of the one that gives way, or moved (`move`) to the other, or
            it is an error (`refuse`). Train gives way to all others, and validation to test.
        duplicates: The same of rows with equal inputs, except `move`; null looks for none.
        split_by: Which rows are taken: any, by `split_seed`, or by `position` the last ones, test
            behind validation. Texts that are too few are cut themselves, between two lines; a
            single text is so in any case.
        fold: Number of the fold of train to validate on, instead of the validation split.
        num_folds: How many folds there are.
    """

    validation_fraction: Part = 0.1
    test_fraction: Part = 0.0
    split_seed: Seed = 42
    stratify_by: str | None = None
    group_by: str | None = None
    group_leaks: Policy = "report"
    duplicates: Literal["report", "drop", "refuse"] | None = "report"
    split_by: Literal["seed", "position"] = "seed"
    fold: NotNegative | None = None
    num_folds: Annotated[int, Ge(2)] = 5

    def part(self, splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
        """Return the splits with what was missing cut out of train.

        Raises:
            UserError: the fractions, folds or columns cannot be had.
        """
        by = {"stratify_by": self.stratify_by, "group_by": self.group_by}
        if self.fold is not None and "train" in splits:  # an evaluation of other data has none
            number, seed = self.fold, self.split_seed
            splits = fold(splits, number=number, num_folds=self.num_folds, seed=seed, **by)
        if self.split_by == "position":
            if self.stratify_by or self.group_by or self.fold is not None:
                raise UserError(
                    "data.split_by=position takes the last rows, whatever is in them: leave out "
                    "data.stratify_by, data.group_by and data.fold, or set them to null."
                )
            asked = {"validation": self.validation_fraction, "test": self.test_fraction}
            fractions = _missing(splits, asked)
            carved = carve_by_position(splits["train"], fractions) if fractions else {}
            return {**splits, **carved}
        if self.fold is None and not (self.stratify_by or self.group_by):
            asked = {"validation": self.validation_fraction, "test": self.test_fraction}
            fractions = _missing(splits, asked)
            if fractions and are_too_few_texts(splits["train"], fractions):
                what = f"the end of {'its' if len(splits['train']) == 1 else 'their'} text"
                log.info(
                    "the training data has %s: %s becomes %s, as data.split_by=position says",
                    *(count(len(splits["train"]), "row"), what, " and ".join(fractions)),
                )
                return {**splits, **carve_by_position(splits["train"], fractions)}
        return carve(
            splits,
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
            **by,
        )


def carve(
    splits: Mapping[str, Dataset],
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    stratify_by: str | None = None,
    group_by: str | None = None,
) -> dict[str, Dataset]:
    """Cut the missing `validation` and `test` splits out of `train`; rows keep their order.

    Args:
        splits: The splits there are.
        validation_fraction: Fraction of the rows of `train`; 0 carves nothing.
        test_fraction: Fraction of the rows of `train`; 0 carves nothing.
        seed: Chooses the rows.
        stratify_by: A column of which every class gets the fraction, and one row at least, in
            each split.
        group_by: A column of which no group spans two splits; the fractions are not exceeded
            unless the smallest group does so.

    Raises:
        UserError: The fractions or columns cannot be had.
    """
    fractions = _missing(splits, {"validation": validation_fraction, "test": test_fraction})
    if not fractions:
        return dict(splits)
    if stratify_by and group_by:
        raise UserError(
            "data.stratify_by and data.group_by exclude each other: give one of them, and null for "
            "the other."
        )
    train, rng = splits["train"], np.random.default_rng(seed)
    codes, values = _codes(train, stratify_by or group_by)
    if group_by:
        parts = _part_groups(codes, list(fractions.values()), rng)
        if parts is None:
            what = f"The column {group_by} of train has {count(len(values), 'group')}"
            raise UserError(
                f"{what}, too few to carve {' and '.join(fractions)} out of it "
                "(data.group_by=null takes rows of any)."
            )
    else:
        parts = np.zeros(len(codes), dtype=np.int64)
        ordered = np.argsort(codes, kind="stable")
        for value, rows in zip(
            values, np.split(ordered, np.cumsum(np.bincount(codes))[:-1]), strict=True
        ):
            counts = [max(1, round(part * len(rows))) for part in fractions.values()]
            if sum(counts) >= len(rows):
                what = f"The class {value!r} of {stratify_by}" if stratify_by else "The split train"
                what += f" has {count(len(rows), 'row')}"
                raise UserError(f"{what}, too few to carve {' and '.join(fractions)} out of it.")
            rows = rng.permutation(rows)
            for part, end in enumerate(np.cumsum(counts), start=1):
                parts[rows[end - counts[part - 1] : end]] = part
    carved = {
        split: train.select(np.flatnonzero(parts == part))
        for part, split in enumerate(["train", *fractions])
    }
    return {**splits, **carved}


def _missing(splits: Mapping[str, Dataset], asked: Mapping[str, float]) -> dict[str, float]:
    """Return the fractions of train that splits which are not there are to get."""
    fractions = {s: part for s, part in asked.items() if s not in splits and part != 0}
    if not fractions or "train" not in splits:
        return {}
    if min(fractions.values()) < 0 or sum(fractions.values()) >= 1:
        raise UserError(f"Fractions to carve out of train must be in 0..1 in all, not {fractions}.")
    return fractions


def fold(
    splits: Mapping[str, Dataset],
    *,
    number: int,
    num_folds: int,
    seed: int,
    stratify_by: str | None = None,
    group_by: str | None = None,
) -> dict[str, Dataset]:
    """Part `train` into folds by scikit-learn; one of them is the validation split.

    Over all numbers every row of `train` is validated on once. A validation split that is there
    already gives way.

    Args:
        splits: The splits there are.
        number: The fold to validate on, from 0.
        num_folds: How many there are.
        seed: Of the shuffle before.
        stratify_by: A column whose values keep their proportions in each fold.
        group_by: A column of which no group spans two folds.

    Raises:
        UserError: The folds or columns cannot be had.
    """
    # half a second of imports, for folds alone
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    if not 0 <= number < num_folds:
        raise UserError(f"data.fold={number} should be in 0..{num_folds - 1} (data.num_folds).")
    train = splits["train"]
    classes, names = _codes(train, stratify_by)
    groups, _ = _codes(train, group_by)
    if stratify_by and np.bincount(classes).min() < num_folds:
        rarest = names[int(np.bincount(classes).argmin())]
        raise UserError(
            f"The class {rarest!r} of {stratify_by} has "
            f"{count(int(np.bincount(classes).min()), 'row')}, too few for {num_folds} folds."
        )
    kinds = {
        (False, False): KFold,
        (True, False): StratifiedKFold,
        (False, True): GroupKFold,
        (True, True): StratifiedGroupKFold,
    }
    kind = kinds[stratify_by is not None, group_by is not None]
    try:
        folds = kind(num_folds, shuffle=True, random_state=seed)
        parts = list(folds.split(classes, classes, groups if group_by else None))
    except ValueError as error:
        raise UserError(f"data.num_folds={num_folds}: {error}") from error
    kept, left_out = parts[number]
    return {**splits, "train": train.select(kept), "validation": train.select(left_out)}


def _codes(dataset: Dataset, column: str | None) -> tuple[np.ndarray, list[Any]]:
    """Number the distinct values of a column; without a column, all rows are of one kind."""
    if column is None:
        return np.zeros(len(dataset), dtype=np.int64), [None]
    if column not in dataset.column_names:
        names = dataset.column_names
        raise UserError(
            f"The split train has no column {column!r} to carve by; its columns are "
            f"{', '.join(names)}{did_you_mean(column, names)}"
        )
    try:
        cells = pd.Series(dataset.with_format(None)[column][:], dtype=object)
        codes, values = pd.factorize(cells, use_na_sentinel=False)
    except TypeError as error:
        raise UserError(f"The column {column} holds lists or records: carve by another.") from error
    feature = dataset.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return codes, [
            feature.names[value] if value in range(len(feature.names)) else value
            for value in values
        ]
    return codes, list(values)


def _part_groups(
    codes: np.ndarray, fractions: Sequence[float], rng: np.random.Generator
) -> np.ndarray | None:
    """Give every row the number of its part, 0 for the rest; None where groups are too few."""
    sizes = np.bincount(codes)
    free = [int(group) for group in rng.permutation(len(sizes))]
    if len(free) <= len(fractions):
        return None
    part_of = np.zeros(len(sizes), dtype=np.int64)
    for part, fraction in enumerate(fractions, start=1):
        room, spare = fraction * len(codes), len(free) - (len(fractions) - part + 1)
        taken: list[int] = []
        for group in free:
            if len(taken) < spare and sizes[group] <= room:
                taken.append(group)
                room -= sizes[group]
        part_of[taken or [min(free, key=lambda group: sizes[group])]] = part
        free = [group for group in free if part_of[group] == 0]
    return part_of[codes]
