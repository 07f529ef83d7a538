"""Columns by split, and several references for one input."""

import json
import math
from itertools import product

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from standins import article, write_jsonl
from torchmetrics.text import SacreBLEUScore

import hydralight
from hydralight.callbacks.samples import Samples
from hydralight.data.mix import Mix
from hydralight.data.module import DataModule
from hydralight.data.rows import read_rows
from hydralight.data.shapes.seq2seq import Summarization, Translation
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError
from hydralight.metrics.exact import ExactMatch
from hydralight.metrics.rouge import Rouge
from hydralight.metrics.translation import SacreBLEU
from hydralight.tasks import seq2seq

KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
WRITTEN = ["the storm was seen by three people", "a river ran", "the mayor came to the bridge"]
RIGHT = [
    ["three people saw the storm", "the storm was seen", "a storm and three people"],
    ["the river ran by"],
    ["mayors come to bridges", "a mayor came to the old bridge"],
]


def rouge_of(predictions, references):
    """By rouge-score itself: the mean over rows of the best F-measure of each kind."""
    scorer = RougeScorer(KINDS, use_stemmer=True)
    rows = [scorer.score_multi(r, p) for p, r in zip(predictions, references, strict=True)]
    return {kind: sum(row[kind].fmeasure for row in rows) / len(rows) for kind in KINDS}


# ------------------------------------------------------------ metrics


def test_rouge_of_several_references():
    metric = Rouge()
    metric.update(WRITTEN[:1], RIGHT[:1])
    metric.update(WRITTEN[1:], RIGHT[1:])
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == pytest.approx(rouge_of(WRITTEN, RIGHT), abs=1e-6)
    for chosen in product(*RIGHT):  # no choice of one reference a row is as good
        one = Rouge()
        one.update(WRITTEN, list(chosen))
        assert float(one.compute()["rouge1"]) <= found["rouge1"] + 1e-6


def test_bleu_of_several_references():
    metric = SacreBLEU()
    metric.update(WRITTEN, RIGHT)
    streams = [
        [RIGHT[0][0], RIGHT[1][0], RIGHT[2][0]],
        [RIGHT[0][1], None, RIGHT[2][1]],
        [RIGHT[0][2], None, None],
    ]
    bleu, chrf = (kind().corpus_score(WRITTEN, streams).score for kind in (BLEU, CHRF))
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found == pytest.approx({"bleu": bleu, "chrf": chrf})
    other = SacreBLEUScore()  # counted by torchmetrics' own code
    other.update(WRITTEN, RIGHT)
    assert found["bleu"] == pytest.approx(100 * float(other.compute()), abs=1e-3)
    firsts = SacreBLEU()
    firsts.update(WRITTEN, [right[0] for right in RIGHT])
    assert float(firsts.compute()["bleu"]) < found["bleu"]


def test_exact_match_of_any():
    metric = ExactMatch()
    metric.update(["a b ", "c", "d"], [["x", "a b"], "c", ["D", "dd"]])
    metric.update(["e"], ["e e"])
    assert float(metric.compute()) == pytest.approx(2 / 4)


# ------------------------------------------------------------ data


def read(splits, shape=None, by_split=None, columns=None, mix=None):
    source = Source(source=lambda: splits, columns=columns, columns_by_split=by_split)
    parting = Splits(validation_fraction=0.25)
    return read_rows(source, parting, Mix(**(mix or {})), shape or Summarization())


def rows_of(number, *more):
    names = ["text", *(more or ("summary",))]
    return [{name: f"{name} {i}" for name in names} for i in range(number)]


BY_SPLIT = {"test": {"summary": ["one", "two", "three"]}}


def test_columns_of_a_split():
    """They go before the others; rows may have fewer references, and empty ones are none."""
    test = rows_of(3, "one", "two", "three")
    test[1] |= {"one": None, "three": "  "}
    splits = {"train": rows_of(8), "test": test}
    found = read(splits, by_split=BY_SPLIT).splits
    assert found["train"]["summary"][0] == "summary 0"
    assert found["test"]["summary"][:] == [
        ["one 0", "two 0", "three 0"],
        ["two 1"],
        ["one 2", "two 2", "three 2"],
    ]
    named = {"test": {"text": "one", "summary": "two"}}
    found = read(splits | {"test": test[:1]}, by_split=named).splits
    assert found["test"][0] == {"text": "one 0", "summary": "two 0"}
    lists = [{"source": "s", "refs": ["a"]}, {"source": "s", "refs": ["a", "b"]}]
    train = [{"source": f"s {i}", "target": f"t {i}"} for i in range(8)]
    by_split = {"test": {"target": "refs"}}
    found = read({"train": train, "test": lists}, Translation(), by_split).splits
    assert found["test"]["target"][:] == [["a"], ["a", "b"]]


LISTS = [{**row, "refs": ["a", "b"]} for row in rows_of(8)]
NONE = [{"text": "t", "one": None, "two": "", "three": None}]


@pytest.mark.parametrize(
    ("splits", "by_split", "sentence"),
    [
        ({}, {"tset": {"summary": "one"}}, "names the split 'tset'; did you mean 'test'"),
        ({}, {"test": {"sumary": "one"}}, "data.columns_by_split.test names 'sumary', which is no"),
        (
            *({}, {"validation": {"summary": "one"}}),
            "data.columns_by_split.validation: the data has no such split, and what is cut out of",
        ),
        ({"test": NONE}, BY_SPLIT, r"row 1: the summary \(columns one, two, three\) is empty"),
        (
            *({"test": [{"text": "t", "body": "b", "highlights": "h"}]}, None),
            r"try 'data\.columns_by_split\.test=\{text: .*, summary: highlights\}'",
        ),
    ],
)
def test_columns_of_a_split_refused(splits, by_split, sentence):
    with pytest.raises(UserError, match=sentence):
        read({"train": rows_of(8), **splits}, by_split=by_split)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"summary": "refs"},
            r"the summary is a list \(column 'refs'\), and training takes one text: name it, as in "
            r"'data\.columns=\{summary: \"refs\[0\]\"\}', .* "
            r"'data\.columns_by_split=\{test: \{summary: refs\}\}'",
        ),
        ({"summary": ["text", "summary"]}, r"\{test: \{summary: \[text, summary\]\}\}"),
    ],
)
def test_one_target_is_trained_on(columns, sentence, tmp_path):
    source = Source(source=lambda: {"train": LISTS}, columns=columns)
    data = DataModule(shape=Summarization(), source=source, tokenizer=lambda *_, **__: None)
    with pytest.raises(UserError, match=sentence):
        data.encoded("train")
    path = write_jsonl(tmp_path / "a.jsonl", LISTS)
    mix = {"mix": {"more": {"path": str(path), "weight": 0.5, "columns": columns}}}
    with pytest.raises(UserError, match=f"data.mix.more .*{sentence}"):
        read({"train": rows_of(8)}, mix=mix)


def test_samples_tell_references_apart(tmp_path):
    samples = Samples(str(tmp_path))
    assert samples.cell(["one text", "another"], 40).plain == "one text | another"
    assert samples.cell(["O", "B-LOC"], 40).plain == "O B-LOC"


# ------------------------------------------------------------ a run


def told(number, references):
    """An article with its own summary and others; of even ones the second is what `lead` writes."""
    texts = [article(number + i)["highlights"] for i in range(3)]
    if number % 2 == 0:
        texts[1] = lead_of(article(number)["article"])
    own = {f"h{i}": text for i, text in enumerate(texts[:references])}
    return {"article": article(number)["article"], **own}


def lead_of(text):
    return text.partition(" on that")[0]


def lead(model, processor, batch, read):
    """Stands for what a trained model writes: the source's words, of which references have some."""
    texts = [lead_of(text) for text in batch["text"]]
    return {"prediction": texts, "gen_len": [len(text.split()) for text in texts]}


@pytest.fixture(scope="module")
def written():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seq2seq, "write", lead)
        yield


@pytest.fixture(scope="module")
def run(written, tiny_bart, articles, tmp_path_factory):
    """A run with two references in validation, and one to three in test."""
    folder = tmp_path_factory.mktemp("references")
    validation = write_jsonl(folder / "validation.jsonl", [told(20 + i, 2) for i in range(5)])
    test = write_jsonl(folder / "test.jsonl", [told(40 + i, 1 + i % 3) for i in range(6)])
    files = f"{{train: {articles / 'train.jsonl'}, validation: {validation}, test: {test}}}"
    return hydralight.train(
        [
            *("experiment=bart_cnn", f"checkpoint={tiny_bart}", f"data.path={files}"),
            *("data.max_source_length=128", "generation.max_new_tokens=12", "test=true"),
            *(f"paths.log_dir={folder / 'logs'}", "trainer.accelerator=cpu"),
            *("callbacks.rich_progress=null", "trainer.max_steps=1"),
            "data.columns_by_split={test: {summary: [h0, h1, h2]}}",
            "data.columns_by_split.validation.summary=[h0, h1]",
            "+task.metrics={exact: {_target_: hydralight.metrics.exact.ExactMatch}}",
        ]
    )


def scored(rows):
    return rouge_of([row["prediction"] for row in rows], [row["reference"] for row in rows])


def test_a_run_with_several_references(run):
    """Its metrics are rouge-score's of its own predictions, with all references of each."""
    rows = run.predictions("test")
    assert [len(row["reference"]) for row in rows] == [1, 2, 3, 1, 2, 3]
    assert rows[2]["reference"] == [told(42, 3)[f"h{i}"] for i in range(3)]
    found = {kind: run.metrics["test"][f"test/{kind}"] for kind in KINDS}
    assert found == pytest.approx(scored(rows), abs=1e-6)
    firsts = [row["reference"][0] for row in rows]
    first = rouge_of([row["prediction"] for row in rows], [[one] for one in firsts])
    assert found["rouge1"] > first["rouge1"] + 0.01
    assert run.metrics["test"]["test/exact"] == pytest.approx(2 / 6)
    samples = sorted((run.path / "samples").glob("*.jsonl"))[-1].read_text().splitlines()
    assert [len(json.loads(line)["reference"]) for line in samples] == [2, 2, 2]


def test_the_loss_is_that_of_the_first_reference(run, tmp_path):
    """So it is the loss of data that has no other."""
    first = write_jsonl(tmp_path / "first.jsonl", [told(40 + i, 1) for i in range(6)])
    only = ["data.columns_by_split={test: {summary: h0}}", "split=test"]
    found = hydralight.evaluate([f"run={run.path}", f"data.path={first}", *only])
    assert math.isfinite(found["test/loss"])
    assert found["test/loss"] == pytest.approx(run.metrics["test"]["test/loss"], rel=1e-6)
    assert found["test/exact"] == 0
    assert found["test/rouge1"] + 0.01 < run.metrics["test"]["test/rouge1"]


def test_other_references_are_no_others_cache(run, tmp_path):
    """The same file by other columns, and another one."""
    folder = run.path / "predictions"
    fewer = ["data.columns_by_split.test.summary=[h0, h1]", "split=test"]
    found = hydralight.evaluate([f"run={run.path}", *fewer])
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
    assert [len(row["reference"]) for row in rows] == [1, 2, 2, 1, 2, 2]
    assert {k: found[f"test/{k}"] for k in KINDS} == pytest.approx(scored(rows), abs=1e-6)
    other = write_jsonl(tmp_path / "other.jsonl", [told(50 + i, 3) for i in range(2)])
    found = hydralight.evaluate([f"run={run.path}", f"data.path={other}", "split=test"])
    rows = [json.loads(line) for line in (folder / "test-other.jsonl").read_text().splitlines()]
    assert [len(row["reference"]) for row in rows] == [3, 3]
    assert {k: found[f"test/{k}"] for k in KINDS} == pytest.approx(scored(rows), abs=1e-6)
