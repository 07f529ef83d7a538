"""Windows over a context, and the answers in them."""

import copy
import json
import re
from itertools import chain, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from shaping import batch_of, task_of, wordpiece
from standins import article, tokenizer

from hydralight.data.shapes.question_answering import QuestionAnswering
from hydralight.data.source import Source
from hydralight.errors import UserError
from hydralight.tasks.question_answering import QuestionAnsweringTask

CONTEXT = " ".join(article(i)["article"] for i in range(3)) + " Été 🎉 naïve."
QUESTION = " Who saw the storm? "
STRIDE = 12


def windows(answers, windows_as_rows=True, max_length=40, stride=STRIDE, question=QUESTION):
    rows = {"question": [question] * len(answers), "context": [CONTEXT] * len(answers)}
    rows["answers"] = [
        {"text": [CONTEXT[a:b] for a, b in spans], "answer_start": [a for a, _ in spans]}
        for spans in answers
    ]
    shape = QuestionAnswering(max_length=max_length, doc_stride=stride)
    purpose = "train" if windows_as_rows else "evaluate"
    return shape.encode(rows, list(range(len(answers))), tokenizer(), purpose)


def test_windows_cover_the_context():
    encoded = windows([[]])
    parts = [
        [(i, a, b) for i, a, b in zip(*window, strict=True) if a >= 0]
        for window in zip(encoded["input_ids"], encoded["starts"], encoded["ends"], strict=True)
    ]
    assert len(parts) > 4
    assert max(encoded["length"]) == 40
    assert all(before[-STRIDE:] == after[:STRIDE] for before, after in pairwise(parts))
    joined = parts[0] + [token for part in parts[1:] for token in part[STRIDE:]]
    whole = tokenizer()(CONTEXT, add_special_tokens=False, return_offsets_mapping=True)
    assert [i for i, *_ in joined] == whole["input_ids"]
    assert [(a, b) for _, a, b in joined] == whole["offset_mapping"]
    question = tokenizer()(QUESTION.strip())["input_ids"]
    assert all(ids[: len(question)] == question for ids in encoded["input_ids"])


def test_answers_are_found_in_the_windows_that_hold_them():
    words = [word.span() for word in re.finditer(r"\S+", CONTEXT)]
    pairs = [(first, last) for (first, _), (_, last) in pairwise(words)]
    answers = [[], *([span] for span in words + pairs)]
    encoded = windows(answers)
    held, cut = set(), 0
    for row, begin, end, starts, ends in zip(
        *(encoded[n] for n in ("row", "start_positions", "end_positions", "starts", "ends")),
        strict=True,
    ):
        if not answers[row]:
            assert (begin, end) == (0, 0)
            continue
        ((first, last),) = answers[row]
        there = [(a, b) for a, b in zip(starts, ends, strict=True) if a >= 0]
        if there[0][0] <= first and last <= there[-1][1]:
            held.add(row)
            assert begin > 0
            assert CONTEXT[starts[begin] : ends[end]].strip() == CONTEXT[first:last]
        else:
            cut += there[0][0] < last and first < there[-1][1]
            assert (begin, end) == (0, 0)
    assert held == set(range(1, len(answers)))
    assert cut > 5


@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 1), (1, 1)])
def test_answers_with_white_space_around_them(before, after):
    """Such answers are as answerable as without it, whether or not a tokenizer has spaces."""
    storm = CONTEXT.index("storm near")
    context = CONTEXT.lower()
    spans = []
    for wide in (0, 1):
        first, last = storm - wide * before, storm + len("storm near") + wide * after
        answers = {"text": [context[first:last]], "answer_start": [first]}
        rows = {"question": ["in"], "context": [context], "answers": [answers]}
        shape = QuestionAnswering(max_length=40, doc_stride=STRIDE)
        encoded = shape.encode(rows, [0], wordpiece(), "train")
        spans.append((encoded["start_positions"][0], encoded["end_positions"][0]))
    assert spans[0] > (0, 0)
    assert spans[1] == spans[0]


def test_evaluated_rows_are_examples():
    storm = CONTEXT.index("storm")
    answers = [[(storm, storm + 5)], [], [(storm, storm + 5)]]
    flat, grouped = windows(answers), windows(answers, windows_as_rows=False)
    assert [row for row, ids in enumerate(grouped["input_ids"]) for _ in ids] == flat["row"]
    for name in ("input_ids", "starts", "ends", "start_positions", "end_positions"):
        assert list(chain.from_iterable(grouped[name])) == flat[name]
    assert grouped["length"] == [40, 40, 40]


def test_questions_and_answers_refused():
    shifted = {"text": ["storm"], "answer_start": [CONTEXT.index("storm") + 1]}
    rows = {"question": ["What?"], "context": [CONTEXT], "answers": [shifted]}
    shape = QuestionAnswering(max_length=64, doc_stride=8)
    with pytest.raises(UserError, match="row 8: the answer 'storm' is not in the context at char"):
        shape.encode(rows, [7], tokenizer(), "train")
    length = len(tokenizer()(QUESTION.strip())["input_ids"])
    with pytest.raises(UserError, match=f"row 1: a question of {length} tokens leaves no room"):
        windows([[]], max_length=length + STRIDE)


def test_the_least_room_for_windows():
    """The separators before and behind the context, and a token more than is shared."""
    least = len(tokenizer()(QUESTION.strip())["input_ids"]) + 2 + STRIDE + 1
    length = len(tokenizer()(CONTEXT, add_special_tokens=False)["input_ids"])
    assert len(windows([[]], max_length=least)["row"]) == length - STRIDE
    with pytest.raises(UserError, match="leaves no room for windows"):
        windows([[]], max_length=least - 1)


def squad(number, **qa):
    qa = {"id": number, "question": f"Question {number}?", **qa}
    return {"title": "T", "paragraphs": [{"context": "A storm.", "qas": [qa]}]}


STORM = [{"text": "storm", "answer_start": 2}, {"text": "A storm", "answer_start": 0}]
FILES = {
    "v1": [{"version": "1.1", "data": [squad("1", answers=STORM), squad("2", answers=STORM[1:])]}],
    "v2": [
        {
            "version": "v2.0",
            "data": [
                squad("1", answers=STORM, is_impossible=False),
                squad("2", answers=[], is_impossible=True, plausible_answers=STORM),
                squad("3", answers=STORM, is_impossible=True),
            ],
        }
    ],
    "two files": [{"version": "1.1", "data": [squad(n, answers=STORM)]} for n in "12"],
}
BOTH = {"text": ["storm", "A storm"], "answer_start": [2, 0]}
NONE = {"text": [], "answer_start": []}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("v1", [BOTH, {"text": ["A storm"], "answer_start": [0]}]),
        ("v2", [BOTH, NONE, NONE]),
        ("two files", [BOTH, BOTH]),
    ],
)
def test_unfold(tmp_path, kind, expected):
    for number, content in enumerate(FILES[kind]):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    files = Source(path={"train": str(tmp_path / "*.json")})
    rows = files.read(QuestionAnswering())["train"]
    flat = [
        {
            **{"id": str(i), "question": f"Question {i}?", "context": "A storm.", "title": "T"},
            "answers": answers,
        }
        for i, answers in enumerate(expected, start=1)
    ]
    assert rows.to_list() == flat
    # the same questions are read where they are flat already, in a list or below `data`
    for content in (flat, {"version": "1", "data": flat}):
        path = tmp_path / "flat" / "train.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        assert Source(path=str(path)).read(QuestionAnswering())["train"].to_list() == flat


def best_span(starts, ends, start_logits, end_logits, longest):
    """The best of all spans of an example's windows, and all scores, one by one."""
    found = []
    for window in range(len(starts)):
        for i in range(len(starts[window])):
            for j in range(i, min(i + longest, len(starts[window]))):
                if starts[window][i] >= 0 and starts[window][j] >= 0:
                    score = float(start_logits[window][i] + end_logits[window][j])
                    found.append((score, starts[window][i], ends[window][j]))
    return max(found), [score for score, *_ in found]


@pytest.mark.parametrize(
    ("version_2", "threshold", "longest"),
    [(False, 0.0, 3), (False, 0.0, 100), (True, 0.0, 3), (True, 2.5, 3), (True, -2.5, 5)],
)
def test_best_spans_are_those_of_a_search_one_by_one(version_2, threshold, longest):
    encoded = windows([[], [], []], windows_as_rows=False, max_length=36)
    encoded = {**encoded, "context": [CONTEXT] * 3, "question": [QUESTION] * 3}
    for name in ("input_ids", "starts", "ends", "start_positions", "end_positions"):
        encoded[name][1] = encoded[name][1][-1:]  # the last window, which is short
    task = task_of(
        QuestionAnsweringTask,
        version_2_with_negative=version_2,
        null_score_diff_threshold=threshold,
        max_answer_length=longest,
    )
    batch = batch_of(QuestionAnswering(), copy.deepcopy(encoded), tokenizer())
    shape, empty = batch["input_ids"].shape, 0
    assert encoded["starts"][1][0] != encoded["starts"][0][0]
    assert len(encoded["starts"][1][0]) < shape[1]
    for seed in range(4):
        stream = torch.Generator().manual_seed(seed)
        outputs = SimpleNamespace(
            start_logits=torch.randn(shape, generator=stream),
            end_logits=torch.randn(shape, generator=stream),
        )
        # "no answer" has to be likely in each window to be an answer at all
        outputs.start_logits[:, 0] = 3 * seed
        window = 0
        columns = task.decode(outputs, batch)
        answers = [dict(zip(columns, v, strict=True)) for v in zip(*columns.values(), strict=True)]
        for row, answer in enumerate(answers):
            place = slice(window, window + len(encoded["starts"][row]))
            window = place.stop
            logits = outputs.start_logits[place], outputs.end_logits[place]
            starts, ends = encoded["starts"][row], encoded["ends"][row]
            (best, first, last), scores = best_span(starts, ends, *logits, longest)
            null = float((logits[0][:, 0] + logits[1][:, 0]).min())
            if version_2:
                scores.append(null)
                if null - best > threshold:
                    best, first, last = null, 0, 0
                    empty += 1
            text = CONTEXT[first:last].strip()  # some tokens hold the space before them
            assert answer["answer"] == text == CONTEXT[answer["start"] : answer["end"]]
            assert first <= answer["start"] <= answer["end"] <= last or not text
            probability = np.exp(best) / np.exp(scores).sum()
            assert answer["score"] == pytest.approx(probability, rel=1e-4)
    assert 0 < empty < 12 if version_2 else empty == 0
