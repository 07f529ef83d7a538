"""Questions, contexts, and the answers in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hydralight.config.ranges import NotNegative, Positive
from hydralight.data.padding import pad, pad_inputs
from hydralight.data.read.squad import ANSWER, unfold
from hydralight.data.roles import Where, check_texts
from hydralight.data.shape import Batch, Columns, Purpose, Row, Shape
from hydralight.errors import UserError


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Shape):
    """Extractive question answering: SQuAD's nested json, or flat rows.

    A batch holds `input_ids`, `attention_mask` (and `token_type_ids` where the model reads them)
    and, on the CPU's side of things, `starts` and `ends` of the tokens in the context's
    characters, each (windows, length); `start_positions` and `end_positions` (windows,); and in
    evaluation `windows`, the number of windows of each example.

    Args:
        max_length: Of a window, in tokens, question included.
        doc_stride: Tokens that neighbouring windows share.
    """

    max_length: Positive = 384
    doc_stride: NotNegative = 128

    roles = ("id", "question", "context", "answers")
    text_roles = distinct_roles = ("question", "context")
    targets = ("answers",)
    optional_roles = ("id",)
    unfold = staticmethod(unfold)

    def __post_init__(self) -> None:
        if self.doc_stride >= self.max_length:
            raise UserError(f"data.doc_stride={self.doc_stride} should be below data.max_length.")

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Check the texts, and the form of the answers."""
        check_texts(rows, self.text_roles, where)
        answers = rows.features.get("answers")
        if answers is not None and not (
            isinstance(answers, dict)
            and answers.keys() >= ANSWER
            and all(hasattr(answers[field], "feature") for field in ANSWER)
        ):
            raise UserError(f"{where}: answers are {{text: [...], answer_start: [...]}}.")
        return rows

    def check_targets(self, rows: Columns) -> None:
        """Look for the answers in their contexts."""
        check_answers(rows["context"], rows["answers"], list(range(len(rows["context"]))))

    def ready(self, processor: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Refuse a slow tokenizer, which cannot tell which characters a token stands for."""
        if not processor.is_fast:
            raise UserError(
                f"{type(processor).__name__} cannot tell which characters a token stands for: use "
                "a checkpoint with a fast tokenizer (a tokenizer.json)."
            )
        return processor

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Tokenize question and context; a long context becomes overlapping windows.

        A row is a window in training; in evaluation it is an example with the lists of its windows,
        so that its answer is sought in all of them at once. `start_positions` and `end_positions`
        are those of the answer's tokens, or of the first token where the window does not hold all
        of it. `starts` and `ends` are the characters of each context token, -1 for others.
        """
        answers = rows.get("answers") if purpose != "predict" else None
        check_answers(rows["context"], answers or [], indices)
        windows = self._windows(rows, indices, processor)
        if answers is not None:
            for window in windows:
                spans = list(zip(window["starts"], window["ends"], strict=True))
                places = answer_tokens(spans, answers[window["example"]])
                window["start_positions"], window["end_positions"] = places
        if purpose == "train":
            columns = {name: [w[name] for w in windows] for name in windows[0] if name != "example"}
            lengths = [len(w["input_ids"]) for w in windows]
            return {**columns, "row": [indices[w["example"]] for w in windows], "length": lengths}
        grouped: Columns = {name: [[] for _ in indices] for name in windows[0] if name != "example"}
        for window in windows:
            for name, values in grouped.items():
                values[window["example"]].append(window[name])
        lengths = [max(len(ids) for ids in row) for row in grouped["input_ids"]]
        return {**grouped, "length": lengths}

    def _windows(self, rows: Columns, indices: list[int], processor: Any) -> list[Row]:
        """Return the windows of all rows, each with the number of its `example` in the batch."""
        asked = [question.strip() for question in rows["question"]]
        lengths = [len(ids) for ids in processor(asked, verbose=False)["input_ids"]]
        specials = processor.num_special_tokens_to_add
        if max(lengths) + specials(pair=True) - specials() + self.doc_stride >= self.max_length:
            row = indices[lengths.index(max(lengths))]
            raise UserError(
                f"row {row + 1}: a question of {max(lengths)} tokens leaves no room for windows: "
                "raise data.max_length or lower data.doc_stride"
            )
        encoded = processor(
            asked,
            rows["context"],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        names = [n for n in ("input_ids", "token_type_ids") if n in encoded]
        windows: list[Row] = []
        for number, row in enumerate(encoded["overflow_to_sample_mapping"]):
            sides = encoded.sequence_ids(number)
            spans = [
                span if side == 1 else (-1, -1)
                for span, side in zip(encoded["offset_mapping"][number], sides, strict=True)
            ]
            window: Row = {"example": row, **{name: encoded[name][number] for name in names}}
            window["starts"], window["ends"] = ([span[i] for span in spans] for i in (0, 1))
            windows.append(window)
        return windows

    def size(self, rows: Dataset) -> np.ndarray:
        """Return the tokens of each window; of an example, those of its longest."""
        return rows["length"][:][:, None]

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Pad all windows with the tokenizer's padding token."""
        several = isinstance(rows[0]["input_ids"][0], list)
        counts = [len(row["input_ids"]) if several else 1 for row in rows]
        windows = [
            {name: value[i] if several else value for name, value in row.items()}
            for row, number in zip(rows, counts, strict=True)
            for i in range(number)
        ]
        batch = pad_inputs(windows, processor, pad_to_multiple_of, left=False)
        width = batch["input_ids"].shape[1]
        for side in ("starts", "ends"):
            batch[side] = pad([window[side] for window in windows], width, -1)
        for side in ("start_positions", "end_positions"):
            if side in windows[0]:
                batch[side] = torch.tensor([window[side] for window in windows])
        return {**batch, "windows": torch.tensor(counts)}


def check_answers(contexts: list[str], answers: list, indices: list[int]) -> None:
    """Refuse answers that are not where they say they are."""
    for row, context, one in zip(indices, contexts, answers, strict=False):
        if one is None or len(one["text"]) != len(one["answer_start"]):
            raise UserError(f"row {row + 1}: an answer lacks its text or its start")
        for text, start in zip(one["text"], one["answer_start"], strict=True):
            if context[start : start + len(text)] != text:
                raise UserError(
                    f"row {row + 1}: the answer {text[:40]!r} is not in the context at character "
                    f"{start}"
                )


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
