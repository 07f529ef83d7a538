"""Sentences as words, and a tag for each word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import datasets
import numpy as np
from datasets import Dataset
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

from hydralight.config.ranges import Positive
from hydralight.data.label_column import distinct
from hydralight.data.labels import ordered_values
from hydralight.data.naming import Labels, as_said, called, in_order, names_of, unknown, written
from hydralight.data.padding import pad, pad_inputs
from hydralight.data.roles import Where, check_list, check_text, is_text
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TokenClassification(Shape):
    """Words and their tags, such as named entities or parts of speech. IOB1 becomes IOB2.

    A batch holds `input_ids`, `attention_mask`, `word_ids` (-1 where no word) and `labels` (-100
    where none), each (batch, length).

    Args:
        max_length: In tokens; longer sentences fall under `too_long`.
        label_all_tokens: Whether all pieces of a word are labelled, not only the first.
        labels: All tags, in the order of their numbers, or a mapping from what stands in the file
            to tags; unless said, what the source declares, or the distinct ones of the training
            split.
    """

    max_length: Positive = 512
    label_all_tokens: bool = False
    labels: Labels = None

    roles = ("tokens", "tags")
    text_roles = ("tokens",)
    targets = ("tags",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", as_said(self.labels))

    @property
    def label_names(self) -> list[str]:
        """The tags in the order of their numbers."""
        if self.labels is None:
            raise UserError("the tags are not known without training data: set data.labels.")
        return names_of(self.labels)

    @property
    def label_values(self) -> dict[str, str] | None:
        """What stands in files to the labels' names; None where these themselves do."""
        return dict(self.labels) if isinstance(self.labels, Mapping) else None

    @property
    def target_capacity(self) -> int:
        """Tokens of the longest sentence."""
        return self.max_length

    def declared(self, rows: Dataset, where: Where) -> Sequence[str]:
        """Return the names of a `ClassLabel`."""
        feature = getattr(rows.features.get("tags"), "feature", None)
        return feature.names if isinstance(feature, datasets.ClassLabel) else ()

    def named(self, rows: Mapping[str, Dataset], where: Mapping[str, Where]) -> Self:
        """Return the shape with the number that each tag stands for, where files hold numbers."""
        there = [split for split, one in rows.items() if _is_list(one.features.get("tags"))]
        if not isinstance(self.labels, list) or not there:
            return self
        classes = self.declared(rows[there[0]], where[there[0]])
        found = {split: classes or _numbers(rows[split]) for split in there}
        values = ordered_values(found, self.labels)
        place = where[there[0]]
        labels = in_order(self.labels, values, place, declared=bool(classes), gaps=True)
        return self if labels is None else replace(self, labels=labels)

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Check that every word has a tag; name the tags, in IOB2."""
        if is_text(rows.features["tokens"]) and "tags" not in rows.column_names:  # to be predicted
            check_text(rows, "tokens", where)
            return rows.map(_split_words, batched=True, desc="words")
        roles = [role for role in self.roles if role in rows.column_names]
        for role in roles:
            check_list(rows, role, where, of_texts=role == "tokens")
        if "tags" not in roles:
            return rows
        features = rows.features.copy()
        features["tags"] = datasets.List(datasets.Value("string"))
        try:
            return rows.map(
                _tags,
                batched=True,
                fn_kwargs={
                    "names": called(self.declared(rows, where), self.labels) or None,
                    "labels": self.labels if isinstance(self.labels, Mapping) else {},
                },
                features=features,
                desc="tags",
                with_indices=True,
            )
        except UserError as error:
            raise UserError(f"{where}, {error}") from error

    def settled(self, train: Dataset | None, declared: Sequence[str]) -> Self:
        """Return the shape with its tags: the declared ones that are used, then the others."""
        if self.labels is not None or train is None or "tags" not in train.column_names:
            return self
        there = distinct(train, "tags")
        begun = [name for name in declared if name in there or name[:2] != "B-"]
        return replace(self, labels=[*begun, *(name for name in there if name not in begun)])

    def ready(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Refuse a tokenizer that cannot tell which word a token comes from."""
        if not processor.is_fast:
            raise UserError(
                f"{type(processor).__name__} cannot tell which word a token comes from: use a "
                "checkpoint with a fast tokenizer (a tokenizer.json)."
            )
        pieces = processor.backend_tokenizer.pre_tokenizer
        if isinstance(pieces, ByteLevel) and not pieces.add_prefix_space:
            raise UserError(
                "the tokenizer has to put a space before each word: "
                "tokenizer.options={add_prefix_space: true}."
            )
        return processor

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize words, and give the number of a word's tag to its first piece (or to all).

        `word_ids` says which word a piece belongs to; -1 where to none. A word may have no piece.
        """
        options = {"is_split_into_words": True, "return_attention_mask": False, "verbose": False}
        words = rows["tokens"]
        whole = processor(words, **options)["input_ids"]
        cut = processor(words, truncation=True, max_length=self.max_length, **options)
        places = [cut.word_ids(row) for row in range(len(words))]
        encoded: Columns = {"input_ids": cut["input_ids"]}
        encoded["word_ids"] = [[-1 if p is None else p for p in row] for row in places]
        if "tags" in rows and purpose != "predict":
            ids = {name: number for number, name in enumerate(self.label_names)}
            encoded["labels"] = [
                self._labels_of(row_places, tags, ids, index)
                for row_places, tags, index in zip(places, rows["tags"], indices, strict=True)
            ]
        lengths = [len(row) for row in encoded["input_ids"]]
        too_long = [len(row) > self.max_length for row in whole]
        return {**encoded, "length": lengths, "too_long": too_long}

    def _labels_of(
        self, places: list[int | None], tags: list[str], ids: dict[str, int], index: int
    ) -> list[int]:
        """Return the labels of a sentence's pieces."""
        for tag in tags:
            if tag not in ids:
                raise UserError(f"row {index + 1}: {unknown('tag', tag, self.labels)}")
        labels, previous = [], None
        for place in places:
            if place is None:
                labels.append(-100)
            elif place != previous:
                labels.append(ids[tags[place]])
            elif self.label_all_tokens:
                tag = tags[place]  # the later pieces of an entity's first word are inside it
                labels.append(ids.get("I" + tag[1:], ids[tag]) if tag[:2] == "B-" else ids[tag])
            else:
                labels.append(-100)
            previous = place
        return labels

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of each sentence."""
        return rows["length"][:][:, None]

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad inputs with the tokenizer's padding token, labels with -100."""
        batch = pad_inputs(rows, processor, pad_to_multiple_of)
        width, left = batch["input_ids"].shape[1], processor.padding_side == "left"
        for name, value in {"word_ids": -1, "labels": -100}.items():
            if name in rows[0]:
                batch[name] = pad([row[name] for row in rows], width, value, left)
        return batch


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Begin every entity with B-, as IOB1 does only behind another one of its type.

    IOB2, BIOES and tags without prefixes stay as they are.
    """
    mended, previous = [], "O"
    for tag in tags:
        inside_same = previous[:2] in ("B-", "I-") and previous[2:] == tag[2:]
        mended.append(f"B-{tag[2:]}" if tag[:2] == "I-" and not inside_same else tag)
        previous = tag
    return mended


def _split_words(rows: dict[str, list]) -> dict[str, list]:
    return {"tokens": [text.split() for text in rows["tokens"]]}


def _is_list(feature: Any) -> bool:
    return isinstance(feature, datasets.List | datasets.LargeList)


def _numbers(rows: Dataset) -> list[str]:
    """Return the distinct tags as they stand in a file."""
    found = {value for tags in rows["tags"][:] for value in tags or () if value is not None}
    return sorted(map(written, found))


def _tags(
    rows: dict[str, list], indices: list[int], names: list[str] | None, labels: Mapping[str, str]
) -> dict[str, list]:
    mended = []
    for row, (tokens, tags) in enumerate(zip(rows["tokens"], rows["tags"], strict=True)):
        if len(tokens) != len(tags):
            raise UserError(
                f"row {indices[row] + 1}: there are {len(tokens)} tokens and {len(tags)} tags."
            )
        if names is not None:
            named = [names[tag] for tag in tags]
        else:
            named = [labels.get(written(tag), written(tag)) for tag in tags]
        mended.append(to_iob2(named))
    return {"tags": mended}
