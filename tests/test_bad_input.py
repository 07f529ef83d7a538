"""Bad rows and settings of each task: one sentence that names what is wrong."""

import json

import pytest
from omegaconf import OmegaConf
from standins import images, write_jsonl

import hydralight
from hydralight.commands import start
from hydralight.config.resolvers import direction
from hydralight.data.mix import Mix
from hydralight.data.rows import read_rows
from hydralight.data.shapes.image_classification import ImageClassification
from hydralight.data.shapes.text_classification import TextClassification
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError

SQUAD = {"text": ["dragon"], "answer_start": [3]}
ROWS = [
    # recipe, file, change of its third row, what is said
    ("bert_mrpc", "validation", {"label": 2}, "row 3: the label '2' is not known"),
    ("bert_mrpc", "train", {"label": None}, "the train split, row 3: the label is missing"),
    ("bert_mrpc", "train", {"sentence2": ""}, r"train\.jsonl \(train\), row 3: the text_pair"),
    ("bert_stsb", "train", {"label": "NaN"}, "that of row 1 is float, that of row 3 NoneType"),
    ("distilbert_emotion", "train", {"label": [1]}, "that of row 1 is int, that of row 3 list"),
    ("bert_ner_conll2003", "train", {"tokens": []}, r"row 3: the tokens .* are empty"),
    ("bert_ner_conll2003", "train", {"tokens": ["a", None]}, r"row 3: one of the tokens"),
    ("bert_ner_conll2003", "train", {"ner_tags": ["O"]}, "row 3: there are 8 tokens and 1 tags"),
    (
        *("bert_ner_conll2003", "validation", {"ner_tags": ["O"] * 7 + ["B-LOK"]}),
        "row 3: the tag 'B-LOK' is not known; did you mean 'B-LOC'",
    ),
    ("bert_squad", "train", {"answers": SQUAD}, "row 3: the answer 'dragon' is not in the context"),
    ("bert_squad", "train", {"answers": None}, "row 3: an answer lacks its text or its start"),
    ("bert_squad", "train", {"question": "why " * 40}, "row 3: a question of .* tokens leaves"),
    ("bert_swag", "train", {"label": 4}, "row 3: the label 4 is no number of an ending, 0 to 3"),
    ("bert_swag", "train", {"ending2": None}, "row 3: one of the endings"),
]
KINDS = [
    # recipe, change of all training rows, what is said
    ("bert_ner_conll2003", {"tokens": "a b", "ner_tags": "O O"}, "'tokens' holds text, and .* are"),
    ("bert_ner_conll2003", {"ner_tags": "O O"}, "'ner_tags' holds text, and the tags are lists"),
    ("bert_ner_conll2003", {"tokens": [1, 2], "ner_tags": ["O", "O"]}, "are lists of texts: put"),
    ("bert_squad", {"answers": {"text": "a", "answer_start": 0}}, r"answers are {text: \[...\]"),
    ("bert_squad", {"question": ["why"]}, "'question' holds lists, and the question is text"),
    ("bert_swag", {"label": [1]}, "the label is a single value"),
    ("bert_swag", {f"ending{i}": i for i in range(4)}, "are lists of texts"),
    (
        "bart_cnn",
        {"highlights": ["a"]},
        r"\(column 'highlights'\), and training takes one text",
    ),
    ("bert_mrpc", {"label": {"of": 1}}, "and not of dict: name a field"),
    ("bert_mrpc", {"label": -1}, "none of the 13 training rows has a label"),
]
SETTINGS = [
    (
        *(
            "bert_mrpc",
            ["data.problem_type=multi_label_classification", "optimized_metric=val/loss"],
        ),
        "data.label_delimiter parts",
    ),
    ("bert_mrpc", ["data.labels=[0,1,1]"], "names a label twice"),
    ("bert_mrpc", ["data.source=5"], "should be the dotted name of a function or class"),
    ("bert_mrpc", ["data.source={foo: 1}"], "should be the dotted name of a function or class"),
    ("bert_mrpc", ["data.source=[a]"], "should be the dotted name of a function or class"),
    ("bert_mrpc", ["data.source=hydralight.data.source.SPLITS"], "is no function and no class"),
    ("bert_mrpc", ["data.path=5"], "data.path=5 should be a path, a list of paths"),
    ("bert_mrpc", ["data.path={train: 5}"], "should be a path, a list of paths"),
    ("bert_mrpc", ["data.columns=[a,b]"], r"should be a mapping: data.columns={text: …, text_pair"),
    ("bert_mrpc", ["data.reader=[a]"], "data.reader=.* should be a mapping"),
    ("bert_mrpc", ["data.max_length=true"], "data.max_length=True should be int"),
    ("bert_mrpc", ["data.stratify_by=labl"], "data.stratify_by=labl: .* did you mean 'label'"),
    ("bert_mrpc", ["task.class_weights={2: 1}"], "no label '2'"),
    ("bert_mrpc", ["task.metrics={cal: 5}"], r"task\.metrics\.cal=5 should be"),
    ("bert_mrpc", ["data.fold=5"], r"data\.fold=5 should be in 0\.\.4"),
    ("bert_mrpc", ["data.extra_eval=[a.csv]"], "should be a mapping"),
    ("bert_mrpc", ["data.extra_eval={test: a.csv}"], "a split has that name"),
    ("bert_mrpc", ["+data.path.validaton=a.csv"], "did you mean 'validation'"),
    ("bert_stsb", ["task.class_weights=balanced"], "this is a regression"),
    ("bert_squad", ["task.loss._target_=hydralight.tasks.losses.focal_loss"], "does not go with"),
    ("bert_squad", ["data.doc_stride=32"], "should be below data.max_length"),
    ("distilgpt2_sonnets", ["data.clean=[lowr]"], "no step 'lowr'; did you mean 'lower'"),
    ("distilgpt2_sonnets", ["generation.max_new_tokens=128"], "leaves no room for a prompt"),
    ("transformer_xl_reviews", ["model.gradient_checkpointing=true"], "does not go with segment"),
    ("vit_cxr14", ["data.label_delimiter=x", "data.labels=[a,b]"], "has no name in data.labels"),
    (
        "bert_mrpc",
        ["task.loss._target_=hydralight.tasks.losses.focal_loss", "task.class_weights=balanced"],
        "a loss of its own",
    ),
]


def change(folder, split, changes):
    path = folder / f"{split}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2] |= changes
    write_jsonl(path, rows)


@pytest.mark.parametrize(("experiment", "split", "changes", "sentence"), ROWS)
def test_rows(experiment, split, changes, sentence, recipe, tmp_path):
    overrides = recipe(experiment)
    change(tmp_path / "data", split, changes)
    with pytest.raises(UserError, match=sentence):
        hydralight.train(overrides)
    assert not list((tmp_path / "logs").rglob("*.*"))


@pytest.mark.parametrize(("experiment", "changes", "sentence"), KINDS)
def test_texts_are_not_lists(experiment, changes, sentence, recipe, tmp_path):
    """Neither is taken for the other, letter by letter."""
    overrides = recipe(experiment)
    path = tmp_path / "data" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_jsonl(path, [row | changes for row in rows])
    with pytest.raises(UserError, match=sentence):
        hydralight.train(overrides)


def test_labels_of_minus_one(recipe, tmp_path, caplog):
    """Of all rows they are none; beside 0 and 1 they are a class, and it is said how many."""
    overrides, folder = recipe("bert_mrpc"), tmp_path / "data"
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    write_jsonl(folder / "test.jsonl", [row | {"label": -1} for row in rows])
    run = hydralight.train([*overrides, "trainer.max_epochs=1"])
    with pytest.raises(UserError, match=rf"test.jsonl \(test\): none of its {len(rows)} rows"):
        hydralight.evaluate([f"run={run.path}", "split=test"])
    predicted = hydralight.predict([f"run={run.path}", f"input={folder / 'test.jsonl'}"])
    assert len(predicted) == len(rows)
    change(folder, "train", {"label": -1})
    with pytest.raises(UserError, match="is not known"):  # in training alone
        hydralight.evaluate([f"run={run.path}", f"data.path={folder / 'train.jsonl'}"])
    hydralight.train([*overrides, "trainer.max_epochs=1", "optimized_metric=val/loss"])
    assert "1 of 13 rows have the label -1" in caplog.text


TABLES = [
    # lines, the names that are given, what is said
    (["text,text,label", *["a b,c d,0"] * 9], None, "has the column 'text' 2 times: give all"),
    (["text,label", *["a b,0"] * 9], ["text", "label"], r"\(text, label\) is a header"),
    (["review,stars", *["a b,0"] * 9], ["text", "label"], "is a header, and data.reader.column"),
    (["u v w,awful", *["u v w,good", "w v u,bad"] * 9], ["text", "label"], None),
    (["x,good", *["u v w,good", "w v u,bad"] * 9], ["text", "label"], None),
]


@pytest.mark.parametrize(("lines", "names", "sentence"), TABLES)
def test_headers(lines, names, sentence, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    source = Source(path=str(path), reader={"column_names": names} if names else None)
    if sentence is None:
        rows = read_rows(source, Splits(validation_fraction=0), Mix(), TextClassification())
        assert len(rows.splits["train"]) == len(lines)
        return
    with pytest.raises(UserError, match=sentence):
        read_rows(source, Splits(), Mix(), TextClassification())


def test_a_header_that_is_likely_is_a_warning(recipe, tmp_path, caplog):
    """And one that is certain can be said to be data."""
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["a,b", *["u v w,good", "w v u,bad"] * 9]))
    named = ["data.reader.column_names=[text,label]", "data.columns={text_pair: null}"]
    named += [f"data.path={path}", "trainer.max_steps=1", "data.validation_fraction=0.2"]
    named += ["data.columns.text=text", "optimized_metric=val/loss"]
    assert hydralight.train([*recipe("bert_mrpc"), *named]).metrics["last"]["step"] == 1
    assert caplog.text.count(f"The first row of {path} (a, b) looks like a header") == 1
    path.write_text("\n".join(["text,7", *["a b,0"] * 9]))
    source = {"path": str(path), "reader": {"column_names": ["text", "label"]}}
    with pytest.raises(UserError, match="header=null"):
        Source(**source).read()
    source["reader"]["header"] = None
    assert len(Source(**source).read()["train"]) == 10


@pytest.mark.parametrize(("experiment", "settings", "sentence"), SETTINGS)
def test_settings(experiment, settings, sentence, recipe, tmp_path):
    with pytest.raises(UserError, match=sentence):
        hydralight.train([*recipe(experiment), *settings])
    assert not list((tmp_path / "logs").rglob("*.ckpt"))


def test_files_named_by_a_table(tmp_path):
    """A table of two folders' files of the same names; then one that leaves a file out."""
    folder = tmp_path / "images"
    for kind in ("cat", "dog"):
        (images(folder / kind, 4) / "metadata.jsonl").unlink()
    lines = [f"{kind}/{number}.png,{kind}" for kind in ("cat", "dog") for number in range(4)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["file,kind", *lines]))

    def labels(**arguments):
        columns = {"image": "file", "label": "kind"}
        source = Source(path=str(folder), columns=columns, **arguments)
        parting = Splits(validation_fraction=0.0)
        return read_rows(source, parting, Mix(), ImageClassification()).splits["train"]

    rows = labels(metadata=str(table))
    pairs = zip(rows["image"], rows["label"], strict=True)
    assert all(f"/{label}/" in image["path"] for image, label in pairs)
    table.write_text("\n".join(["file,kind", *lines[1:]]))
    with pytest.raises(UserError, match=r"table\.csv has no row for .*cat/0\.png"):
        labels(metadata=str(table))
    table.write_text("\n".join(["file,kind", "0.png,x", "1.png,y", "2.png,x", "3.png,y"]))
    with pytest.raises(UserError, match=r"stands for both .*cat/0\.png and .*dog/0\.png"):
        labels(metadata=str(table))


def test_prompts_of_a_batch_are_continued_as_each_alone(recipe, tmp_path):
    short = ["trainer.max_epochs=1", "generation.do_sample=false"]
    run = hydralight.train([*recipe("distilgpt2_sonnets"), *short])
    prompts = ["the storm", "then seven people came near the old bridge", "a"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))

    def continued(source):
        start("predict", [f"run={run.path}", f"input={source}", f"output={tmp_path / 'out'}"])
        return [json.loads(line)["prediction"] for line in (tmp_path / "out").open()]

    together = continued(tmp_path / "prompts.txt")
    assert together == [continued(prompt)[0] for prompt in prompts]


@pytest.mark.parametrize(
    "text", ["hello, [MASK]: it's (really) {odd}", "v1.2", "a,b", "x=1", "it's ${5} \\' \\"]
)
def test_any_text_is_an_input(text, recipe, tmp_path):
    run = hydralight.train([*recipe("distilbert_emotion"), "trainer.max_epochs=1"])
    start("predict", [f"run={run.path}", f"input={text}", f"output={tmp_path / 'out'}"])
    assert json.loads((tmp_path / "out").read_text())["text"] == text


def test_a_trained_model_stays_what_it_is(recipe, tmp_path):
    """Of a run's model only columns are proposed; the input is not written over."""
    run = hydralight.train([*recipe("bert_mrpc"), "trainer.max_epochs=1"])
    rows = [{"review": "a b", "other": "c d", "stars": f"{i % 5}"} for i in range(40)]
    other = write_jsonl(tmp_path / "other.jsonl", rows)

    def refused(command, *typed):
        with pytest.raises(UserError) as caught:
            start(command, [f"run={run.path}", *typed])
        return str(caught.value)

    assert "name two models" in refused("eval", "checkpoint=some/model")
    assert "try" not in refused("eval", f"data.path={other}", "data.extra_eval=null")
    assert "trained with single_label" in refused("eval", "data.problem_type=regression")
    assert "data.labels: the run was trained with " in refused("eval", "data.labels=[x, y]")
    link = tmp_path / "link.jsonl"
    link.symlink_to(other)
    before = link.read_text()
    assert "would overwrite" in refused("predict", f"input={other}", f"output={link}")
    assert link.read_text() == before


def test_direction_of_a_metric():
    def best(metric, target):
        root = OmegaConf.create({"task": {"metrics": {"mine": {"_target_": target}}}})
        return direction(metric, _root_=root)

    assert direction("val/bits_per_byte") == direction("val/other/loss") == "min"
    assert direction("val/rougeL") == "max"
    calibration = "torchmetrics.classification.MulticlassCalibrationError"
    assert best("val/mine", calibration) == "min"
    assert best("val/mine", "torchmetrics.classification.MulticlassAccuracy") == "max"
    with pytest.raises(UserError, match="whether more of val/mine is better is not known"):
        best("val/mine", "hydralight.metrics.evaluate.Evaluate")
