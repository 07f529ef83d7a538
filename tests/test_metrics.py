"""Metrics are what their reference implementations give, whatever batches the data comes in."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import sacrebleu.metrics
import scipy.stats
import seqeval.metrics
import sklearn.metrics
import torch
from forked import served
from standins import WORDS
from torch import nn

from hydralight.errors import UserError
from hydralight.metrics.auroc import LabelAUROC
from hydralight.metrics.entities import EntityScores
from hydralight.metrics.evaluate import Evaluate
from hydralight.metrics.perplexity import Perplexity
from hydralight.metrics.retrieval import RetrievalScores
from hydralight.metrics.squad import SquadScores
from hydralight.metrics.translation import SacreBLEU
from hydralight.tasks.causal_lm import CausalLMTask
from hydralight.tasks.classification import ImageClassificationTask, TextClassificationTask


def fed(metric, *columns, size=3):
    """The values of a metric after batches of unequal sizes."""
    for start in range(0, len(columns[0]), size):
        metric.update(*(column[start : start + size] for column in columns))
    return {name: float(value) for name, value in metric.compute().items()}


def sentences(rng, tags, number):
    return [[str(tag) for tag in rng.choice(tags, rng.integers(1, 9))] for _ in range(number)]


@pytest.mark.parametrize("prefixes", ["BI", "I", "BIES"])
def test_entities(prefixes):
    rng = np.random.default_rng(0)
    types = ["LOC", "MISC", "PER"]
    tags = ["O", "O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("LOC", "PER"))]
    right = [*sentences(rng, tags, 40), ["O"] * 5]
    # one tag in four is wrong; MISC is only ever predicted
    wrong = [*tags, f"{prefixes[0]}-MISC"]
    predicted = [
        [str(rng.choice(wrong)) if rng.random() < 0.25 else tag for tag in row] for row in right
    ]
    scores = fed(EntityScores(types), predicted, right, size=7)
    report = seqeval.metrics.classification_report(
        right, predicted, output_dict=True, zero_division=0
    )
    expected = {f"f1/{kind}": report[kind]["f1-score"] for kind in types}
    for name in ("precision", "recall", "f1"):
        expected[name] = getattr(seqeval.metrics, f"{name}_score")(right, predicted)
    expected["accuracy"] = seqeval.metrics.accuracy_score(right, predicted)
    assert 0.2 < expected["f1"] < 0.9
    assert scores == pytest.approx(expected, abs=1e-6)


def test_entities_where_there_are_none():
    scores = fed(EntityScores(["LOC"]), [["O", "O"], ["O"]], [["O", "B-LOC"], ["O"]])
    nothing = {"precision": 0, "recall": 0, "f1": 0, "f1/LOC": 0}
    assert scores == pytest.approx({**nothing, "accuracy": 2 / 3})


SQUAD = [  # prediction, references, exact match and F1
    ("The  Cat!", ["cat"], 1, 1),
    ("a cat, an apple", ["CAT apple"], 1, 1),
    ("U.S.", ["the US"], 1, 1),
    ("theatre", ["atre"], 0, 0),  # an article is a whole word
    ("red big cat", ["the big dog", "big cat", "sea"], 0, 0.8),
    ("cat cat", ["cat"], 0, 2 / 3),  # a word counts as often as it is there
    ("cat dog", ["dog cat"], 0, 1),
    ("", ["cat"], 0, 0),
]
UNANSWERABLE = [
    ("", [], 1, 1),
    ("The ", [], 1, 1),  # empty by the same rules
    ("cat", [], 0, 0),
    ("", ["the", "cat"], 0, 0),  # a reference that is empty by the rules is none
]


@pytest.mark.parametrize("case", SQUAD + UNANSWERABLE, ids=str)
def test_squad_rules(case):
    prediction, references, exact, f1 = case
    scores = fed(SquadScores(), [prediction], [references])
    assert scores["exact_match"] == 100 * exact
    assert scores["f1"] == pytest.approx(100 * f1)


def test_squad_means_over_kinds_of_questions():
    predictions, references, exact, f1 = zip(*SQUAD, strict=True)
    means = {"exact_match": 100 * np.mean(exact), "f1": 100 * np.mean(f1)}
    assert fed(SquadScores(), predictions, references) == pytest.approx(means)
    has = {f"HasAns_{name}": value for name, value in means.items()}
    none = [("", [], 1, 1), ("cat", [], 0, 0), ("dog", [], 0, 0), ("", [], 1, 1), ("", [], 1, 1)]
    predictions, references, exact, f1 = zip(*none, *SQUAD, strict=True)
    means = {"exact_match": 100 * np.mean(exact), "f1": 100 * np.mean(f1)}
    no = {"NoAns_exact_match": 60, "NoAns_f1": 60}
    assert fed(SquadScores(), predictions, references) == pytest.approx({**means, **has, **no})


@pytest.mark.parametrize("options", [{}, {"lowercase": True}, {"tokenize": "char"}], ids=str)
def test_sacrebleu(options):
    rng = np.random.default_rng(0)
    references = [" ".join(rng.choice(WORDS, 9)).capitalize() + "." for _ in range(20)]
    predictions = [
        " ".join(w if rng.random() < 0.8 else w.upper() for w in line.split()[: rng.integers(5, 9)])
        for line in references
    ]
    case = {"lowercase": options.get("lowercase", False)}
    bleu = sacrebleu.metrics.BLEU(**options).corpus_score(predictions, [references])
    chrf = sacrebleu.metrics.CHRF(**case).corpus_score(predictions, [references])
    assert 5 < bleu.score < 95
    scores = fed(SacreBLEU(**options), predictions, references, size=6)
    assert scores == pytest.approx({"bleu": bleu.score, "chrf": chrf.score}, rel=1e-5)


def multilabel(seed, rows=40):
    """Probabilities with ties and targets of four labels; no row has the third one."""
    rng = np.random.default_rng(seed)
    scores, labels = rng.random((rows, 4)).round(1), rng.random((rows, 4)) < 0.4
    labels[:, 2] = False
    return scores, labels.astype(int)


def test_auroc():
    scores, labels = multilabel(0)
    labels[:, 3] = 1
    found = fed(LabelAUROC("abcd"), torch.tensor(scores), torch.tensor(labels), size=15)
    areas = [sklearn.metrics.roc_auc_score(labels[:, i], scores[:, i]) for i in (0, 1)]
    expected = dict(zip(("auroc/a", "auroc/b"), areas, strict=True))
    assert math.isnan(found.pop("auroc/c"))
    assert math.isnan(found.pop("auroc/d"))
    assert found == pytest.approx({**expected, "auroc": np.mean(areas)})


def of_task(cls, problem_type, names, logits, labels, **kwargs):
    """The metrics of a classification task after batches of 7 rows."""
    task = cls(model=None, optimizer=None, problem_type=problem_type, **kwargs)
    task.trainer = SimpleNamespace(datamodule=SimpleNamespace(label_names=names))
    logits, labels = torch.tensor(logits).float(), torch.tensor(labels)
    batches = torch.arange(len(labels)).split(7)
    return evaluated(task, [({"labels": labels[rows]}, logits[rows]) for rows in batches])


def evaluated(task, batches):
    """The metrics of a task after batches, each with the logits that a model gives."""
    task.evaluation.metrics = nn.ModuleDict(task.build_metrics())
    one = torch.tensor(1.0)
    for batch, logits in batches:
        outputs = SimpleNamespace(logits=logits)
        scores = task.score(outputs, batch, task.decode(outputs, batch))
        task.evaluation.update(one, one, scores)
    names, _ = task.evaluation.names()
    found = {name: float(value) for name, value in task.evaluation.compute().items()}
    assert [*found] == names
    del found["loss"]
    return found


@pytest.mark.parametrize(
    ("size", "given", "right"),
    [
        (2, [0, 1], [0, 1]),
        (2, [1], [0, 1]),  # the constant prediction of a model that has learnt nothing
        (2, [0, 1], [1]),
        (2, [1], [1]),
        (5, [0, 1, 2, 3], [0, 1, 3]),  # a class is only predicted, and one is nowhere
    ],
)
def test_single_label_metrics(size, given, right):
    rng = np.random.default_rng(size)
    labels, predicted = rng.choice(right, 40), rng.choice(given, 40)
    logits = rng.normal(size=(40, size))
    logits[np.arange(40), predicted] = 5
    reference = sklearn.metrics
    expected = {
        "accuracy": reference.accuracy_score(labels, predicted),
        "f1_macro": reference.f1_score(labels, predicted, average="macro"),
        "f1_micro": reference.f1_score(labels, predicted, average="micro"),
        "mcc": reference.matthews_corrcoef(labels, predicted),
    }
    if size == 2:
        expected["f1"] = reference.f1_score(labels, predicted)
    names = [str(i) for i in range(size)]
    found = of_task(TextClassificationTask, "single_label_classification", names, logits, labels)
    assert found == pytest.approx(expected, abs=1e-6)


def test_multi_label_metrics():
    scores, labels = multilabel(1)
    scores = scores.clip(0.01, 0.99)
    logits = np.log(scores / (1 - scores))
    names, threshold = ["a", "b", "c", "d"], 0.35
    predicted = (scores > threshold).astype(int)
    predicted[:, 2], logits[:, 2] = 0, -5  # nobody has this label, nor is it given
    expected = {"accuracy": sklearn.metrics.accuracy_score(labels, predicted)}
    f1 = sklearn.metrics.f1_score
    for average in ("macro", "micro"):
        expected[f"f1_{average}"] = f1(labels, predicted, average=average, zero_division=0)
    by_label = f1(labels, predicted, average=None, zero_division=0)
    expected |= {f"f1/{name}": value for name, value in zip(names, by_label, strict=True)}
    for place in (0, 1, 3):
        area = sklearn.metrics.roc_auc_score(labels[:, place], scores[:, place])
        expected[f"auroc/{names[place]}"] = area
    expected["auroc"] = np.mean([v for n, v in expected.items() if n.startswith("auroc/")])
    found = of_task(
        TextClassificationTask,
        "multi_label_classification",
        names,
        logits,
        labels.astype(np.float32),
        threshold=threshold,
    )
    assert math.isnan(found.pop("auroc/c"))
    assert found == pytest.approx(expected, abs=1e-6)


def test_regression_metrics():
    rng = np.random.default_rng(2)
    labels = rng.normal(size=40).round(1).astype(np.float32)  # with ties
    logits = (labels + rng.normal(size=40)).round(1).astype(np.float32)
    expected = {
        "pearson": scipy.stats.pearsonr(logits, labels).statistic,
        "spearman": scipy.stats.spearmanr(logits, labels).statistic,
        "mse": sklearn.metrics.mean_squared_error(labels, logits),
    }
    found = of_task(TextClassificationTask, "regression", ["x"], logits[:, None], labels)
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [5, 8])
def test_top5(size):
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(40, size)), rng.integers(0, size, 40)
    names = [str(i) for i in range(size)]
    found = of_task(ImageClassificationTask, "single_label_classification", names, logits, labels)
    assert ("top5" in found) == (size > 5)
    if size > 5:
        score = sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(size))
        assert 0 < score < 1
        assert found["top5"] == pytest.approx(score)


def test_perplexity():
    """Of a causal model's logits, over batches that differ in rows, tokens and bytes."""
    rng = np.random.default_rng(4)
    task = CausalLMTask(model=None, optimizer=None)
    task.trainer = SimpleNamespace(datamodule=SimpleNamespace(shape=None))
    batches, nlls, num_bytes = [], [], 0
    for rows, length in ((1, 3), (5, 9), (2, 2)):
        logits = 2 * rng.normal(size=(rows, length, 6))
        labels = rng.integers(0, 6, (rows, length))
        labels[-1, 2:] = -100
        sizes = rng.integers(3, 30, rows)
        batch = {"labels": torch.tensor(labels), "num_bytes": torch.tensor(sizes)}
        batches.append((batch, torch.tensor(logits)))
        num_bytes += int(sizes.sum())
        for row in range(rows):
            for place in range(1, length):
                if labels[row, place] != -100:
                    before = np.exp(logits[row, place - 1])
                    nlls.append(-math.log(before[labels[row, place]] / before.sum()))
    expected = {
        "perplexity": math.exp(sum(nlls) / len(nlls)),
        "bits_per_byte": sum(nlls) / num_bytes / math.log(2),
        "byte_perplexity": math.exp(sum(nlls) / num_bytes),
    }
    assert evaluated(task, batches) == pytest.approx(expected, rel=1e-5)
    without = Perplexity()
    without.update(torch.tensor(sum(nlls)), torch.tensor(len(nlls)))
    assert {n: float(v) for n, v in without.compute().items()} == pytest.approx(
        {"perplexity": expected["perplexity"]}
    )


SCRIPT = '''
import datasets
import evaluate


class Same(evaluate.Metric):
    """The part of pairs that are equal, and how many distinct predictions there are."""

    def _info(self):
        kind = {
            "ids": datasets.Value("int64"),
            "lists": datasets.Sequence(datasets.Value("int64")),
            "numbers": datasets.Value("float64"),
            "texts": datasets.Value("string"),
        }[self.config_name]
        features = datasets.Features({"predictions": kind, "references": kind})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references, scale=1):
        same = sum(p == r for p, r in zip(predictions, references)) / len(references)
        kinds = {str(p) for p in predictions}
        return {"same": scale * same, "kinds": len(kinds), "all": str(predictions)}
'''


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "same.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "preds", "target", "same", "kinds"),
    [
        ("ids", np.eye(3)[[2, 0, 0, 1]], [2, 0, 1, 1], 3 / 4, 3),
        ("ids", np.array([2, 2, 0]), [2, 0, 0], 2 / 3, 2),
        # (rows, classes, words) against (rows, words), of which -100 are left out
        (
            "lists",
            np.eye(3)[[[1, 2, 0], [0, 0, 1]]].swapaxes(1, 2),
            [[1, 2, -100], [-100, 0, 2]],
            1 / 2,
            2,
        ),
        ("lists", np.array([[0.9, 0.2], [0.4, 0.1]]), [[1, 0], [0, 1]], 1 / 2, 2),
        ("numbers", np.array([0.5, 2.0, 0.5]), [0.5, 1.0, 0.5], 2 / 3, 2),
        ("texts", ["a", "b", "c"], ["a", "x", "x"], 1 / 3, 3),
    ],
)
def test_evaluate(script, kind, preds, target, same, kinds):
    metric = Evaluate(script, kind, compute={"scale": 100})
    if kind != "texts":
        preds, target = torch.tensor(preds), torch.tensor(target)
    metric.update(target, target)
    metric.reset()
    expected = {"same": pytest.approx(100 * same), "kinds": kinds}
    assert fed(metric, preds, target, size=1 if kind != "lists" else 2) == expected


def test_evaluate_refuses(tmp_path):
    with pytest.raises(UserError, match=r"the metric .*nothing\.py cannot be loaded"):
        Evaluate(str(tmp_path / "nothing.py"))


def scores_of(script, rows):
    """The scores of some of seven examples that are the same in each process."""
    rng = np.random.default_rng(5)
    tags = ["O", "B-LOC", "I-LOC"]
    right = sentences(rng, tags, 7)
    tagged = [[str(tag) for tag in rng.permutation(row)] for row in right]
    answers, references = [w for w, *_ in SQUAD[:7]], [r for _, r, *_ in SQUAD[:7]]
    lines = [" ".join(rng.choice(WORDS, 6)) for _ in range(7)]
    cut = [line[:-3] if i % 2 else line for i, line in enumerate(lines)]
    ids, other = torch.tensor([0, 1, 1, 2, 2, 2, 3]), torch.tensor([0, 2, 1, 2, 0, 2, 3])
    return [
        fed(EntityScores(["LOC"]), tagged[rows], right[rows], size=2),
        fed(SquadScores(), answers[rows], references[rows], size=2),
        fed(SacreBLEU(), cut[rows], lines[rows], size=2),
        fed(Evaluate(script, "ids"), ids[rows], other[rows], size=2),
    ]


def score_a_share(rank, script, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    torch.save(scores_of(script, [slice(0, 5), slice(5, 7)][rank]), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_score_as_one(script, tmp_path):
    served().call(score_a_share, (script, tmp_path), 2)
    alone = scores_of(script, slice(0, 7))
    assert alone[3] == pytest.approx({"same": 5 / 7, "kinds": 4})
    for rank in range(2):
        for found, expected in zip(torch.load(tmp_path / f"{rank}.pt"), alone, strict=True):
            assert found == pytest.approx(expected)


@pytest.mark.parametrize("size", [3, 50])
def test_retrieval(size):
    """Ranks by a sort of each row, of more anchors than are compared at once."""
    rng = torch.Generator().manual_seed(0)
    anchors = torch.nn.functional.normalize(torch.randn(700, 6, generator=rng), dim=-1)
    noise = 0.4 * torch.randn(700, 6, generator=rng)
    positives = torch.nn.functional.normalize(anchors + noise, dim=-1)
    ranks = [
        1 + (scores.argsort(descending=True) == place).nonzero().item()
        for place, scores in enumerate(anchors @ positives.T)
    ]
    found = fed(RetrievalScores(), anchors, positives, size=size)
    assert found["accuracy@1"] == pytest.approx(np.mean([rank == 1 for rank in ranks]))
    assert found["mrr@10"] == pytest.approx(np.mean([1 / r if r <= 10 else 0 for r in ranks]))
    assert 0.05 < found["accuracy@1"] < found["mrr@10"] < 0.95
    same = fed(RetrievalScores(), torch.ones(100, 2), torch.ones(100, 2))
    assert same["accuracy@1"] == pytest.approx(0.01)
