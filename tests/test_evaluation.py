"""Losses and metrics of evaluated sets, without a trainer; and what callbacks may wait for."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassF1Score
from torchmetrics.regression import MeanAbsoluteError
from torchmetrics.wrappers import ClasswiseWrapper

from hydralight.errors import UserError
from hydralight.metrics.auroc import LabelAUROC
from hydralight.metrics.entities import EntityScores
from hydralight.metrics.perplexity import Perplexity
from hydralight.metrics.rouge import Rouge
from hydralight.metrics.squad import SquadScores
from hydralight.metrics.translation import SacreBLEU
from hydralight.tasks.evaluation import Evaluation, check_monitors


class Extremes(Metric):
    """A metric of several values; `names` tells them, or nothing does."""

    def __init__(self, names=None):
        super().__init__()
        self.add_state("values", [], dist_reduce_fx="cat")
        if names is not None:
            self.names = names

    def update(self, preds, target=None):
        self.values.append(preds)

    def compute(self):
        values = torch.cat(self.values)
        return {"least": values.min(), "most": values.max()}


def evaluation(further=None, **metrics):
    made = Evaluation(further)
    made.metrics = torch.nn.ModuleDict(metrics)
    return made


def feed(made, numbers, size, **more):
    """Batches of that size; the losses are the numbers, each of weight 2."""
    for part in torch.tensor(numbers).split(size):
        scores = {
            "mean": (part,),
            "extremes": (part,),
            **{n: (part, one) for n, one in more.items()},
        }
        made.update(2 * part.sum(), torch.tensor(2.0 * len(part)), scores)


def floats(values):
    return {name: float(value) for name, value in values.items()}


@pytest.mark.parametrize("size", [1, 3, 10])
def test_sets_one_after_the_other(size):
    made = evaluation(mean=MeanMetric(), extremes=Extremes())
    sets = [1.0, 5.0, 2.5, -3.0], [7.0, 8.0]
    for number, numbers in enumerate(sets):
        made.end_sets(number)
        feed(made, numbers, size)
    expected = [
        {"loss": np.mean(n), "mean": np.mean(n), "least": min(n), "most": max(n)} for n in sets
    ]
    assert [floats(values) for values in made.take_sets(2)] == [pytest.approx(e) for e in expected]
    feed(made, [4.0], size)  # the next evaluation knows nothing of them
    (again,) = made.take_sets(1)
    assert floats(again) == {"loss": 4, "mean": 4, "least": 4, "most": 4}


def test_the_loss_is_a_mean_over_targets():
    made = evaluation()
    for loss_sum, weight in ((6.0, 4), (0.0, 0), (1.0, 1)):
        made.update(torch.tensor(loss_sum), torch.tensor(weight), {})
    assert floats(made.compute()) == {"loss": pytest.approx(7 / 5)}


def test_a_rank_without_a_batch_of_a_set():
    made = evaluation()
    made.end_sets(1)  # the first batch that it sees is one of the second set
    made.update(torch.tensor(3.0), torch.tensor(2.0), {})
    first, second, third = [float(values["loss"]) for values in made.take_sets(3)]
    assert second == 1.5
    assert math.isnan(first)
    assert math.isnan(third)


def test_further_metrics_stand_beside_the_tasks_own():
    further = {"mae": MeanAbsoluteError(), "more": Extremes(), "mean": Extremes(["least", "most"])}
    made = evaluation(further, extremes=Extremes(["least", "most"]))
    half = torch.tensor([0.5, 2.0], dtype=torch.bfloat16)
    made.update(
        torch.tensor(1.0),
        torch.tensor(1.0),
        {"extremes": (torch.tensor([1.0, 3.0]),), "further": (half, torch.tensor([0.0, 1.0]))},
    )
    assert made.further["more"].values[0].dtype == torch.float32
    names, others = made.names()
    values = made.compute()
    assert floats(values) == {
        **{"loss": 1, "least": 1, "most": 3, "mae": 0.75},
        **{"more/least": 0.5, "more/most": 2, "mean/least": 0.5, "mean/most": 2},
    }
    assert others  # of `more` nobody knows
    assert set(values) - set(names) == {"more/least", "more/most"}


def test_what_further_metrics_are_refused_for():
    with pytest.raises(UserError, match=r"task\.metrics\.mine should be"):
        Evaluation({"mine": 5})
    for name in ("a.b", "values"):
        with pytest.raises(UserError, match="a metric cannot have this name"):
            Evaluation({name: MeanMetric()})
    one = torch.tensor(1.0)
    made = evaluation({"mine": MeanAbsoluteError()})
    with pytest.raises(UserError, match=r"^task\.metrics\.mine: this task has nothing"):
        made.update(one, one, {})
    with pytest.raises(UserError, match=r"^task\.metrics\.mine: "):
        made.update(one, one, {"further": (torch.ones(3), torch.ones(4))})
    made = evaluation({"mean": MeanAbsoluteError()}, mean=MeanMetric())
    made.update(one, one, {"mean": (one,), "further": (one, one)})
    with pytest.raises(UserError, match="the task has a metric of that name"):
        made.compute()
    made = evaluation({"mine": MulticlassF1Score(3, average="none")})
    made.update(one, one, {"further": (torch.tensor([0, 1]), torch.tensor([0, 2]))})
    with pytest.raises(UserError, match="has more than one value"):
        made.compute()


TEXTS = (["storm river"], ["storm bridge"])
CLASSES = (torch.tensor([[0.9, 0.1], [0.2, 0.6]]), torch.tensor([[1, 0], [0, 1]]))
METRICS = {
    "rouge": (Rouge(), TEXTS),
    "bleu": (SacreBLEU(), TEXTS),
    "squad": (SquadScores(), (["", "storm"], [[], ["storm"]])),
    "entities": (EntityScores(["PER", "LOC"]), ([["B-PER"]], [["B-LOC"]])),
    "perplexity": (Perplexity(), (torch.tensor(1.0), torch.tensor(2), torch.tensor([3]))),
    "of tokens": (Perplexity(by_byte=False), (torch.tensor(1.0), torch.tensor(2))),
    "auroc": (LabelAUROC(["a", "b"]), CLASSES),
    "by class": (
        ClasswiseWrapper(MulticlassF1Score(2, average="none"), labels=["a", "b"], prefix="f1/"),
        (torch.tensor([0, 1]), torch.tensor([0, 0])),
    ),
    "one value": (MeanMetric(), (torch.tensor(1.0),)),
}


@pytest.mark.parametrize("name", METRICS)
def test_names_are_known_before_the_values(name):
    metric, arguments = METRICS[name]
    made = evaluation(**{name: metric})
    names, others = made.names()
    one = torch.tensor(1.0)
    made.update(one, one, {name: arguments})
    assert names == [*made.compute()]
    assert not others


# ---------------------------------------------------------------- monitors


def task_of(made, prefixes=("val/",)):
    names, others = made.names()
    return SimpleNamespace(
        evaluated_names=lambda: ([p + n for p in prefixes for n in names], others)
    )


def monitoring(*names):
    return [SimpleNamespace(), *(SimpleNamespace(monitor=name) for name in names)]


def test_monitors_are_those_of_the_metrics_that_are_built():
    task = task_of(evaluation(rouge=Rouge()), ("val/", "val/other/"))
    check_monitors(monitoring("val/rouge1", "val/loss", "val/other/rougeL", None), task)
    with pytest.raises(UserError) as caught:
        check_monitors(monitoring("val/loss", "val/rouge"), task)
    said = str(caught.value)
    assert said.startswith(
        "SimpleNamespace monitors 'val/rouge' (optimized_metric), which is never logged: it is not "
        "among the metrics of this data: val/loss, val/rouge1, val/rouge2, val/rougeL, "
    )
    assert said.endswith("val/other/rougeLsum; did you mean 'val/rougeL'?")
    for name in ("rouge1", "test/rouge1", "val/third/rouge1"):
        with pytest.raises(UserError, match="never logged"):
            check_monitors(monitoring(name), task)


def test_further_metrics_may_log_any_name():
    check_monitors(
        monitoring("val/mine", "val/anything"), task_of(evaluation({"mine": Extremes()}))
    )
    told = task_of(evaluation({"mine": Extremes(["least", "most"])}))
    check_monitors(monitoring("val/least"), told)
    for name, task in (("val/anything", told), ("train/x", task_of(evaluation({"a": Extremes()})))):
        with pytest.raises(UserError, match="never logged"):
            check_monitors(monitoring(name), task)
