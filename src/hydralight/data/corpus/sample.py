"""A sample of a corpus in the place of its training rows, before these are read."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from hydralight.data.corpus.inputs import inputs_of
from hydralight.data.corpus.pictures import column_of
from hydralight.data.corpus.sampling import ROWS, sample
from hydralight.data.mix import Mix, folder_of
from hydralight.data.read.images import located
from hydralight.data.shape import Shape
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.data.stream.own import NAME, OwnRows, first, splits_of
from hydralight.errors import UserError
from hydralight.stores.listing import named

if TYPE_CHECKING:
    from hydralight.data.corpus.corpus import Corpus


def sampled(
    source: Source,
    splits: Splits,
    mix: Mix,
    shape: Shape,
    corpus: "Corpus",
    most: int | None = None,
) -> tuple[Source, Splits, Mix, Shape]:
    """Return a source that has a sample in the place of train, of which nothing is cut off.

    Args:
        source: Where the rows are.
        splits: How train would be parted.
        mix: What it would be mixed with.
        shape: What an example is.
        corpus: How it is prepared or streamed.
        most: Rows of the sample; 10,000 unless said.

    Raises:
        UserError: train would be parted, or its labels are not known before all rows have been
            read.
    """
    key = corpus.key
    if splits.fold is not None:
        raise UserError(f"data.fold parts data that is encoded as a whole: leave out {key}.")
    if shape.file_roles and corpus.streaming:
        raise UserError(f"{key} is for texts, and not for images: leave it out.")
    if shape.file_roles and not (corpus.min_chars is corpus.max_chars is None):
        raise UserError("data.min_chars and data.max_chars are of texts: leave them out.")
    if shape.file_roles and source.metadata is not None:
        raise UserError(
            "data.metadata names images of a folder, which are not prepared: name tar shards of "
            "them, or a table with a column of them."
        )
    regression = getattr(shape, "problem_type", "") == "regression"
    if getattr(shape, "labels", ()) is None and not regression:
        raise UserError(f"{key} reads rows as they come: name all labels in data.labels.")
    own = {field.name: getattr(source, field.name) for field in fields(source)}
    paths = source.path if isinstance(source.path, Mapping) else {"train": source.path}
    train = paths.get("train")
    shown = named(train) if isinstance(train, str) else [named(one) for one in train or ()]
    own["path"] = {**paths, "train": f"a sample of {shown or NAME}"}  # as messages call it
    whole = replace(splits, validation_fraction=0.0, test_fraction=0.0)
    prepared = corpus.prepared
    sets = {
        name: {**one, "prepared": prepared and folder_of(name, one, prepared)}
        for name, one in mix.sets.items()
    }
    rows = Sampled(**own, origin=source, corpus=corpus, most=most or ROWS)
    return rows, whole, replace(mix, mix=sets), shape


@dataclass(frozen=True, kw_only=True)
class Sampled(Source):
    """The same source with a sample of train, from all over its files.

    It is the one that is kept with a corpus, if that is prepared. There is none where the files are
    gone, of one that an earlier version prepared.
    """

    origin: Source
    corpus: "Corpus"
    most: int

    def further(self, one: Mapping[str, Any]) -> Source:
        """Return where the rows of a further set are: a sample of one that is prepared."""
        origin = self.origin.further(one)
        if "prepared" not in one:  # it is evaluated
            return origin
        own = {field.name: getattr(origin, field.name) for field in fields(origin)}
        own["path"] = {}
        corpus = self.corpus.at(one["prepared"])
        return Sampled(**own, origin=origin, corpus=corpus, most=self.most)

    def read(self, shape: Shape | None = None, known: Any = ()) -> dict[str, Dataset]:
        """Return the splits."""
        found: dict[str, Dataset] = {}
        inputs = inputs_of(self.origin) if self.corpus.streaming else None
        if isinstance(inputs, OwnRows):
            own = splits_of(inputs.source)
            del own["train"]
            rows = first(inputs.source)
            if own:
                found = replace(self.origin, source=lambda: own).read(shape, known)
            return {
                "train": rows if shape is None or not shape.unfold else shape.unfold(rows),
                **found,
            }
        if inputs is None:
            train = self.corpus.sample(self.origin, self.most)
        else:
            train = sample(inputs, self.most, True)
        if train is not None:
            train = train if shape is None or not shape.unfold else shape.unfold(train)
            for role in () if shape is None else shape.file_roles:
                column = column_of(role, self.origin.columns_of("train"), train)
                train = located(train, column, self.origin.folder("train"))
            found["train"] = train
        others = {split: one for split, one in self.path.items() if split != "train" and one}
        if others:
            found |= replace(self.origin, path=others).read(shape, known)
        return found
