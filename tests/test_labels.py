"""Tokens are those of the tokenizer; labels come in many forms."""

import copy

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from shaping import MY_CSV, wordpiece
from standins import tokenizer

from hydralight.data.label_column import distinct, named_labels
from hydralight.data.labels import encode_labels
from hydralight.data.roles import Where
from hydralight.data.shapes.text_classification import TextClassification
from hydralight.data.tokens import encode_texts, has_plain_backend
from hydralight.errors import UserError

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


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


def test_labels_are_declared_said_or_found():
    """What is said goes before what a source declares, and that before what is there."""
    kinds = Features({"text": Value("string"), "label": AB})
    rows = Dataset.from_dict({"text": ["x", "y"], "label": [0, 0]}, features=kinds)
    shape = TextClassification()
    declared = shape.declared(rows, MY_CSV)
    train = shape.prepare(rows, MY_CSV)
    assert train["label"][:] == ["b", "b"]
    assert shape.settled(train, declared).label_names == ["b", "a"]
    said = TextClassification(labels=["a", "b", "c"])
    assert said.settled(train, declared).label_names == ["a", "b", "c"]
    several = Where("my.csv", {"label": ["x", "y"]})
    assert list(shape.declared(rows, several)) == ["x", "y"]
    with pytest.raises(UserError, match="only one label in the training data, 'b'"):
        shape.settled(train, ())
    kind = "multi_label_classification"
    listed = Dataset.from_dict({"label": [["b"], ["b"]]})
    with pytest.raises(UserError, match="only one label in the training data, 'b'"):
        TextClassification(problem_type=kind).settled(listed, ())
    with pytest.raises(UserError, match=r"data\.labels names b alone"):
        TextClassification(problem_type=kind, labels=["b"])
    with pytest.raises(UserError, match="not known without training data"):
        _ = shape.settled(None, ()).label_names


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["same", "other"], "f1 is that of 'same', the second label; 'data.labels=[same, other]'"),
        (["0", "1"], ""),
        (["True", "False"], ""),
        (["a", "b", "c"], ""),
    ],
)
def test_the_label_that_f1_is_of_is_told_where_the_alphabet_chooses_it(names, told, caplog):
    caplog.set_level("INFO")
    TextClassification().settled(Dataset.from_dict({"label": names}), ())
    assert bool(caplog.text) == bool(told)
    assert told in caplog.text
    caplog.clear()
    TextClassification(labels=names).settled(Dataset.from_dict({"label": names}), ())
    TextClassification().settled(None, names)
    assert caplog.text == ""


def test_labels_with_fractions_are_no_classes_unless_that_is_said():
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1.0, 2.5]})
    with pytest.raises(UserError, match=r"x: there are labels such as 2\.5: data\.problem_type=r"):
        TextClassification().prepare(rows, Where("x"))
    said = TextClassification(labels=["1", "2.5"])
    assert said.prepare(rows, Where("x"))["label"][:] == ["1", "2.5"]
    whole = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1.0, 2.0, None]})
    assert TextClassification().prepare(whole, Where("x"))["label"][:] == ["1", "2", None]
