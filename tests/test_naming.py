"""Classes that are numbers in a file have names, and splits without labels wait to be evaluated."""

import json

import pytest
import transformers
from datasets import ClassLabel, Dataset, Features, List, Value
from hydra.utils import execution_whitelist
from shaping import MY_CSV
from standins import WORDS, tokenizer, write_jsonl
from transformers import BertConfig

import hydralight
from hydralight.building import build_data
from hydralight.config.whitelist import WHITELIST
from hydralight.data.mix import Mix
from hydralight.data.module import DataModule
from hydralight.data.rows import read_rows
from hydralight.data.shapes.image_classification import ImageClassification
from hydralight.data.shapes.multiple_choice import MultipleChoice
from hydralight.data.shapes.question_answering import QuestionAnswering
from hydralight.data.shapes.seq2seq import Summarization
from hydralight.data.shapes.text_classification import TextClassification
from hydralight.data.shapes.token_classification import TokenClassification
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError
from hydralight.model_configs import labels_of
from hydralight.summary import next_commands

MULTI = "multi_label_classification"
AB = ClassLabel(names=["not_equivalent", "equivalent"])
DIGITS = ClassLabel(names=["10", "2", "1"])  # as folders are sorted
FOUR = ["World", "Sports", "Business", "Sci/Tech"]
BY_VALUE = {1: "World", 2: "Sports", 3: "Business", 4: "Sci/Tech"}


def numbers(values, labels, feature=None, **settings):
    """Names of the labels, and the number of each value."""
    rows = {"text": ["a"] * len(values), "label": values}
    features = Features({"text": Value("string"), "label": feature}) if feature else None
    rows = Dataset.from_dict(rows, features=features)
    shape = TextClassification(labels=labels, **settings).named({"train": rows}, {"train": MY_CSV})
    prepared = shape.prepare(rows, MY_CSV)
    encoded = shape.encode(prepared[:], list(range(len(rows))), tokenizer(), "train")
    return shape.label_names, encoded["labels"]


@pytest.mark.parametrize(
    ("values", "labels", "feature", "expected"),
    [
        ([1, 0, 1], ["negative", "positive"], None, [1, 0, 1]),
        (["2", "1", "4", "3"], FOUR, None, [1, 0, 3, 2]),
        ([2.0, 1.0, 4.0, 3.0], FOUR, None, [1, 0, 3, 2]),  # integers read with a gap
        ([-1, 1, 0], ["negative", "neutral", "positive"], None, [0, 2, 1]),
        ([9, 10, 11, 8], FOUR, None, [1, 2, 3, 0]),  # ordered as numbers
        ([1, 4, 2], FOUR, None, [0, 3, 1]),  # from 1 to 4, where a 3 does not come
        ([0, 3, 1], FOUR, None, [0, 3, 1]),
        ([True, False], ["no", "yes"], None, [1, 0]),
        ([True, True], ["no", "yes"], None, [1, 1]),
        ([1, 0], ["different", "same"], AB, [1, 0]),
        ([0, 1, 2], ["one", "two", "ten"], DIGITS, [2, 1, 0]),
        ([4, 1], BY_VALUE, None, [3, 0]),
        (["4", "1"], {"4": "Sci/Tech", 1: "World"}, None, [0, 1]),  # in the mapping's own order
        (["neg", "pos"], {"pos": "positive", "neg": "negative"}, None, [1, 0]),
        ([5, 1, 4], {1: "bad", 2: "bad", 4: "good", 5: "good"}, None, [1, 0, 1]),
        ([1, 0], {"equivalent": "same", "not_equivalent": "different"}, AB, [0, 1]),
        ([1, 0], {0: "different", 1: "same"}, AB, [1, 0]),
        ([0, 1], {1: "uno", 2: "due", 10: "dieci"}, DIGITS, [2, 1]),  # its names, not its numbers
        (["same", "different"], {0: "different", 1: "same"}, None, [1, 0]),  # names already
    ],
)
def test_numbers_are_named(values, labels, feature, expected):
    names = list(dict.fromkeys(labels.values() if isinstance(labels, dict) else labels))
    assert numbers(values, labels, feature) == (names, expected)


@pytest.mark.parametrize(
    ("values", "labels", "feature", "delimiter", "expected"),
    [
        ([[0, 2], [1], []], ["x", "y", "z"], None, None, [[1, 0, 1], [0, 1, 0], [0, 0, 0]]),
        ([[0, 1], [1]], ["x", "y"], List(AB), None, [[1, 1], [0, 1]]),
        ([[1, 0], [1, 1]], {0: "x", 1: "y"}, None, None, [[1, 0], [1, 1]]),  # N-hot, by place
        (["1|3", "2"], ["x", "y", "z"], None, "|", [[1, 0, 1], [0, 1, 0]]),
        ([1, 3], ["x", "y", "z"], None, "|", [[1, 0, 0], [0, 0, 1]]),  # where none has several
        ([1.0, None, 2.0], ["x", "y"], None, "|", [[1, 0], [0, 0], [0, 1]]),
        (["a|c", ""], {"a": "x", "c": "z"}, None, "|", [[1, 1], [0, 0]]),
    ],
)
def test_several_numbers_are_named(values, labels, feature, delimiter, expected):
    names = list(labels.values() if isinstance(labels, dict) else labels)
    found = numbers(values, labels, feature, problem_type=MULTI, label_delimiter=delimiter)
    assert found == (names, expected)


@pytest.mark.parametrize(
    ("values", "labels", "feature", "sentence"),
    [
        (
            *([1, 2, 3, 4], ["a", "b", "c"], None),
            "data.labels names 3 labels, and in the data there are 4 (1, 2, 3, 4): say which is "
            "which, as in 'data.labels={1: a, 2: b, 3: c, 4: …}'.",
        ),
        ([0, 1], ["a", "b", "c"], None, "names 3 labels, and in the data there are 2 (0, 1)"),
        ([0, 1], ["a", "b", "c"], AB, "there are 2 (not_equivalent, equivalent)"),
        ([0, 2], {0: "a", 1: "b"}, None, "row 2: the label '2' has no name in data.labels (which"),
        ([0, 2], {0: "a", 1: None}, None, "data.labels names 1 nothing"),
        ([0, 1], {0: "a", 1: "a"}, None, "data.labels names a alone"),
        (["neg", "pos"], ["bad", "good"], None, "row 1: the label 'neg' is not known"),  # words
        (["Neg", "pos"], ["neg", "pos"], None, "the label 'Neg' is not known; did you mean 'neg'?"),
        ([0, 1], ["neg", "pos"], ClassLabel(names=["Pos", "Neg"]), "'Pos' is not known"),
        ([0, 1], ["1", "2"], None, "the label '0' is not known"),  # numbers that name numbers
        ([1.0, float("nan"), 2.0], ["a", "b"], None, "row 2: the label is missing"),
        (["a", "", "b"], ["a", "b"], None, "row 2: the label is missing"),
        ([0, 1], [None, "a"], None, "data.labels: the 1. label, None, is no name"),
        ([0, 1], ["a", ["b"]], None, "data.labels: the 2. label, ['b'], is no name"),
    ],
)
def test_names_that_do_not_fit(values, labels, feature, sentence):
    with pytest.raises(UserError) as caught:
        numbers(values, labels, feature)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("values", "delimiter", "sentence"),
    [
        (
            [["a"], ["ab"]],
            None,
            "row 2: the label 'ab' is not known; did you mean 'b'? (there are: a, b;",
        ),
        ([["a"], ["b", None]], None, "row 2: one of the labels is missing"),
        (["a b", "b"], "", "data.label_delimiter is empty"),
    ],
)
def test_several_names_that_do_not_fit(values, delimiter, sentence):
    with pytest.raises(UserError) as caught:
        numbers(values, ["a", "b"], problem_type=MULTI, label_delimiter=delimiter)
    assert sentence in str(caught.value)


def test_nothing_is_no_class():
    rows = [{"text": "a b", "label": label} for label in (1.0, 2.0, float("nan"))]
    texts = [{"text": "a b", "label": label} for label in ("x", "y", "")]
    for one, known in ((rows, ["1", "2"]), (texts, ["x", "y"])):
        source = Source(source=lambda one=one: {"train": one})
        parting = Splits(validation_fraction=0)
        assert read_rows(source, parting, Mix(), TextClassification()).shape.labels == known


TAGS = ["O", "B-PER", "I-PER", "B-LOC"]


@pytest.mark.parametrize(
    ("tags", "labels", "feature", "expected"),
    [
        ([[0, 1, 2], [3, 0, 0]], TAGS, None, [[0, 1, 2], [3, 0, 0]]),
        ([[0, 1, 2], [0, 0, 0]], TAGS, None, [[0, 1, 2], [0, 0, 0]]),  # the last does not come
        ([[0, 1, 2], [3, 0, 0]], dict(enumerate(TAGS)), None, [[0, 1, 2], [3, 0, 0]]),
        ([[0, 2, 2], [1, 1, 0]], ["O", "I-PER", "B-PER"], None, [[0, 2, 2], [2, 1, 0]]),  # IOB1
        ([[0, 1, 0]], ["O", "B-PER"], List(ClassLabel(names=["out", "in"])), [[0, 1, 0]]),
    ],
)
def test_tags_that_are_numbers_are_named(tags, labels, feature, expected):
    rows = {"tokens": [["a", "b", "c"]] * len(tags), "tags": tags}
    kinds = {"tokens": List(Value("string")), "tags": feature} if feature else None
    rows = Dataset.from_dict(rows, features=Features(kinds) if kinds else None)
    shape = TokenClassification(labels=labels).named({"train": rows}, {"train": MY_CSV})
    prepared = shape.prepare(rows, MY_CSV)
    encoded = shape.encode(prepared[:], list(range(len(rows))), tokenizer(), "train")
    first = [[label for label in row if label != -100] for row in encoded["labels"]]
    assert first == expected
    assert shape.label_names == list(labels.values() if isinstance(labels, dict) else labels)


def test_tags_that_have_no_name():
    rows = Dataset.from_dict({"tokens": [["a", "b"]], "tags": [[0, 7]]})
    where = {"train": MY_CSV}
    with pytest.raises(UserError, match="names 4 labels, and in the data there are 2"):
        TokenClassification(labels=TAGS).named({"train": rows}, where)
    shape = TokenClassification(labels={0: "O", 1: "B-PER"})
    prepared = shape.prepare(rows, MY_CSV)
    with pytest.raises(UserError, match="row 1: the tag '7' has no name in data"):
        shape.encode(prepared[:], [0], tokenizer(), "train")


def test_classes_that_are_in_other_splits_alone_count(tmp_path):
    """As long as the training split does not have as many as there are names."""
    files = {"train": [1, 2, 2, 1], "validation": [3, 1], "test": [-1, -1]}
    for split, labels in files.items():
        rows = [{"text": "a b", "label": label} for label in labels]
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    source = Source(path={split: f"{tmp_path}/{split}.jsonl" for split in files})
    read = read_rows(source, Splits(), Mix(), TextClassification(labels=["a", "b", "c"]))
    assert read.splits["train"]["label"][:] == ["a", "b", "b", "a"]
    assert read.splits["validation"]["label"][:] == ["c", "a"]
    assert read.splits["test"]["label"][:] == [None, None]


def test_images_in_folders_of_numbers():
    rows = Dataset.from_dict({"label": [0, 1, 2]}, features=Features({"label": DIGITS}))
    shape = ImageClassification(labels=["one", "two", "ten"])
    named = shape.named({"train": rows}, {"train": MY_CSV})
    assert named.label_values == {"1": "one", "2": "two", "10": "ten"}


# ---------------------------------------------------------------- a run


def news(numbers):
    return [{"text": f"the {WORDS[i]} of {WORDS[n]}", "class": n} for i, n in enumerate(numbers)]


@pytest.fixture(scope="module")
def run(checkpoints, tmp_path_factory):
    """A run on classes 1 to 4 that are named in their order, whose test split has no column."""
    folder = tmp_path_factory.mktemp("news")
    write_jsonl(folder / "train.jsonl", news([1, 2, 3, 4, 1, 2, 3, 4]))
    write_jsonl(folder / "validation.jsonl", news([4, 3, 2, 1]))
    write_jsonl(folder / "test.jsonl", [{"text": row["text"]} for row in news([1, 2, 3])])
    splits = ("train", "validation", "test")
    typed = [
        *("experiment=distilbert_emotion", f"checkpoint={checkpoints('distilbert')}"),
        f"data.path={{{', '.join(f'{s}: {folder}/{s}.jsonl' for s in splits)}}}",
        *("data.columns={label: class}", f"data.labels=[{', '.join(FOUR)}]"),
        *(f"paths.log_dir={folder / 'logs'}", "trainer.accelerator=cpu", "trainer.max_steps=1"),
        *("callbacks.rich_progress=null", "callbacks.samples=null"),
    ]
    made = hydralight.train(typed)
    made.folder, made.typed = folder, typed
    return made


def test_the_model_and_its_pipeline_say_the_names(run):
    config = json.loads((run.path / "model" / "config.json").read_text())
    assert config["id2label"] == {str(i): name for i, name in enumerate(FOUR)}
    assert config["label_values"] == {str(k): v for k, v in BY_VALUE.items()}
    pipe = transformers.pipeline("text-classification", str(run.path / "model"), device="cpu")
    rows = hydralight.predict([f"run={run.path}", f"input={run.folder / 'test.jsonl'}"])
    assert [row["label"] for row in rows] == [pipe(row["text"])[0]["label"] for row in rows]
    assert {row["label"] for row in rows} <= set(FOUR)
    assert list(rows[0]["scores"]) == FOUR


def test_another_file_is_read_by_the_same_names(run):
    """Also one that lacks a class, and one that calls them otherwise, where that is typed."""
    other = write_jsonl(run.folder / "other.jsonl", news([2, 4, 4]))
    first = hydralight.evaluate([f"run={run.path}", f"data.path={other}"])
    said = [row["reference"] for row in run.predictions("validation-other")]
    assert said == ["Sports", "Sci/Tech", "Sci/Tech"]
    codes = {1: "w", 2: "s", 3: "b", 4: "t"}
    coded = [{**row, "class": codes[row["class"]]} for row in news([2, 4, 4])]
    coded = write_jsonl(run.folder / "coded.jsonl", coded)
    mapping = "data.labels={t: Sci/Tech, s: Sports, w: World, b: Business}"
    assert hydralight.evaluate([f"run={run.path}", f"data.path={coded}", mapping]) == first
    with pytest.raises(UserError, match=r"data\.labels: the run was trained with World, Sports"):
        hydralight.evaluate(
            [f"run={run.path}", f"data.path={coded}", "data.labels={t: Tech, s: S}"]
        )
    with pytest.raises(UserError, match="the label 's' has no name in data"):
        hydralight.evaluate([f"run={run.path}", f"data.path={coded}"])
    model = [f"checkpoint={run.path / 'model'}", "experiment=distilbert_emotion"]
    model += [f"data.path={{validation: {other}}}", "data.columns={label: class}"]
    again = hydralight.evaluate([*model, *run.typed[4:7]])
    assert again == pytest.approx(first)


def test_a_test_split_without_labels_is_told_where_it_is_evaluated(run):
    sentence = r"test\.jsonl \(test\) has no column 'class' for the role label"
    with pytest.raises(UserError, match=sentence):
        hydralight.evaluate([f"run={run.path}", "split=test"])
    before = sorted((run.folder / "logs").rglob("*"))
    with pytest.raises(UserError, match=sentence):
        hydralight.train([*run.typed, "test=true"])
    assert [p for p in sorted((run.folder / "logs").rglob("*.*")) if p not in before] == []
    cfg = hydralight.Run(run.path).config
    with execution_whitelist(WHITELIST):
        commands = next_commands(cfg, build_data(cfg), run.path)
    assert "predict" in commands[0]
    assert not any("split=test" in command for command in commands)


@pytest.mark.thorough
def test_a_model_that_is_trained_on_forgets_what_stood_for_its_old_labels(run):
    rows = [{"text": row["text"], "class": FOUR[row["class"] - 1]} for row in news([1, 2, 3, 4])]
    file = write_jsonl(run.folder / "words.jsonl", rows)
    typed = [one for one in run.typed if not one.startswith("data.labels=")]
    typed += [f"data.path={{train: {file}, validation: {file}}}"]
    again = hydralight.train([*typed, f"checkpoint={run.path / 'model'}"])
    config = json.loads((again.path / "model" / "config.json").read_text())
    assert "label_values" not in config
    assert list(config["id2label"].values()) == sorted(FOUR)


@pytest.mark.parametrize(
    "values",
    [
        {"1": "a"},
        {"1": "a", "2": "c"},
        ["a", "b"],
        {"_target_": "a", "2": "b"},
        {"${oc.env:HOME}": "a", "2": "b"},
    ],
)
def test_what_a_models_config_says_of_files_is_checked(values):
    config = BertConfig(id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})
    assert labels_of(config) == ["a", "b"]
    config.label_values = {"2": "b", "1": "a"}
    assert labels_of(config) == {"1": "a", "2": "b"}
    config.label_values = values
    with pytest.raises(UserError, match="label_values="):
        labels_of(config)
    config.label_values, config.id2label = None, {0: "${oc.env:HOME}", 1: "b"}
    with pytest.raises(UserError, match="label_values="):
        labels_of(config)


# ---------------------------------------------------------------- splits without targets

WORD = {"text": "a b", "summary": "a"}
SQUAD = {
    "id": "1",
    "question": "q",
    "context": "a b",
    "answers": {"text": ["a"], "answer_start": [0]},
}
CHOICE = {"context": "a", "question": "b", "endings": ["c", "d"], "label": 1}
MISSING = object()
TARGETS = {  # a shape, a row, its target, and what says that there is none
    "labels": (
        *(TextClassification(), {"text": "a b", "label": 1}, "label"),
        [MISSING, None, -1, "", float("nan")],
    ),
    "a class -1": (TextClassification(labels=["-1", "1"]), {"text": "a", "label": 1}, "label", []),
    "numbers": (
        *(TextClassification(problem_type="regression"), {"text": "a b", "label": 1.5}, "label"),
        [MISSING, None, -1.0],
    ),
    "tags": (
        *(TokenClassification(), {"tokens": ["a", "b"], "tags": ["O", "B-X"]}, "tags"),
        [MISSING, None, ["", ""]],
    ),
    "tag numbers": (
        *(TokenClassification(labels=["O", "B-X"]), {"tokens": ["a", "b"], "tags": [0, 1]}, "tags"),
        [MISSING, None, [-1, -1]],
    ),
    "endings": (MultipleChoice(), CHOICE, "label", [MISSING, None, -1]),
    "letters": (MultipleChoice(), {**CHOICE, "label": "B"}, "label", [MISSING, None, ""]),
    "summaries": (Summarization(), WORD, "summary", [MISSING, None, ""]),
    "answers": (QuestionAnswering(), SQUAD, "answers", [MISSING]),
}
ABSENT = [(name, nothing) for name, (*_, values) in TARGETS.items() for nothing in values]


@pytest.mark.parametrize(("name", "nothing"), ABSENT)
def test_a_split_without_targets_waits(name, nothing):
    shape, row, target, _ = TARGETS[name]
    kept = {role: value for role, value in row.items() if role != target}
    without = [kept if nothing is MISSING else {**row, target: nothing}] * 3
    other = {**row, "label": 0} if name in ("labels", "endings") else row
    source = Source(source=lambda: {"train": [row, other] * 4, "test": without})
    needed = {"train", "validation"}
    read = read_rows(source, Splits(), Mix(), shape, needed=needed)
    assert target in read.splits["train"].column_names
    assert target not in read.splits["test"].column_names
    assert len(read.splits["test"]) == 3
    data = DataModule(shape=shape, source=source, tokenizer=lambda *_, **__: tokenizer())
    with pytest.raises(UserError, match=rf"\(test\): none of its 3 rows has a {target}"):
        data.encoded("test")
    evaluated = DataModule(shape=shape, source=source, tokenizer=lambda *_, **__: tokenizer())
    evaluated.validation_split = "test"
    with pytest.raises(UserError, match="test"):
        evaluated.encoded("test")


def test_a_class_minus_one_is_a_class():
    shape, row, *_ = TARGETS["a class -1"]
    source = Source(source=lambda: {"train": [row] * 4, "test": [{**row, "label": -1}] * 3})
    read = read_rows(source, Splits(), Mix(), shape, needed={"train"})
    assert read.splits["test"]["label"][:] == ["-1"] * 3
