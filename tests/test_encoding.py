"""What rows become: the edge cases of labels, words, windows, blocks, masks, images and folds."""

import copy
import json
import random
import re
from itertools import chain, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from PIL import Image
from standins import article, tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hydralight.data.augmentation import RandomResizedCropAndFlip
from hydralight.data.documents import encode_documents, encode_prompts
from hydralight.data.encoding import encode_texts, has_plain_backend
from hydralight.data.image_classification import ImageClassificationData, open_image
from hydralight.data.labels import distinct, encode_labels, named_labels
from hydralight.data.language_modeling import CausalLMData, MaskedLMData
from hydralight.data.multiple_choice import MultipleChoiceData, encode_choices
from hydralight.data.question_answering import QuestionAnsweringData, encode_windows
from hydralight.data.roles import rename_roles
from hydralight.data.splits import fold
from hydralight.data.token_classification import TokenClassificationData, encode_words, to_iob2
from hydralight.errors import UserError
from hydralight.tasks.question_answering import QuestionAnsweringTask
from hydralight.tasks.token_classification import TokenClassificationTask
from hydralight.tokenizers import Trained

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def module(cls, processor=None, **kwargs):
    data = cls(tokenizer=None, **kwargs)
    data.processor = processor
    return data


def rows_of(encoded, epoch=0):
    """Encoded columns as a loader's rows; `too_long` has been dealt with by then."""
    encoded = {name: values for name, values in encoded.items() if name != "too_long"}
    rows = [
        dict(zip(encoded, values, strict=True)) for values in zip(*encoded.values(), strict=True)
    ]
    return [{**row, "index": index, "epoch": epoch} for index, row in enumerate(rows)]


def task_of(cls, label_names=None, **kwargs):
    task = cls(model=None, optimizer=None, **kwargs)
    task.trainer = SimpleNamespace(datamodule=SimpleNamespace(label_names=label_names))
    return task


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("kind", ["wordpiece", "bytes"])
def test_tokens_are_those_of_the_tokenizers_call(kind, pairs, side):
    processor = copy.deepcopy(wordpiece() if kind == "wordpiece" else tokenizer())
    processor.truncation_side = side
    if kind == "wordpiece":
        processor.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    name = processor.sep_token or processor.eos_token
    texts = [f"{'storm in rivers ' * (n % 5)}in {name} storm" for n in range(9)]
    given = [texts, ["in " * (n % 4) + "the end" for n in range(9)]][: 1 + pairs]
    assert has_plain_backend(processor)
    for max_length in (9, 16, 200):
        encoded, too_long = encode_texts(processor, *given, max_length=max_length)
        whole = processor(*given)["input_ids"]
        cut = processor(*given, truncation=True, max_length=max_length)
        assert encoded == {name: cut[name] for name in encoded}
        assert ("token_type_ids" in encoded) == (pairs and kind == "wordpiece")
        assert too_long == [len(ids) > max_length for ids in whole]
        assert any(too_long) == (max_length < 200)


# ---------------------------------------------------------------- labels


def numbered(values, problem_type, feature, names, delimiter=None):
    features = Features({"label": feature}) if feature else None
    rows = Dataset.from_dict({"label": values}, features=features)
    rows = named_labels(rows, problem_type, names, delimiter, "my.csv")
    known = None if problem_type == "regression" else names or distinct(rows)
    return known, encode_labels(rows["label"][:], known, problem_type, 0)


AB = ClassLabel(names=["b", "a"])


HOT = [[0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("problem_type", "values", "feature", "given", "known", "expected"),
    [
        (SINGLE, [1, 0, 1], AB, None, ["a", "b"], [0, 1, 0]),
        (SINGLE, [1, 0, 1], AB, ["b", "a"], ["b", "a"], [1, 0, 1]),
        (SINGLE, ["no", "yes", "no"], None, None, ["no", "yes"], [0, 1, 0]),
        (SINGLE, [10, 9, -1], None, None, ["-1", "9", "10"], [2, 1, 0]),  # ordered as numbers
        (SINGLE, [10.0, 9.0], None, None, ["9", "10"], [1, 0]),  # integers read with a gap
        (SINGLE, [0.5, 2.0], None, None, ["0.5", "2"], [0, 1]),
        (MULTI, HOT, None, ["x", "y", "z"], ["x", "y", "z"], HOT),
        (MULTI, [[0.0, 1.0], [1.0, 1.0]], None, ["x", "y"], ["x", "y"], [[0, 1], [1, 1]]),
        (MULTI, [[1, 0], [1, 1]], None, None, ["0", "1"], [[1, 0], [1, 1]]),  # named by place
        (MULTI, [[0, 2], [1]], None, None, ["0", "1", "2"], [[1, 0, 1], [0, 1, 0]]),
        (MULTI, [["b", "a"], [], ["b"]], None, None, ["a", "b"], [[1, 1], [0, 0], [0, 1]]),
        (MULTI, [[0, 1], [], [0]], List(AB), ["b", "a"], ["b", "a"], [[1, 1], [0, 0], [1, 0]]),
        (MULTI, [[0, 1], [1, 1]], List(AB), ["b", "a"], ["b", "a"], [[1, 1], [0, 1]]),  # not N-hot
        (MULTI, ["b| a", None, "", "b"], None, None, ["a", "b"], [[1, 1], [0, 0], [0, 0], [0, 1]]),
        ("regression", [1, 3], None, None, None, [1.0, 3.0]),
        ("regression", [1.5, -1.0], None, None, None, [1.5, -1.0]),
    ],
)
def test_labels(problem_type, values, feature, given, known, expected):
    delimiter = "|" if isinstance(values[0], str) and problem_type == MULTI else None
    found, encoded = numbered(values, problem_type, feature, given, delimiter)
    assert (found, encoded) == (known, expected)
    kind = int if problem_type == SINGLE else float
    assert all(type(value) is kind for value in np.ravel(encoded).tolist())


@pytest.mark.parametrize(
    ("problem_type", "values", "feature", "known", "sentence"),
    [
        (SINGLE, [0, -1], AB, None, "row 2: the label is missing"),
        (SINGLE, ["a", None], None, None, "row 2: the label is missing"),
        (MULTI, [["a"], None], None, None, "row 2: the label is missing"),
        ("regression", [1.0, None], None, None, "row 2: the label is missing"),
        (
            *(SINGLE, ["yes", "positve"], None, ["negative", "positive", "yes"]),
            "row 2: the label 'positve' is not known; did you mean 'positive'? "
            "(there are: negative, positive, yes;",
        ),
        (MULTI, [["yes"], ["yes", "nay"]], None, ["yes"], "row 2: the label 'nay' is not known"),
        (SINGLE, [["a"]], None, None, "data.problem_type=multi_label_classification"),
        (MULTI, ["a|b"], None, None, "a text that data.label_delimiter parts"),
        ("regression", ["a"], None, None, "my.csv: the label is text; regression needs numbers"),
    ],
)
def test_labels_refused(problem_type, values, feature, known, sentence):
    with pytest.raises(UserError) as caught:
        numbered(values, problem_type, feature, known)
    assert sentence in str(caught.value)


# ---------------------------------------------------------------- words and tags


def wordpiece():
    """A WordPiece tokenizer, whose normalizer drops what is no visible character."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "storm", "river", "in", "##y", "##s"]
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    specials = {f"{name}_token": token for name, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **specials)


NAMES = ["O", "B-LOC", "I-LOC", "B-PER"]
SENTENCES = {
    "tokens": [["stormys", "\u200b", "in", "rivers"], ["in", "\u200b"]],
    "tags": [["B-LOC", "I-LOC", "O", "B-PER"], ["B-LOC", "O"]],
}


def tagged(max_length=8, label_all_tokens=False, **columns):
    options = {"label_all_tokens": label_all_tokens, "max_length": max_length}
    rows = {**SENTENCES, **columns}
    return encode_words(rows, [0, 1], processor=wordpiece(), label_names=NAMES, **options)


def test_tags_of_pieces():
    # [CLS] storm ##y ##s in river ##s [SEP]; the second word leaves no piece
    first = tagged()
    assert first["word_ids"] == [[-1, 0, 0, 0, 2, 3, 3, -1], [-1, 0, -1]]
    assert first["labels"] == [[-100, 1, -100, -100, 0, 3, -100, -100], [-100, 1, -100]]
    assert first["too_long"] == [False, False]
    # inside an entity from the second piece on; there is no I-PER
    assert tagged(label_all_tokens=True)["labels"][0] == [-100, 1, 2, 2, 0, 3, 3, -100]
    cut = tagged(max_length=7)
    assert cut["labels"] == [[-100, 1, -100, -100, 0, 3, -100], [-100, 1, -100]]
    assert cut["too_long"] == [True, False]
    assert cut["length"] == [7, 3]


@pytest.mark.parametrize("max_length", [8, 6])
def test_unknown_tags(max_length):
    """Also of a word that is cut off: evaluation counts it."""
    tags = [["B-LOC", "O", "O", "B-LOK"], ["O", "O"]]
    with pytest.raises(UserError, match="row 1: the tag 'B-LOK' is not known; did you mean 'B-LOC"):
        tagged(max_length, tags=tags)


def test_bytes_without_a_space_before_words_are_refused():
    data = module(TokenClassificationData)
    prepared = wordpiece()
    prepared.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert data.prepared(prepared) is prepared
    prepared.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(UserError, match=r"\+tokenizer.options=\{add_prefix_space: true\}"):
        data.prepared(prepared)


@pytest.mark.parametrize("side", ["right", "left"])
def test_words_without_a_piece_are_outside(side):
    tokenizer = wordpiece()
    tokenizer.padding_side = side
    data = module(TokenClassificationData, tokenizer)
    rows = rows_of({**tagged(max_length=6), **SENTENCES})  # [CLS] storm ##y ##s in [SEP]
    batch = data.collate(rows)
    pad = 3  # tokens of padding of the second sentence
    second = slice(0, 3) if side == "right" else slice(pad, None)
    assert batch["labels"][0].tolist() == [-100, 1, -100, -100, 0, -100]
    assert batch["labels"][1, second].tolist() == [-100, 1, -100]
    assert batch["word_ids"][0].tolist() == [-1, 0, 0, 0, 2, -1]
    assert batch["word_ids"][1, second].tolist() == [-1, 0, -1]
    assert (batch["word_ids"][1] == -1).sum() == pad + 2
    # every piece that is no word's first, and the padding, is given another tag
    predicted = torch.full((2, 6), 2)
    predicted[0, 1], predicted[0, 4] = 3, 1
    predicted[1, second.start + 1] = 3
    outputs = SimpleNamespace(logits=torch.nn.functional.one_hot(predicted, len(NAMES)).float())
    tags = task_of(TokenClassificationTask, NAMES).decode(outputs, batch)["tags"]
    assert tags == [["B-PER", "O", "B-LOC", "O"], ["B-PER", "O"]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("I-A I-A O I-A", "B-A I-A O B-A"),
        ("I-A B-A I-A I-B", "B-A B-A I-A B-B"),  # IOB1 begins only the second of two neighbours
        ("B-A I-B I-B", "B-A B-B I-B"),
        ("B-A I-A O B-A B-A", "B-A I-A O B-A B-A"),
        ("S-A B-A I-A E-A S-B O", "S-A B-A I-A E-A S-B O"),
        ("NOUN VERB I", "NOUN VERB I"),
    ],
)
def test_to_iob2(given, expected):
    assert to_iob2(given.split()) == expected.split()


def test_tags_of_class_labels_and_unequal_lengths():
    data = module(TokenClassificationData)
    kinds = List(ClassLabel(names=["O", "I-A", "B-A", "B-B"]))
    columns = {"tokens": [["x", "y", "z"], ["x"]], "tags": [[1, 1, 2], [0]]}
    features = Features({"tokens": List(Value("string")), "tags": kinds})
    data._sources = {"train": data.checked(Dataset.from_dict(columns, features=features), "x")}
    assert data._sources["train"]["tags"][:] == [["B-A", "I-A", "B-A"], ["O"]]
    assert data.label_names == ["O", "I-A", "B-A"]
    short = Dataset.from_dict({"tokens": [["x"], ["x", "y"]], "tags": [["O"], ["O"]]})
    with pytest.raises(UserError, match=r"my\.csv, row 2: there are 2 tokens and 1 tags"):
        data.checked(short, "my.csv")


# ---------------------------------------------------------------- windows and answers

CONTEXT = " ".join(article(i)["article"] for i in range(3)) + " Été 🎉 naïve."
QUESTION = " Who saw the storm? "
STRIDE = 12


def windows(answers, windows_as_rows=True, max_length=40, stride=STRIDE, question=QUESTION):
    rows = {"question": [question] * len(answers), "context": [CONTEXT] * len(answers)}
    rows["answers"] = [
        {"text": [CONTEXT[a:b] for a, b in spans], "answer_start": [a for a, _ in spans]}
        for spans in answers
    ]
    return encode_windows(
        rows,
        list(range(len(answers))),
        processor=tokenizer(),
        max_length=max_length,
        doc_stride=stride,
        windows_as_rows=windows_as_rows,
    )


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
        encoded = encode_windows(
            {"question": ["in"], "context": [context], "answers": [answers]},
            [0],
            processor=wordpiece(),
            max_length=40,
            doc_stride=STRIDE,
            windows_as_rows=True,
        )
        spans.append((encoded["start_positions"][0], encoded["end_positions"][0]))
    assert spans[0] > (0, 0)
    assert spans[1] == spans[0]


def test_evaluated_rows_are_examples():
    storm = CONTEXT.index("storm")
    answers = [[(storm, storm + 5)], [], [(storm, storm + 5)]]
    flat, grouped = windows(answers), windows(answers, windows_as_rows=False)
    assert grouped["row"] == [0, 1, 2]
    assert [row for row, ids in enumerate(grouped["input_ids"]) for _ in ids] == flat["row"]
    for name in ("input_ids", "starts", "ends", "start_positions", "end_positions"):
        assert list(chain.from_iterable(grouped[name])) == flat[name]
    assert grouped["length"] == [40, 40, 40]


def test_questions_and_answers_refused():
    shifted = {"text": ["storm"], "answer_start": [CONTEXT.index("storm") + 1]}
    rows = {"question": ["What?"], "context": [CONTEXT], "answers": [shifted]}
    options = {"processor": tokenizer(), "max_length": 64, "windows_as_rows": True}
    with pytest.raises(UserError, match="row 8: the answer 'storm' is not in the context at char"):
        encode_windows(rows, [7], doc_stride=8, **options)
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
    rows = module(QuestionAnsweringData).load({"train": str(tmp_path / "*.json")})["train"]
    flat = [
        {"id": str(i), "question": f"Question {i}?", "context": "A storm.", "answers": answers}
        for i, answers in enumerate(expected, start=1)
    ]
    assert rows.to_list() == flat
    # the same questions are read where they are flat already, in a list or below `data`
    for content in (flat, {"version": "1", "data": flat}):
        path = tmp_path / "flat" / "train.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        assert module(QuestionAnsweringData).load(str(path))["train"].to_list() == flat


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
    data = module(QuestionAnsweringData, tokenizer())
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
    batch = data.collate(rows_of(copy.deepcopy(encoded)))
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


# ---------------------------------------------------------------- language modelling

DOCUMENTS = [
    "The storm, then the river.\n\nTwo lines\nmore.\n",
    " naïve café 🎉🎉 — “Ünïcödé” 東京 ",
    "x",
    "\n",
    *(article(i)["article"] for i in range(4)),
]
LM = {"clean": [], "append": None, "end": True, "max_length": 1000, "columns": ["num_bytes"]}


def documents(texts, processor=None, **options):
    rows, indices = {"text": texts}, list(range(len(texts)))
    options = {**LM, "block_size": None, **options}
    return encode_documents(rows, indices, processor=processor or tokenizer(), **options)


def plain():
    """A tokenizer that puts nothing before and behind a text."""
    return Trained(vocab_size=400, add_special_tokens=False).train(
        [text for i in range(60) for text in article(i).values()]
    )


@pytest.mark.parametrize("specials", [True, False])
@pytest.mark.parametrize("block_size", [7, 32])
def test_blocks_hold_every_token_and_byte(specials, block_size):
    processor = tokenizer() if specials else plain()
    tokens, sizes = [], []
    for text in DOCUMENTS:
        encoded = processor(text, return_offsets_mapping=True)
        ids, seen = encoded["input_ids"], 0
        for _, stop in encoded["offset_mapping"]:
            sizes.append(len(text[seen:stop].encode()))
            seen = max(seen, stop)
        assert seen == len(text)
        if not specials:
            ids = [*ids, processor.eos_token_id]
            sizes.append(0)
        assert ids.count(processor.eos_token_id) == 1
        assert ids[-1] == processor.eos_token_id
        tokens += ids
    assert len(tokens) % block_size > 1
    found = documents(DOCUMENTS, processor, block_size=block_size)
    assert list(chain.from_iterable(found["input_ids"])) == tokens
    assert {len(block) for block in found["input_ids"][:-1]} == {block_size}
    firsts = sizes[::block_size]
    assert sum(firsts) > 0
    assert sum(found["num_bytes"]) == sum(len(t.encode()) for t in DOCUMENTS) - sum(firsts)
    parts = [sizes[i + 1 : i + block_size] for i in range(0, len(sizes), block_size)]
    assert found["num_bytes"] == [sum(part) for part in parts]
    assert found["length"] == [len(block) for block in found["input_ids"]]


def test_a_last_token_alone_is_no_block():
    length = len(tokenizer()(DOCUMENTS[0])["input_ids"])
    found = documents(DOCUMENTS[:1], block_size=length - 1)
    assert found["input_ids"] == [tokenizer()(DOCUMENTS[0])["input_ids"][:-1]]


def test_documents_as_rows():
    found = documents(DOCUMENTS)
    assert found["num_bytes"] == [
        len(text.encode()) for text in DOCUMENTS
    ]  # the first token is <s>
    assert found["input_ids"] == tokenizer()(DOCUMENTS)["input_ids"]
    limit = found["length"][1] - 1
    cut = documents(DOCUMENTS, max_length=limit)
    assert cut["too_long"] == [length > limit for length in found["length"]]
    assert {True, False} == set(cut["too_long"])
    assert cut["input_ids"] == [ids[:limit] for ids in found["input_ids"]]
    assert cut["num_bytes"][1] == len(DOCUMENTS[1].encode())  # only the end token is cut off
    # each mark of the byte-level alphabet is a byte; the first token's space is not the text's
    marks = ["".join(tokenizer().convert_ids_to_tokens(ids[1:])) for ids in cut["input_ids"][2:4]]
    assert [len(mark.removesuffix("</s>")) - 1 for mark in marks] == cut["num_bytes"][2:4]


def test_clean_and_append():
    text = "  Storm OVER the River \n"
    ids = documents([text], plain(), clean=["strip", "lower"], append=" END")["input_ids"][0]
    assert plain().decode(ids) == " storm over the river END"
    assert ids[-1] != plain().eos_token_id
    with pytest.raises(UserError, match="there is no step 'lowr'; did you mean 'lower'"):
        module(CausalLMData, clean=["lowr"])


def test_the_end_token_is_a_target_where_it_also_pads():
    processor = copy.deepcopy(tokenizer())
    processor.pad_token = processor.eos_token
    end = processor.eos_token_id
    data = module(CausalLMData, processor)
    batch = data.collate(rows_of(documents(DOCUMENTS[:3], processor)))
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    assert lengths == [len(ids) for ids in tokenizer()(DOCUMENTS[:3])["input_ids"]]
    for ids, labels, length in zip(batch["input_ids"], batch["labels"], lengths, strict=True):
        assert torch.equal(labels[:length], ids[:length])
        assert labels[length - 1] == end
        assert (labels[length:] == -100).all()
        assert (ids[length:] == end).all()
    assert batch["num_bytes"].tolist() == [len(text.encode()) for text in DOCUMENTS[:3]]


def test_prompts_do_not_end_and_are_padded_on_the_left():
    """Those of masked models keep their end, and are padded on the right."""
    texts = ["the river and the storm of that day", "Storm"]
    options = {"processor": tokenizer(), "clean": ["lower"], "end": True}
    encoded = encode_prompts({"text": texts}, [0, 1], max_length=100, **options)
    whole = [ids[:-1] for ids in tokenizer()([text.lower() for text in texts])["input_ids"]]
    assert encoded["input_ids"] == whole
    batch = module(CausalLMData, tokenizer()).collate(rows_of(encoded), "predict")
    padding = len(whole[0]) - len(whole[1])
    pads = [tokenizer().pad_token_id] * padding
    assert batch["input_ids"].tolist() == [whole[0], [*pads, *whole[1]]]
    assert batch["attention_mask"][1].tolist() == [0] * padding + [1] * len(whole[1])
    assert "labels" not in batch
    assert batch["text"] == [text.lower() for text in texts]
    unmasked = encode_prompts({"text": texts}, [0, 1], max_length=100, **{**options, "end": False})
    batch = module(MaskedLMData, tokenizer()).collate(rows_of(unmasked), "predict")
    ids = [[*ids, tokenizer().eos_token_id] for ids in whole]
    assert batch["input_ids"].tolist() == [ids[0], [*ids[1], *pads]]
    assert "labels" not in batch  # there is nothing to find but the masks


def test_long_prompts_lose_their_beginning():
    texts = ["the river and the storm of that day", "Storm"]
    options = {"processor": tokenizer(), "clean": ["lower"], "end": True}
    whole = encode_prompts({"text": texts}, [0, 1], max_length=100, **options)["input_ids"]
    cut = encode_prompts({"text": texts}, [0, 1], max_length=4, **options)
    assert cut["input_ids"] == [ids[-4:] for ids in whole]
    assert cut["too_long"] == [len(ids) > 4 for ids in whole]
    # what is left is what the model has to have room for
    assert cut["length"] == [len(ids) for ids in cut["input_ids"]]


def masked(data, encoded, purpose="train", epoch=0):
    batch = data.collate(rows_of(copy.deepcopy(encoded), epoch), purpose)
    return batch["input_ids"].numpy(), batch["labels"].numpy()


def test_masks():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, len(tokenizer()), (60, 500))
    ids[:, ::10] = tokenizer().eos_token_id
    data = module(MaskedLMData, tokenizer(), seed=7)
    encoded = {"input_ids": ids.tolist()}
    inputs, labels = masked(data, encoded)
    chosen = labels != -100
    special = np.isin(ids, tokenizer().all_special_ids)
    assert not chosen[special].any()
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(inputs[~chosen], ids[~chosen])
    assert chosen[~special].mean() == pytest.approx(0.15, abs=0.01)
    kinds = [inputs[chosen] == tokenizer().mask_token_id, inputs[chosen] == ids[chosen]]
    assert [kind.mean() for kind in kinds] == pytest.approx([0.8, 0.1], abs=0.025)
    others = inputs[chosen][~kinds[0] & ~kinds[1]]
    assert len(np.unique(others)) > 200  # of 400 tokens
    # a function of (seed, epoch, index); in evaluation, of seed and index
    assert np.array_equal(masked(data, encoded)[1], labels)
    assert (masked(data, encoded, epoch=1)[1] != labels).any(axis=1).all()
    assert (masked(module(MaskedLMData, tokenizer(), seed=8), encoded)[1] != labels).any()
    evaluated = [masked(data, encoded, "evaluate", epoch) for epoch in (0, 1)]
    assert np.array_equal(*evaluated)
    assert (evaluated[0][1] != labels).any()
    same = masked(data, {"input_ids": [ids[0].tolist()] * 2})[1]
    assert (same[0] != same[1]).any()  # rows differ, though their tokens are the same


def test_whole_words_are_masked():
    texts = [
        " ".join(article(i)["article"].upper() for i in range(5 * k, 5 * k + 5)) for k in range(9)
    ]
    encoded = documents(texts, end=False, columns=["word_ids"])
    data = module(MaskedLMData, tokenizer(), whole_word_mask=True)
    marks = []
    for epoch in range(3):
        batch = data.collate(rows_of(copy.deepcopy(encoded), epoch), "train")
        for text, labels in zip(texts, batch["labels"], strict=True):
            words = tokenizer()(text).word_ids()
            assert len(words) > 2 * len(set(words))  # most words are several pieces
            for word in set(words) - {None}:
                pieces = {bool(labels[i] != -100) for i, w in enumerate(words) if w == word}
                assert len(pieces) == 1
                marks.append(pieces.pop())
    assert len(marks) > 2000
    assert np.mean(marks) == pytest.approx(0.15, abs=0.03)


# ---------------------------------------------------------------- multiple choice


def test_choices():
    table = Dataset.from_dict(
        {
            "sent1": ["The storm came.", "The river ran."],
            "sent2": ["Then", "It"],
            "e0": ["two people left", "saw the tower"],
            "e1": ["the school", "was three miles long on that day"],
            "e2": ["all", "went"],
            "label": ["2", "0"],
        }
    )
    columns = {"context": "sent1", "question": "sent2", "endings": ["e0", "e1", "e2"]}
    data = module(MultipleChoiceData, tokenizer())
    rows = data.checked(rename_roles(table, columns, MultipleChoiceData.roles, "x"), "x")
    assert rows[1]["endings"] == ["saw the tower", "was three miles long on that day", "went"]
    encoded = encode_choices(rows[:], [0, 1], processor=tokenizer(), max_length=64)
    batch = data.collate(rows_of(encoded))
    assert batch["labels"].tolist() == [2, 0]
    assert batch["input_ids"].shape == (2, 3, max(encoded["length"]))
    for row, (context, opening) in enumerate(
        [("The storm came.", "Then"), ("The river ran.", "It")]
    ):
        for place, ending in enumerate(rows[row]["endings"]):
            expected = tokenizer()(context, f"{opening} {ending}")["input_ids"]
            there = batch["attention_mask"][row, place].bool()
            assert batch["input_ids"][row, place][there].tolist() == expected


def test_an_empty_opening_is_no_word():
    rows = {"context": ["The storm."], "question": [None], "endings": [["left", "came"]]}
    encoded = encode_choices(rows, [0], processor=tokenizer(), max_length=64)
    assert encoded["input_ids"] == [
        [tokenizer()("The storm.", ending)["input_ids"] for ending in ("left", "came")]
    ]


def test_choices_refused():
    rows = {"context": ["a", "b"], "endings": [["x", "y"], ["x", "y", "z"]], "label": ["0", "2"]}
    with pytest.raises(UserError, match="x, row 2: there are 3 endings, and 2 in row 1"):
        module(MultipleChoiceData).checked(Dataset.from_dict(rows), "x")
    rows["label"] = ["2", "2"]
    with pytest.raises(UserError, match="row 1: the label '2' is no number of an ending, 0 to 1"):
        encode_choices(rows, [0, 1], processor=tokenizer(), max_length=64)


# ---------------------------------------------------------------- images


def sixteen_bits():
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    expected = np.repeat((values / 257).round()[..., None], 3, axis=2)
    return Image.fromarray(values), expected


def palette():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return image, [[[255, 0, 0], [0, 0, 255]]]


def transparent():
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (40, 50, 60, 255))
    return image, [[[10, 20, 30], [40, 50, 60]]]


def one_bit():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    return image, [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("made", [sixteen_bits, palette, transparent, one_bit])
def test_images_become_rgb(tmp_path, made):
    image, expected = made()
    image.save(tmp_path / "a.png")
    for source in (
        {"path": str(tmp_path / "a.png"), "bytes": None},
        {"path": None, "bytes": (tmp_path / "a.png").read_bytes()},
    ):
        opened = open_image(source)
        assert opened.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(opened), expected)


@pytest.mark.parametrize("kept", [0, 20, 60])
def test_broken_images_are_named(tmp_path, kept):
    path = tmp_path / "broken.png"
    sixteen_bits()[0].save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"broken\.png cannot be read as an image"):
        open_image({"path": str(path), "bytes": None})


def from_all_streams(image):
    """Change an image by draws from each of the global streams."""
    changed = RandomResizedCropAndFlip()(image)
    shift = 255 * np.array([random.random(), np.random.random(), float(torch.rand(()))])
    return Image.fromarray(np.asarray(changed) + shift.astype(np.uint8))


def test_augmentation_is_a_function_of_seed_epoch_and_index(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def processor(image, return_tensors):
        return {"pixel_values": torch.tensor(np.asarray(image))[None]}

    def batch(purpose="train", epoch=0, seed=1):
        data = module(ImageClassificationData, processor, augmentation=from_all_streams, seed=seed)
        image = {"path": str(tmp_path / "a.png"), "bytes": None}
        rows = rows_of({"image": [image, image], "labels": [0, 1]}, epoch)
        return data.collate(rows, purpose)["pixel_values"]

    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = batch()
    assert states == (
        *(random.getstate(), np.random.get_state()[1].tolist()),
        torch.get_rng_state().tolist(),
    )
    random.random(), np.random.random(), torch.rand(1)
    assert torch.equal(batch(), first)
    for other in (batch(epoch=1), batch(seed=2), first.flip(0)):
        assert all((a != b).any() for a, b in zip(other, first, strict=True))
    np.testing.assert_array_equal(batch("evaluate"), [pixels, pixels])


# ---------------------------------------------------------------- folds

ROWS = Dataset.from_dict(
    {
        "row": list(range(30)),
        "c": ["yes" if i % 3 else "no" for i in range(30)],
        "g": [i * i % 11 + 20 * (i % 3 > 0) for i in range(30)],
    }
)


@pytest.mark.parametrize("stratify_by", [None, "c"])
@pytest.mark.parametrize("group_by", [None, "g"])
def test_folds(stratify_by, group_by):
    by = {"num_folds": 4, "stratify_by": stratify_by, "group_by": group_by}
    held_out = []
    for number in range(4):
        splits = {"train": ROWS, "validation": ROWS.select([0]), "test": ROWS.select([1, 2])}
        parts = fold(splits, number=number, seed=0, **by)
        train, validation = parts["train"], parts["validation"]
        assert parts["test"]["row"][:] == [1, 2]
        assert sorted([*train["row"], *validation["row"]]) == list(range(30))
        held_out += validation["row"][:]
        if group_by:
            assert not set(train["g"]) & set(validation["g"])
        if stratify_by:
            yes = validation["c"][:].count("yes")
            assert yes / len(validation) == pytest.approx(
                2 / 3, abs=0.1 if group_by is None else 0.3
            )
        again = fold(splits, number=number, seed=0, **by)
        assert again["validation"]["row"][:] == validation["row"][:]
    assert sorted(held_out) == list(range(30))
    assert held_out != list(range(30))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"number": 4}, "data.fold=4 should be in 0..3 (data.num_folds)"),
        ({"number": -1}, "data.fold=-1 should be in 0..3"),
        ({"number": 0, "num_folds": 1}, "data.num_folds=1"),
        ({"number": 0, "num_folds": 40}, "data.num_folds=40"),
        (
            {"number": 0, "num_folds": 12, "stratify_by": "c"},
            "The class 'no' of c has 10 rows, too few for 12 folds",
        ),
        ({"number": 0, "num_folds": 20, "group_by": "g"}, "data.num_folds=20"),
        ({"number": 0, "group_by": "h"}, "has no column 'h'"),
    ],
)
def test_folds_refused(arguments, sentence):
    with pytest.raises(UserError) as caught:
        fold({"train": ROWS}, **{"num_folds": 4, "seed": 0, **arguments})
    assert sentence in str(caught.value)
