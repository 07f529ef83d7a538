"""From a data set's settings to its splits, with columns named by role."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import datasets
from datasets import Dataset
from lightning.pytorch import LightningDataModule

from hydralight.data.roles import Columns, check_text, rename_roles
from hydralight.data.sources import load_splits, without_bars
from hydralight.data.splits import carve, fold
from hydralight.errors import UserError, did_you_mean


class SourceData(LightningDataModule):
    """Where the rows come from; a subclass names the roles that its task's columns play.

    Args:
        path: Hub id, local file, glob or folder; or a mapping from split to such.
        name: Config name of a hub data set.
        revision: Branch, tag or commit of a hub data set.
        splits: For hub data: split to HF's split expression, such as `{train: "train[:1%]"}`.
            Local data is used whole, or sliced in its own path: `my.csv[:100]`.
        columns: Role to column name, where they differ; several names make a list.
        reader: Options for the `datasets` builder of local files, such as `{sep: ";"}`.
        validation_fraction: Part of train that becomes validation where the source has none.
        test_fraction: The same for test.
        split_seed: Seed of that division, of folds and of the mix.
        stratify_by: Column whose values keep their proportions in it.
        group_by: Column whose groups stay together in it.
        fold: Number of the fold of train to validate on, instead of the validation split.
        num_folds: How many folds there are.
        extra_eval: Further sets to evaluate, by name: a path, or a mapping of `path`, `name`,
            `revision`, `split`, `columns` and `reader` (the last two are these ones' unless said).
            Their metrics are `val/<name>/…`.
        mix: Further training sets, by name: such a mapping with a `weight`, the probability of
            drawing an example from it; the rest of 1 is this data's own.
        stopping_strategy: When the mix ends: with the first set that is used up, or with the last
            (`datasets.interleave_datasets`).
    """

    roles: ClassVar[tuple[str, ...]]
    targets: ClassVar[tuple[str, ...]] = ()  # the roles that prediction does without
    optional_roles: ClassVar[tuple[str, ...]] = ()
    text_roles: ClassVar[tuple[str, ...]]  # those whose texts train a tokenizer

    def __init__(
        self,
        *,
        path: str | Mapping[str, Any] | None = None,
        name: str | None = None,
        revision: str | None = None,
        splits: Mapping[str, str] | None = None,
        columns: Columns | None = None,
        reader: Mapping[str, Any] | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int = 42,
        stratify_by: str | None = None,
        group_by: str | None = None,
        fold: int | None = None,
        num_folds: int = 5,
        extra_eval: Mapping[str, Any] | None = None,
        mix: Mapping[str, Any] | None = None,
        stopping_strategy: Literal["first_exhausted", "all_exhausted"] = "first_exhausted",
    ) -> None:
        super().__init__()
        self.path = path
        self.name = name
        self.revision = revision
        self.source_splits = splits
        # a recipe's optional column is unset by null
        self.columns = {role: names for role, names in (columns or {}).items() if names is not None}
        self.reader = dict(reader or {})
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.stratify_by = stratify_by
        self.group_by = group_by
        self.fold = fold
        self.num_folds = num_folds
        self.extra_eval = other_sets("data.extra_eval", extra_eval, ("split",))
        self.mix = other_sets("data.mix", mix, ("split", "weight"))
        self.stopping_strategy = stopping_strategy
        self.cut: set[str] = set()  # the splits whose rows are no longer numbered as in the source
        self.validation_split = "validation"
        self._sources: dict[str, Dataset] | None = None

    # ------------------------------------------------------------ what a subclass may change

    def read_sources(self) -> dict[str, Dataset]:
        """Return the source's splits with its own columns; override it for data of your own."""
        if self.path is None:
            raise UserError("data.path has no value: give data.path=<hub id, file or folder>.")
        if isinstance(self.path, list):
            self.path = {"train": self.path}
        known = ("train", "validation", "test", self.validation_split)
        for split in self.path if isinstance(self.path, Mapping) else ():
            if split not in known:
                raise UserError(
                    f"data.path names the split '{split}'{did_you_mean(split, known)} (there are: "
                    f"{', '.join(dict.fromkeys(known))})"
                )
        return self.load(
            self.path, name=self.name, revision=self.revision, splits=self.source_splits
        )

    def load(self, path: Any, **kwargs: Any) -> dict[str, Dataset]:
        """Read splits from files or the hub; a subclass may read other formats too."""
        return load_splits(path, **{"reader": self.reader, "unfold": self.unfold, **kwargs})

    def unfold(self, dataset: Dataset) -> Dataset:
        """Return the rows of a format that nests them; others stay as they are."""
        return dataset

    def checked(self, dataset: Dataset, where: str) -> Dataset:
        """Return rows, named by role, as `encode` takes them, and refuse those it cannot use."""
        for role in self.roles:
            if role in dataset.column_names:
                check_text(dataset, role, self.columns.get(role, role), where)
        return dataset

    # ------------------------------------------------------------ the splits

    def sources(self) -> dict[str, Dataset]:
        """Return the splits with their columns named by role, checked and carved; read once."""
        if self._sources is None:
            splits = self.read_sources()
            by = [column for column in (self.stratify_by, self.group_by) if column]
            named = {}
            for split, dataset in splits.items():
                where = self.path if not isinstance(self.path, Mapping) else self.path.get(split)
                if isinstance(where, Mapping):
                    where = " and ".join(map(str, where.values()))
                columns = by if split == "train" else []
                named[split] = self.named(dataset, self.columns, f"{where} ({split})", columns)
            parted = self._parted(named)
            self.cut = {s for s in parted if s not in named or len(parted[s]) != len(named[s])}
            extra = set(by) - set(self.roles)
            self._sources = {
                split: dataset.remove_columns([c for c in dataset.column_names if c in extra])
                for split, dataset in parted.items()
            }
            for name, one in self.extra_eval.items():
                self._sources[name] = self._other("data.extra_eval", name, one)
            if self.mix and "train" in self._sources:
                self._sources["train"] = self._mixed(self._sources["train"])
        return self._sources

    def named(
        self, dataset: Dataset, columns: Columns, where: str, more: Sequence[str] = ()
    ) -> Dataset:
        """Name a split's columns by role, and check its rows."""
        if len(dataset) == 0:
            raise UserError(f"{where} is empty.")
        roles = list(dict.fromkeys([*self.roles, *more]))
        with without_bars():
            renamed = rename_roles(dataset, columns, roles, where, self.optional_roles)
            return self.checked(renamed, where)

    def _parted(self, splits: dict[str, Dataset]) -> dict[str, Dataset]:
        by = {"stratify_by": self.stratify_by, "group_by": self.group_by}
        if self.fold is not None and "train" in splits:  # an evaluation of other data has none
            splits = fold(
                splits, number=self.fold, num_folds=self.num_folds, seed=self.split_seed, **by
            )
        return carve(
            splits,
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
            **by,
        )

    def _other(self, argument: str, name: str, one: Mapping[str, Any]) -> Dataset:
        """Read one set of `extra_eval` or `mix`."""
        if name in ("train", "validation", "test", "predict"):
            raise UserError(f"{argument}.{name}: a split has that name; give the set another.")
        split = one.get("split")
        reader = {"reader": one["reader"]} if "reader" in one else {}
        found = self.load(one["path"], name=one.get("name"), revision=one.get("revision"), **reader)
        if split is None:
            order = ("train",) if argument == "data.mix" else ("validation", "test", "train")
            split = next((s for s in order if s in found), next(iter(found)))
        if split not in found:
            raise UserError(f"{argument}.{name} has no split '{split}': {', '.join(found)}.")
        columns = one.get("columns") or self.columns
        return self.named(found[split], columns, f"{argument}.{name} ({one['path']})")

    def _mixed(self, train: Dataset) -> Dataset:
        weights = [one.get("weight") for one in self.mix.values()]
        numbers = [float(w) for w in weights if isinstance(w, int | float) and w > 0]
        if len(numbers) < len(weights) or sum(numbers) >= 1:
            raise UserError(
                "data.mix: the weights are the probabilities of drawing from these sets: above 0 "
                f"each, below 1 in all, not {', '.join(map(str, weights))}."
            )
        others = [self._other("data.mix", name, one) for name, one in self.mix.items()]
        roles = train.column_names
        for name, other in zip(self.mix, others, strict=True):
            if set(other.column_names) != set(roles):
                raise UserError(
                    f"data.mix.{name} has {', '.join(other.column_names)}, and the training data "
                    f"{', '.join(roles)}: name their columns in data.mix.{name}.columns."
                )
        return datasets.interleave_datasets(
            [train, *(other.select_columns(roles).cast(train.features) for other in others)],
            probabilities=[1 - sum(numbers), *numbers],
            seed=self.split_seed,
            stopping_strategy=self.stopping_strategy,
        )

    def texts(self) -> Iterator[str]:
        """Yield the texts of the training split, role by role, to train a tokenizer on."""
        train = self.sources()["train"]
        for role in self.text_roles:
            if role in train.column_names:
                for batch in train.select_columns([role]).iter(1000):
                    for value in batch[role]:
                        yield value if isinstance(value, str) else " ".join(value)


def other_sets(
    argument: str, sets: Mapping[str, Any] | None, more: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Check the settings of further data sets; a path alone is its set's `path`."""
    known = ("path", "name", "revision", "columns", "reader", *more)
    checked: dict[str, dict[str, Any]] = {}
    if sets is not None and not isinstance(sets, Mapping):
        raise UserError(f"{argument} should name its sets: {{other: other.csv}}.")
    for name, value in (sets or {}).items():
        if not isinstance(value, str | Mapping):
            raise UserError(f"{argument}.{name}={value} should be a path, or {{path: …}}.")
        one = {"path": value} if isinstance(value, str) else dict(value)
        for key in one:
            if key not in known:
                raise UserError(
                    f"{argument}.{name}: there is no '{key}'{did_you_mean(key, known)} "
                    f"(there are: {', '.join(known)})"
                )
        if one.get("path") is None:
            raise UserError(f"{argument}.{name} needs a path.")
        checked[name] = one
    return checked
