"""Questions, contexts, and the answers in them."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from hydralight.data.datamodule import Batch, DataModule, Purpose
from hydralight.data.padding import pad, pad_inputs
from hydralight.data.roles import check_text
from hydralight.errors import UserError

ANSWER = {"text", "answer_start"}


def encode_windows(
    rows: dict[str, list],
    indices: list[int],
    *,
    processor: PreTrainedTokenizerBase,
    max_length: int,
    doc_stride: int,
    windows_as_rows: bool,
) -> dict[str, list]:
    """Tokenize question and context; a long context becomes overlapping windows.

    A row is a window in training; in evaluation it is an example with the lists of its windows,
    so that its answer is sought in all of them at once. `start_positions` and `end_positions` are
    those of the answer's tokens, or of the first token where the window does not hold all of it.
    `starts` and `ends` are the characters of each context token, -1 for others.
    """
    answers = rows.get("answers")
    for row, context, one in zip(indices, rows["context"], answers or [], strict=False):
        if one is None or len(one["text"]) != len(one["answer_start"]):
            raise UserError(f"row {row + 1}: an answer lacks its text or its start")
        for text, start in zip(one["text"], one["answer_start"], strict=True):
            if context[start : start + len(text)] != text:
                raise UserError(
                    f"row {row + 1}: the answer {text[:40]!r} is not in the context at character "
                    f"{start}"
                )
    asked = [question.strip() for question in rows["question"]]
    lengths = [len(ids) for ids in processor(asked, verbose=False)["input_ids"]]
    more = processor.num_special_tokens_to_add(pair=True) - processor.num_special_tokens_to_add()
    if max(lengths) + more + doc_stride >= max_length:
        row = indices[lengths.index(max(lengths))]
        raise UserError(
            f"row {row + 1}: a question of {max(lengths)} tokens leaves no room for windows: raise "
            "data.max_length or lower data.doc_stride"
        )
    encoded = processor(
        asked,
        rows["context"],
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    names = [n for n in ("input_ids", "token_type_ids") if n in encoded]
    windows: list[dict[str, Any]] = []
    for number, row in enumerate(encoded["overflow_to_sample_mapping"]):
        sides = encoded.sequence_ids(number)
        spans = [
            span if side == 1 else (-1, -1)
            for span, side in zip(encoded["offset_mapping"][number], sides, strict=True)
        ]
        window: dict[str, Any] = {name: encoded[name][number] for name in names}
        window["starts"], window["ends"] = ([span[i] for span in spans] for i in (0, 1))
        if answers is not None:
            window["start_positions"], window["end_positions"] = answer_tokens(spans, answers[row])
        windows.append({"example": row, **window})
    if windows_as_rows:
        columns = {name: [w[name] for w in windows] for name in windows[0] if name != "example"}
        columns["row"] = [indices[w["example"]] for w in windows]
        lengths = [len(w["input_ids"]) for w in windows]
        return {**columns, "length": lengths, "too_long": [False] * len(windows)}
    grouped: dict[str, list] = {name: [[] for _ in indices] for name in windows[0]}
    for window in windows:
        for name, value in window.items():
            grouped[name][window["example"]].append(value)
    del grouped["example"]
    lengths = [max(len(ids) for ids in windows) for windows in grouped["input_ids"]]
    return {**grouped, "length": lengths, "too_long": [False] * len(indices), "row": indices}


def answer_tokens(spans: list[tuple[int, int]], answers: dict[str, list]) -> tuple[int, int]:
    """Return the first and last token of the first answer; (0, 0) where it is not all here."""
    if not answers["answer_start"]:
        return 0, 0
    text = answers["text"][0]  # tokenizers may drop the white space around it
    begin = answers["answer_start"][0] + len(text) - len(text.lstrip())
    end = begin + len(text.strip())
    inside = [i for i, (a, b) in enumerate(spans) if a >= 0 and a < end and b > begin]
    if not inside or spans[inside[0]][0] > begin or spans[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]


class QuestionAnsweringData(DataModule):
    """Data of extractive question answering: SQuAD's nested json, or flat rows.

    A batch holds `input_ids`, `attention_mask` (and `token_type_ids` where the model reads them)
    and, on the CPU's side of things, `starts` and `ends` of the tokens in the context's
    characters, each (windows, length); `start_positions` and `end_positions` (windows,); and in
    evaluation `windows`, the number of windows of each example.

    Args:
        max_length: Of a window, in tokens, question included.
        doc_stride: Tokens that neighbouring windows share.
        kwargs: Those of `DataModule`.
    """

    roles = ("id", "question", "context", "answers")
    text_roles = ("question", "context")
    targets = ("answers",)
    optional_roles = ("id",)
    encode = staticmethod(encode_windows)

    def __init__(self, *, max_length: int = 384, doc_stride: int = 128, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= doc_stride < max_length:
            raise UserError(f"data.doc_stride={doc_stride} should be below data.max_length.")
        self.max_length = max_length
        self.doc_stride = doc_stride

    def unfold(self, dataset: Dataset) -> Dataset:
        """Unfold SQuAD's nesting of articles, paragraphs and questions."""
        return unfold(dataset)

    def checked(self, dataset: Dataset, where: str) -> Dataset:
        """Check the texts, and the form of the answers."""
        for role in ("question", "context"):
            check_text(dataset, role, self.columns.get(role, role), where)
        answers = dataset.features.get("answers")
        if answers is not None and not (isinstance(answers, dict) and answers.keys() >= ANSWER):
            raise UserError(f"{where}: answers are {{text: [...], answer_start: [...]}}.")
        return dataset

    def prepared(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Refuse a slow tokenizer, which cannot tell which characters a token stands for."""
        if not processor.is_fast:
            raise UserError(
                f"{type(processor).__name__} cannot tell which characters a token stands for: use "
                "a checkpoint with a fast tokenizer (a tokenizer.json)."
            )
        return processor

    def encode_arguments(self, purpose: Purpose) -> dict[str, Any]:
        """Return the arguments of `encode_windows`."""
        return {
            "max_length": self.max_length,
            "doc_stride": self.doc_stride,
            "windows_as_rows": purpose == "train",
        }

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
        """Pad all windows with the tokenizer's padding token."""
        several = isinstance(rows[0]["input_ids"][0], list)
        counts = [len(row["input_ids"]) if several else 1 for row in rows]
        windows = [
            {name: value[i] if several else value for name, value in row.items()}
            for row, number in zip(rows, counts, strict=True)
            for i in range(number)
        ]
        batch = pad_inputs(windows, self.processor, self.pad_to_multiple_of, left=False)
        width = batch["input_ids"].shape[1]
        for side in ("starts", "ends"):
            batch[side] = pad([window[side] for window in windows], width, -1)
        for side in ("start_positions", "end_positions"):
            if side in windows[0]:
                batch[side] = torch.tensor([window[side] for window in windows])
        return {**batch, "windows": torch.tensor(counts)}

    @property
    def target_capacity(self) -> int:
        """Windows of a batch, each with one answer."""
        return self.batch_size


def unfold(rows: Dataset) -> Dataset:
    """Flatten SQuAD's own json to a row a question; other data sets stay as they are."""
    if "data" in rows.column_names and set(rows.column_names) <= {"data", "version"}:
        entries = rows["data"][:]
        if isinstance(entries[0], list):  # a row a file
            entries = list(chain.from_iterable(entries))
        articles = entries
        if "paragraphs" not in articles[0]:
            return Dataset.from_list(articles)  # flat already
    elif "paragraphs" in rows.column_names:
        articles = list(rows)
    else:
        return rows
    answers = {"text": List(Value("string")), "answer_start": List(Value("int64"))}
    names = ("id", "question", "context")
    features = Features({**{name: Value("string") for name in names}, "answers": answers})
    return Dataset.from_list(list(questions(articles)), features=features)


def questions(articles: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the questions of SQuAD's articles, each with its context and answers."""
    for article in articles:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answers = [] if qa.get("is_impossible") else qa.get("answers") or []
                yield {
                    "id": str(qa["id"]),
                    "question": qa["question"],
                    "context": paragraph["context"],
                    "answers": {
                        "text": [answer["text"] for answer in answers],
                        "answer_start": [answer["answer_start"] for answer in answers],
                    },
                }
