"""Cutting a data set into train, validation and test, and into folds."""

import subprocess
import sys
from collections import Counter
from itertools import chain

import pytest
from datasets import ClassLabel, Dataset
from test_sources import numbers, write

from hydralight.data.position import carve_by_position
from hydralight.data.splits import carve, fold
from hydralight.errors import UserError


def made(count=200, classes="aaab", groups=23):
    return Dataset.from_dict(
        {
            "row": list(range(count)),
            "label": [classes[i % len(classes)] for i in range(count)],
            "group": [None if i % groups == 0 else str(i % groups) for i in range(count)],
        }
    )


def cut(data, **kwargs):
    fractions = {"validation_fraction": 0.1, "test_fraction": 0.2, "seed": 1}
    return carve({"train": data}, **{**fractions, **kwargs})


@pytest.mark.parametrize("by", [{}, {"stratify_by": "label"}, {"group_by": "group"}])
def test_carve(by):
    parts = cut(made(), **by)
    rows = {split: part["row"][:] for split, part in parts.items()}
    assert sorted(chain(*rows.values())) == list(range(200))
    assert all(row == sorted(row) for row in rows.values())
    assert rows == {split: part["row"][:] for split, part in cut(made(), **by).items()}
    assert rows != {split: part["row"][:] for split, part in cut(made(), seed=2, **by).items()}
    sizes = {split: len(row) for split, row in rows.items()}
    if "group_by" in by:
        groups = [set(part["group"][:]) for part in parts.values()]
        assert sum(len(group) for group in groups) == 23
        assert 10 < sizes["validation"] <= 20 < 30 < sizes["test"] <= 40
    else:
        assert sizes == {"train": 140, "validation": 20, "test": 40}
    if "stratify_by" in by:
        assert Counter(parts["validation"]["label"]) == {"a": 15, "b": 5}
        assert Counter(parts["test"]["label"]) == {"a": 30, "b": 10}


def test_carve_only_what_is_missing():
    data = made()
    assert list(cut(data, test_fraction=0)) == ["train", "validation"]
    there = carve(
        {"train": data, "validation": data}, validation_fraction=0.1, test_fraction=0, seed=0
    )
    assert there == {"train": data, "validation": data}
    assert carve({"test": data}, validation_fraction=0.5, test_fraction=0, seed=0) == {"test": data}


def test_carve_is_the_same_in_another_process(tmp_path):
    path = write(tmp_path / "a.csv", numbers(100))
    code = (
        "import sys; from hydralight.data.columns import rename_roles\n"
        "from hydralight.data.roles import Where\n"
        "from hydralight.data.source import Source\n"
        "from hydralight.data.splits import Splits\n"
        "parting = Splits(validation_fraction=.1, split_seed=3)\n"
        "parts = parting.part(Source(path=sys.argv[1]).read())\n"
        "parts = [rename_roles(p, ['x'], Where('', {'x': 'n'})) for p in parts.values()]\n"
        "print([(p._fingerprint, p['x'][:3]) for p in parts])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] != ""


@pytest.mark.parametrize(
    ("data", "kwargs", "sentence"),
    [
        (made(), {"stratify_by": "label", "group_by": "group"}, "exclude each other"),
        (made(), {"group_by": "grup"}, "its columns are row, label, group; did you mean 'group'?"),
        (
            made(classes="a" * 99 + "b"),
            {"stratify_by": "label"},
            "The class 'b' of label has 2 rows",
        ),
        (made(groups=2), {"group_by": "group"}, "of train has 2 groups, too few to carve"),
        (made(2), {}, "The split train has 2 rows, too few to carve validation and test"),
        (made(), {"test_fraction": 0.9}, "must be in 0..1"),
        (Dataset.from_dict({"a": [[1]]}), {"group_by": "a"}, "holds lists or records"),
    ],
)
def test_carve_refuses(data, kwargs, sentence):
    with pytest.raises(UserError) as caught:
        cut(data, **kwargs)
    assert sentence in str(caught.value)


def test_carve_names_the_class_of_a_class_label():
    data = made(99, classes="a" * 98 + "b").cast_column("label", ClassLabel(names=["a", "b"]))
    with pytest.raises(UserError, match="The class 'b' of label has 1 row,"):
        cut(data, stratify_by="label")


def test_carve_unequal_groups():
    data = Dataset.from_dict({"g": [0] * 80 + [1, 2]})
    parts = cut(data, group_by="g", test_fraction=0.1)
    assert len(parts["train"]) == 80
    assert [len(parts[split]) for split in ("validation", "test")] == [1, 1]


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


@pytest.mark.parametrize("mark", [" ", "\n"])
def test_a_book_in_one_line_is_cut_between_words(mark):
    words = [f"word{number}" for number in range(100)]
    train = Dataset.from_dict({"text": [mark.join(words)]})
    parts = carve_by_position(train, {"validation": 0.2, "test": 0.1})
    texts = ["".join(part["text"][:]) for part in parts.values()]
    assert "".join(texts) == mark.join(words)
    assert [word for one in texts for word in one.split()] == words
    assert [round(len(one.split()), -1) for one in texts] == [70, 20, 10]
