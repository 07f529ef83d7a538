"""What is in two splits is told and taken out of one; a pair is two texts."""

import json
from collections import Counter

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hydra import compose, initialize_config_dir
from standins import article, write_jsonl

import hydralight
from hydralight.config.project import CONFIG_DIR
from hydralight.data.leaks import groups_apart
from hydralight.data.mix import Mix
from hydralight.data.module import DataModule
from hydralight.data.rows import read_rows
from hydralight.data.shapes.multiple_choice import MultipleChoice
from hydralight.data.shapes.question_answering import QuestionAnswering
from hydralight.data.shapes.seq2seq import Summarization, Translation
from hydralight.data.shapes.text_classification import TextClassification
from hydralight.data.shapes.text_pairs import TextPairs
from hydralight.data.shapes.token_classification import TokenClassification
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError

GROUPS = {"train": "aabbccddee", "validation": "effg", "test": "fgah"}


def row(split, number, group):
    text = f"{split} {number}"
    return {"text": text, "label": "xy"[number % 2], "patient": group, "visit": {"of": group}}


def splits_of(groups=GROUPS):
    return {s: [row(s, i, g) for i, g in enumerate(of)] for s, of in groups.items()}


def read(splits, shape=None, columns=None, **options):
    source = Source(source=lambda: splits, columns=columns)
    shape = shape or TextClassification()
    return read_rows(source, Splits(**{"validation_fraction": 0, **options}), Mix(), shape).splits


def texts(splits, role="text"):
    return {split: rows[role][:] for split, rows in splits.items()}


def grouped(found, splits):
    """The groups in each split, as the rows' texts tell them."""
    of = {one["text"]: one["patient"] for rows in splits.values() for one in rows}
    return {split: "".join(of[text] for text in rows["text"]) for split, rows in found.items()}


@pytest.mark.parametrize("column", ["patient", "visit.of"])
def test_groups_of_ready_made_splits_are_told(column, caplog):
    """Train has a and e of the others; validation f and g of test."""
    splits = splits_of()
    found = read(splits, group_by=column)
    assert grouped(found, splits) == GROUPS
    assert {c for rows in found.values() for c in rows.column_names} == {"text", "label"}
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition("; data.group_leaks")[0] for line in lines] == [
        f"data.group_by={column}: 2 groups of test (2 rows of 4) are in validation too (3 of 4): "
        "f, g",
        f"data.group_by={column}: 1 group of test (1 row of 4) is in train too (2 of 10): a",
        f"data.group_by={column}: 1 group of validation (1 row of 4) is in train too (2 of 10): e",
    ]
    assert "data.group_leaks=drop leaves these rows out of train" in lines[2]
    assert lines[2].endswith(", and move moves them to validation")


def test_groups_apart_are_not_told(caplog):
    splits = splits_of({"train": "aab", "validation": "cc", "test": "dd"})
    splits["train"] += [row("train", 8, None)]  # no group is none that splits share
    splits["test"] += [row("test", 8, None)]
    assert len(read(splits, group_by="patient", group_leaks="refuse")["train"]) == 4
    assert not caplog.records


def test_groups_are_dropped_or_moved(caplog):
    """Test keeps all it has, then validation; what is moved is lost nowhere."""
    splits = splits_of()
    found = read(splits, group_by="patient", group_leaks="drop")
    assert grouped(found, splits) == {"train": "bbccdd", "validation": "e", "test": "fgah"}
    assert "these rows are left out of train" in caplog.text
    found = read(splits, group_by="patient", group_leaks="move")
    assert grouped(found, splits) == {"train": "bbccdd", "validation": "eee", "test": "fgahffgaa"}
    everything = sorted(text for one in texts(found).values() for text in one)
    assert everything == sorted(one["text"] for rows in splits.values() for one in rows)
    assert "these rows of train are moved to validation" in caplog.text
    again = read(splits, group_by="patient", group_leaks="move")
    assert texts(again) == texts(found)


def test_what_is_carved_has_groups_of_its_own():
    """A test split that is cut out of train has no group of validation either."""
    groups = {"train": "abcdefgh" * 4, "validation": "abz"}
    splits = splits_of(groups)
    found = read(splits, group_by="patient", group_leaks="drop", test_fraction=0.3)
    parts = {split: set(of) for split, of in grouped(found, splits).items()}
    assert parts["validation"] == set("abz")
    assert parts["train"] | parts["test"] == set("cdefgh")
    assert not parts["train"] & parts["test"]
    folded = read(splits, group_by="patient", group_leaks="refuse", fold=0, num_folds=2)
    assert not set.intersection(*map(set, grouped(folded, splits).values()))


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({}, {"group_leaks": "refuse"}, r"2 groups of test .*: f, g \(data\.group_leaks=refuse\)"),
        ({"train": "aae"}, {"group_leaks": "drop"}, "data.group_leaks=drop leaves no row of train"),
        ({}, {"group_by": "patent"}, "did you mean 'patient'"),
        ({}, {"group_by": "visit"}, "data.group_by=visit: it holds lists or records"),
    ],
)
def test_groups_refused(change, options, sentence):
    with pytest.raises(UserError, match=sentence):
        read(splits_of({**GROUPS, **change}), **{"group_by": "patient", **options})


def test_a_split_without_the_groups_is_told(caplog):
    splits = splits_of()
    splits["test"] = [{"text": "t", "label": "x"}]
    read(splits, group_by="patient")
    assert "data.source (test) has no such column, and no groups to compare" in caplog.text
    with pytest.raises(UserError, match=r"data\.group_leaks=drop cannot be done"):
        read(splits, group_by="patient", group_leaks="drop")


def test_groups_are_compared_by_what_they_are_called():
    """A class by its name; a number as a text where another split has texts."""
    classes = Dataset.from_dict(
        {"g": [0, 1]}, features=Features({"g": ClassLabel(names=["a", "b"])})
    )
    found = groups_apart(
        {"train": classes, "test": Dataset.from_dict({"g": ["b"]})}, "g", "drop", {}
    )
    assert found["train"]["g"][:] == [0]
    numbers = Dataset.from_dict({"g": [1.0, None, 2.0]})
    for other in (["2", "x"], [2], [2.0, None]):
        found = groups_apart(
            {"train": numbers, "test": Dataset.from_dict({"g": other})}, "g", "drop", {}
        )
        assert found["train"]["g"][:] == [1.0, None]
    nan = Dataset.from_dict({"g": [1.0, float("nan")]})  # as a null
    assert groups_apart({"train": nan, "test": nan.select([1])}, "g", "refuse", {})


def test_equal_inputs(caplog):
    """Whatever their labels are; a pair counts as one input."""
    splits = splits_of({"train": "abc", "validation": "de"})
    splits["validation"][1]["text"] = "train 2"
    found = read(splits)
    assert (
        "data.duplicates: 1 input of validation (1 row of 2) is in train too (1 of 3): train 2"
        in caplog.text
    )
    assert texts(found)["train"] == ["train 0", "train 1", "train 2"]
    assert texts(read(splits, duplicates="drop"))["train"] == ["train 0", "train 1"]
    with pytest.raises(UserError, match=r"data\.duplicates=refuse"):
        read(splits, duplicates="refuse")
    caplog.clear()
    read(splits, duplicates=None)
    pairs = {
        "train": [{"context": "a", "endings": ["b", "c"], "label": 0}],
        "validation": [{"context": "a", "endings": ["b", "d"], "label": 0}] * 2,
    }
    read(pairs, MultipleChoice())
    assert not caplog.records
    pairs["validation"][1] = {**pairs["train"][0], "label": 1}
    pairs["train"] *= 2
    read(pairs, MultipleChoice())
    assert "1 input of validation (1 row of 2) is in train too (2 of 2): a | b c" in caplog.text
    words = {"train": [{"tokens": ["a", "b"], "tags": ["O", "O"]}]}
    read({**words, "test": words["train"]}, TokenClassification())
    assert "1 input of test (1 row of 1) is in train too (1 of 1): a b" in caplog.text


def test_rows_that_are_mixed_in_are_rows_of_train(tmp_path, caplog):
    splits = splits_of({"train": "abc", "validation": "de"})
    path = write_jsonl(tmp_path / "a.jsonl", [splits["validation"][1], row("more", 0, "a")])
    source = Source(source=lambda: splits)

    def mixed(policy):
        mix = Mix(mix={"more": {"path": str(path), "weight": 0.5}})
        return read_rows(source, Splits(duplicates=policy), mix, TextClassification()).sets

    assert "validation 1" in mixed("report")["more"]["text"]
    sentence = (
        "data.duplicates: 1 input of validation (1 row of 2) is in data.mix.more too (1 of 2)"
    )
    assert sentence in caplog.text
    assert "validation 1" not in mixed("drop")["more"]["text"]
    with pytest.raises(UserError, match=r"data\.mix\.more too"):
        mixed("refuse")


def test_groups_may_have_another_name_in_a_split():
    splits = splits_of({"train": "abc", "test": "ax"})
    for one in splits["test"]:
        one["person"] = one.pop("patient")
    source = Source(source=lambda: splits, columns_by_split={"test": {"patient": "person"}})
    parting = Splits(group_by="patient", group_leaks="drop", validation_fraction=0)
    found = read_rows(source, parting, Mix(), TextClassification()).splits
    assert texts(found) == {"train": ["train 1", "train 2"], "test": ["test 0", "test 1"]}


def squad_file(path, articles):
    data = [
        {
            "title": f"title {a}",
            "paragraphs": [
                {
                    "context": f"context {a} {p}",
                    "qas": [
                        {"id": f"{a} {p} {q}", "question": f"q {q}?", "answers": []}
                        for q in range(3)
                    ],
                }
                for p in range(2)
            ],
        }
        for a in range(articles)
    ]
    path.write_text(json.dumps({"version": "2", "data": data}))
    return str(path)


@pytest.mark.parametrize("change", [[], ["data.group_by=title"], ["data.group_by=null"]])
def test_a_cut_of_squad(change, tmp_path):
    """Paragraphs stay together as the recipe has it, articles where that is said, or neither."""
    path = squad_file(tmp_path / "train.json", 20)
    with initialize_config_dir(str(CONFIG_DIR)):
        data = compose("train", ["experiment=bert_squad_v2", *change]).data
    parting = Splits(group_by=data.group_by, validation_fraction=0.3)
    found = read_rows(Source(path=path), parting, Mix(), QuestionAnswering()).splits
    assert set(found["train"].column_names) == {"id", "question", "context", "answers"}
    sides = [set(rows["context"]) for rows in found.values()]
    articles = [{context.split()[1] for context in side} for side in sides]
    assert (not set.intersection(*sides)) == (change != ["data.group_by=null"])
    assert (not set.intersection(*articles)) == (change == ["data.group_by=title"])
    assert sum(map(len, found.values())) == 120
    assert 20 <= len(found["validation"]) <= 36


def test_files_of_squad_share_titles(tmp_path, caplog):
    files = {
        "train": squad_file(tmp_path / "a.json", 3),
        "test": squad_file(tmp_path / "b.json", 1),
    }
    parting = Splits(group_by="title", group_leaks="drop", validation_fraction=0)
    found = read_rows(Source(path=files), parting, Mix(), QuestionAnswering()).splits
    assert Counter(context.split()[1] for context in found["train"]["context"]) == {"1": 6, "2": 6}
    assert "1 group of test (6 rows of 6) is in train too (6 of 18): title 0" in caplog.text


# ------------------------------------------------------------ pairs

SAME = [{"a": f"text {i}", "b": f"text {i}", "c": f"other {i}", "label": i % 2} for i in range(3)]
SHAPES = [
    (TextClassification(), "text", "text_pair"),
    (Summarization(), "text", "summary"),
    (Translation(), "source", "target"),
    (TextPairs(), "anchor", "positive"),
]


@pytest.mark.parametrize(("shape", "one", "other"), SHAPES)
def test_one_text_is_no_pair(shape, one, other):
    rows = {"train": SAME}
    with pytest.raises(UserError, match=f"column 'a' is both the {one} and the {other}, which are"):
        read(rows, shape, {one: "a", other: "a"})
    with pytest.raises(UserError, match="columns 'a' and 'b' are the same in all 3 rows"):
        read(rows, shape, {one: "a", other: "b"})
    found = read(rows, shape, {one: "a", other: "c"})
    assert found["train"][other][:] == [row["c"] for row in SAME]
    twins = {"train": [*SAME[:2], {**SAME[2], "b": "another"}]}
    assert len(read(twins, shape, {one: "a", other: "b"})["train"]) == 3


def test_one_text_to_predict_is_no_pair(tmp_path):
    columns = {"text": "premise", "text_pair": "text"}
    source = Source(source=dict, columns=columns)
    data = DataModule(shape=TextClassification(), source=source, tokenizer=lambda *_, **__: None)
    with pytest.raises(UserError, match="and this task reads text and text_pair: give JSON lines"):
        data.predict_from("a text of its own")
    one = DataModule(
        shape=TextClassification(),
        source=Source(source=dict, columns={"text": "body", "text_pair": "body"}),
        tokenizer=lambda *_, **__: None,
    )
    with pytest.raises(UserError, match="input: column 'body' is both the text and the text_pair"):
        one.predict_from('{"body": "a text of its own"}')
    pair = write_jsonl(tmp_path / "a.jsonl", [{"premise": "same", "text": "same"}] * 2)
    data.predict_from(str(pair))  # texts to be compared may be equal


# ------------------------------------------------------------ runs


def test_a_run_and_what_follows_it_have_the_same_rows(recipe, tmp_path):
    """Train gives 8 of its 13 rows to validation; a resume with others is refused."""
    own = [*recipe("bert_mrpc"), "data.path.test=null", "trainer.max_epochs=1"]
    shared = {article(20 + i)["highlights"] for i in range(7)}
    moved = sum(article(i)["highlights"] in shared for i in range(13))
    assert moved == 8
    run = hydralight.train([*own, "data.group_by=sentence2", "data.group_leaks=move"])
    hydralight.evaluate([f"run={run.path}"])
    assert len(run.predictions("validation")) == 7 + moved
    with pytest.raises(UserError, match="the run was trained on 5 rows, and now there are 13"):
        hydralight.train([f"resume={run.path}", "trainer.max_epochs=2", "data.group_leaks=report"])
    again = hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    assert again.metrics["last"]["epoch"] == 2


def test_features_are_kept_where_rows_are_moved():
    features = Features({"g": Value("string"), "n": List(Value("int32"))})
    train = Dataset.from_dict({"n": [[1], [2]], "g": ["a", "b"]})  # int64, in another order
    test = Dataset.from_dict({"g": ["b"], "n": [[3]]}, features=features)
    found = groups_apart({"train": train, "test": test}, "g", "move", {})
    assert found["test"].features == features
    assert found["test"]["n"][:] == [[3], [2]]
    with pytest.raises(UserError, match=r"as not all of them have n: drop them"):
        groups_apart({"train": train, "test": test.remove_columns("n")}, "g", "move", {})
