"""Words, their pieces, and their tags."""

from types import SimpleNamespace

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from shaping import MY_CSV, batch_of, task_of, wordpiece
from tokenizers import pre_tokenizers

from hydralight.data.shapes.token_classification import TokenClassification, to_iob2
from hydralight.errors import UserError
from hydralight.tasks.token_classification import TokenClassificationTask

NAMES = ["O", "B-LOC", "I-LOC", "B-PER"]
SENTENCES = {
    "tokens": [["stormys", "\u200b", "in", "rivers"], ["in", "\u200b"]],
    "tags": [["B-LOC", "I-LOC", "O", "B-PER"], ["B-LOC", "O"]],
}


def tagged(max_length=8, label_all_tokens=False, **columns):
    options = {"label_all_tokens": label_all_tokens, "max_length": max_length}
    shape = TokenClassification(labels=NAMES, **options)
    return shape.encode({**SENTENCES, **columns}, [0, 1], wordpiece(), "train")


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
    shape = TokenClassification()
    prepared = wordpiece()
    prepared.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert shape.ready(prepared) is prepared
    prepared.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(UserError, match=r"tokenizer.options=\{add_prefix_space: true\}"):
        shape.ready(prepared)


@pytest.mark.parametrize("side", ["right", "left"])
def test_words_without_a_piece_are_outside(side):
    tokenizer = wordpiece()
    tokenizer.padding_side = side
    encoded = {**tagged(max_length=6), **SENTENCES}  # [CLS] storm ##y ##s in [SEP]
    batch = batch_of(TokenClassification(), encoded, tokenizer)
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
    shape = TokenClassification()
    kinds = List(ClassLabel(names=["O", "I-A", "B-A", "B-B"]))
    columns = {"tokens": [["x", "y", "z"], ["x"]], "tags": [[1, 1, 2], [0]]}
    features = Features({"tokens": List(Value("string")), "tags": kinds})
    rows = Dataset.from_dict(columns, features=features)
    train = shape.prepare(rows, MY_CSV)
    assert train["tags"][:] == [["B-A", "I-A", "B-A"], ["O"]]
    assert shape.settled(train, shape.declared(rows, MY_CSV)).label_names == ["O", "I-A", "B-A"]
    short = Dataset.from_dict({"tokens": [["x"], ["x", "y"]], "tags": [["O"], ["O"]]})
    with pytest.raises(UserError, match=r"my\.csv, row 2: there are 2 tokens and 1 tags"):
        shape.prepare(short, MY_CSV)
