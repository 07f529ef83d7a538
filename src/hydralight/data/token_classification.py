"""Sentences as words, and a tag for each word."""

from collections.abc import Sequence
from typing import Any

import datasets
from datasets import Dataset
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

from hydralight.data.datamodule import Batch, DataModule, Purpose
from hydralight.data.labels import distinct
from hydralight.data.padding import pad, pad_inputs
from hydralight.data.roles import check_list, check_text, is_text
from hydralight.errors import UserError, did_you_mean


def encode_words(
    rows: dict[str, list],
    indices: list[int],
    *,
    processor: PreTrainedTokenizerBase,
    label_names: list[str] | None,
    label_all_tokens: bool,
    max_length: int,
) -> dict[str, list]:
    """Tokenize words, and give the number of a word's tag to its first piece (or to all).

    `word_ids` says which word a piece belongs to; -1 where to none. A word may have no piece.
    """
    options = {"is_split_into_words": True, "return_attention_mask": False, "verbose": False}
    words = rows["tokens"]
    whole = processor(words, **options)["input_ids"]
    cut = processor(words, truncation=True, max_length=max_length, **options)
    ids = {name: number for number, name in enumerate(label_names or ())}
    # the later pieces of an entity's first word are inside it
    inside = [ids.get("I" + name[1:], n) if name[:2] == "B-" else n for name, n in ids.items()]
    encoded: dict[str, list] = {"input_ids": cut["input_ids"], "word_ids": []}
    if "tags" in rows:
        encoded["labels"] = []
    for row in range(len(words)):
        places = cut.word_ids(row)
        encoded["word_ids"].append([-1 if place is None else place for place in places])
        if "tags" not in rows:
            continue
        tags, labels, previous = rows["tags"][row], [], None
        for tag in tags:
            if tag not in ids:
                known = f"{did_you_mean(tag, ids)} (there are: {', '.join(ids)}; data.labels names"
                raise UserError(
                    f"row {indices[row] + 1}: the tag {tag!r} is not known{known} others)"
                )
        for place in places:
            if place is None:
                labels.append(-100)
            elif place != previous:
                labels.append(ids[tags[place]])
            else:
                labels.append(inside[ids[tags[place]]] if label_all_tokens else -100)
            previous = place
        encoded["labels"].append(labels)
    lengths = [len(row) for row in encoded["input_ids"]]
    too_long = [len(row) > max_length for row in whole]
    return {**encoded, "length": lengths, "too_long": too_long, "row": indices}


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


class TokenClassificationData(DataModule):
    """Data of token classification, such as named entities or parts of speech.

    A batch holds `input_ids`, `attention_mask`, `word_ids` (-1 where no word) and `labels` (-100
    where none), each (batch, length). IOB1 becomes IOB2.

    Args:
        max_length: In tokens; longer sentences fall under `too_long`.
        label_all_tokens: Whether all pieces of a word are labelled, not only the first.
        labels: All tags, in the order of their numbers; unless said, what the source declares, or
            the distinct ones of the training split.
        kwargs: Those of `DataModule`.
    """

    roles = ("tokens", "tags")
    text_roles = ("tokens",)
    targets = ("tags",)
    encode = staticmethod(encode_words)

    def __init__(
        self,
        *,
        max_length: int = 512,
        label_all_tokens: bool = False,
        labels: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length
        self.label_all_tokens = label_all_tokens
        self._labels = [str(label) for label in labels] if labels else None
        self._declared: list[str] = []

    @property
    def label_names(self) -> list[str]:  # type: ignore[override]
        """The tags in the order of their numbers."""
        if self._labels is None:
            train = self.sources().get("train")
            if train is None:
                raise UserError("the tags are not known without training data: set data.labels.")
            there = distinct(train, "tags")
            begun = [name for name in self._declared if name in there or name[:2] != "B-"]
            self._labels = [*begun, *(name for name in there if name not in begun)]
        return self._labels

    def checked(self, dataset: Dataset, where: str) -> Dataset:
        """Check that every word has a tag; name the tags, in IOB2."""
        if is_text(dataset.features["tokens"]):  # to be predicted
            check_text(dataset, "tokens", self.columns.get("tokens", "tokens"), where)
            return dataset.map(_split_words, batched=True, desc="words")
        roles = [role for role in self.roles if role in dataset.column_names]
        for role in roles:
            check_list(dataset, role, self.columns.get(role, role), where)
        if "tags" not in roles:
            return dataset
        feature = dataset.features["tags"].feature
        names = feature.names if isinstance(feature, datasets.ClassLabel) else None
        if names:
            self._declared = list(names)
        features = dataset.features.copy()
        features["tags"] = datasets.List(datasets.Value("string"))
        try:
            return dataset.map(
                _tags,
                batched=True,
                fn_kwargs={"names": names},
                features=features,
                desc="tags",
                with_indices=True,
            )
        except UserError as error:
            raise UserError(f"{where}, {error}") from error

    def prepared(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Refuse a slow tokenizer, which cannot tell which word a token comes from."""
        if not processor.is_fast:
            raise UserError(
                f"{type(processor).__name__} cannot tell which word a token comes from: use a "
                "checkpoint with a fast tokenizer (a tokenizer.json)."
            )
        pieces = processor.backend_tokenizer.pre_tokenizer
        if isinstance(pieces, ByteLevel) and not pieces.add_prefix_space:
            raise UserError(
                "the tokenizer has to put a space before each word: "
                "+tokenizer.options={add_prefix_space: true}."
            )
        return processor

    def encode_arguments(self, purpose: Purpose) -> dict[str, Any]:
        """Return the arguments of `encode_words`."""
        return {
            "label_names": self.label_names if purpose != "predict" else None,
            "label_all_tokens": self.label_all_tokens,
            "max_length": self.max_length,
        }

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
        """Pad inputs with the tokenizer's padding token, labels with -100."""
        batch = pad_inputs(rows, self.processor, self.pad_to_multiple_of)
        width, left = batch["input_ids"].shape[1], self.processor.padding_side == "left"
        for name, value in {"word_ids": -1, "labels": -100}.items():
            if name in rows[0]:
                batch[name] = pad([row[name] for row in rows], width, value, left)
        return batch

    @property
    def target_capacity(self) -> int:
        """Tokens of the longest sentences that fit into a batch."""
        return self.batch_size * self.max_length


def _split_words(rows: dict[str, list]) -> dict[str, list]:
    return {"tokens": [text.split() for text in rows["tokens"]]}


def _tags(rows: dict[str, list], indices: list[int], names: list[str] | None) -> dict[str, list]:
    mended = []
    for row, (tokens, tags) in enumerate(zip(rows["tokens"], rows["tags"], strict=True)):
        if len(tokens) != len(tags):
            raise UserError(
                f"row {indices[row] + 1}: there are {len(tokens)} tokens and {len(tags)} tags."
            )
        named = [names[tag] if names is not None else str(tag) for tag in tags]
        mended.append(to_iob2(named))
    return {"tags": mended}
