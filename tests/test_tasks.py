"""What every task is: options as dataclass fields, columns said once, steps that are looked at."""

import copy
import inspect
import json
import shutil
from dataclasses import dataclass, fields
from functools import wraps
from types import SimpleNamespace

import pytest
import torch
from torchmetrics import MeanMetric
from transformers import AutoModelForSeq2SeqLM
from transformers.models.bart.modeling_bart import BartEncoder

import hydralight
from hydralight.commands import start
from hydralight.errors import UserError
from hydralight.tasks.causal_lm import CausalLMTask
from hydralight.tasks.classification import ImageClassificationTask, TextClassificationTask
from hydralight.tasks.masked_lm import MaskedLMTask
from hydralight.tasks.multiple_choice import MultipleChoiceTask
from hydralight.tasks.question_answering import QuestionAnsweringTask
from hydralight.tasks.recurrent_lm import RecurrentLMTask
from hydralight.tasks.seq2seq import SummarizationTask, TranslationTask
from hydralight.tasks.task import Task
from hydralight.tasks.token_classification import TokenClassificationTask

TASKS = [CausalLMTask, ImageClassificationTask, MaskedLMTask, MultipleChoiceTask]
TASKS += [QuestionAnsweringTask, RecurrentLMTask, SummarizationTask, TextClassificationTask]
TASKS += [TokenClassificationTask, TranslationTask]
COMMON = ["model", "optimizer", "scheduler", "generation", "loss", "label_smoothing", "non_finite"]
COMMON += ["torch_compile", "metrics"]


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("cls", TASKS)
def test_a_signature_has_all_arguments(cls):
    parameters = inspect.signature(cls).parameters
    assert [*parameters] == [field.name for field in fields(cls) if field.init]
    assert [*parameters][: len(COMMON)] == COMMON
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    task = cls(model=None, optimizer=None)
    assert hash(task) != hash(cls(model=None, optimizer=None))
    assert repr(task).startswith(f"{cls.__name__}(\n")  # torch's, with the modules in it


def test_options_are_checked_whatever_the_class():
    for options, sentence in (
        ({"loss": print, "label_smoothing": 0.1}, "a loss of its own"),
        ({"loss": print, "class_weights": "balanced"}, "a loss of its own"),
        ({"metrics": {"x": 1}}, "should be {_target_"),
    ):
        with pytest.raises(UserError, match=sentence):
            TextClassificationTask(model=None, optimizer=None, **options)
    with pytest.raises(TypeError, match="thresold"):
        TextClassificationTask(model=None, optimizer=None, thresold=0.5)


class Ordinary(TextClassificationTask):
    """A user's own, with an `__init__` as in any module."""

    def __init__(self, width=3, **kwargs):
        super().__init__(**kwargs)
        self.layer = torch.nn.Linear(2, width)


@dataclass(kw_only=True, eq=False, repr=False)
class Decorated(TextClassificationTask):
    width: int = 3

    def __post_init__(self):
        super().__post_init__()
        self.layer = torch.nn.Linear(2, self.width)


@pytest.mark.parametrize("cls", [Ordinary, Decorated])
def test_a_subclass_of_ones_own(cls):
    task = cls(width=4, threshold=0.2, model=None, optimizer=None, metrics={"mine": MeanMetric()})
    task.model = torch.nn.Linear(2, 2)
    assert task.threshold == 0.2
    assert [name for name, _ in task.named_parameters()] == [
        *("layer.weight", "layer.bias", "model.weight", "model.bias")
    ]
    twin = copy.deepcopy(task)
    assert not {id(p) for p in task.parameters()} & {id(p) for p in twin.parameters()}
    assert twin.evaluation.further["mine"] is not task.evaluation.further["mine"]
    assert (
        twin.state_dict().keys() == task.state_dict().keys() == dict(task.named_parameters()).keys()
    )
    assert twin.layer.out_features == 4


def test_a_dataclass_that_compares_is_no_module():
    compared = dataclass(kw_only=True)(type("Compared", (TextClassificationTask,), {}))
    with pytest.raises(AssertionError, match="eq=False"):
        compared(model=None, optimizer=None)


# ---------------------------------------------------------------- columns

QA = {"id", "question", "answer", "score", "start", "end"}
CHOICE = {"context", "question", "prediction", "ending", "scores"}
COLUMNS = {  # of evaluation, of prediction
    "bart_cnn": ({"prediction", "reference"}, {"text", "prediction"}),
    "bert_mrpc": ({"text", "text_pair", "label", "score", "scores", "reference"}, {"label"}),
    "bert_stsb": ({"text", "text_pair", "score", "reference"}, {"text", "score"}),
    "bert_ner_conll2003": (
        {"tokens", "tags", "entities", "reference"},
        {"tokens", "tags", "entities"},
    ),
    "bert_squad_v2": (QA | {"reference"}, QA),
    "bert_swag": (CHOICE | {"reference"}, CHOICE),
    "distilgpt2_sonnets": ({"loss", "tokens"}, {"prompt", "prediction"}),
    "roberta_mlm_wikitext": (
        {"hidden", "found", "prediction", "reference"},
        {"text", "prediction", "masks"},
    ),
    "vit_cxr14": ({"image", "label", "scores", "reference"}, {"image", "label", "scores"}),
}
TARGETS = {"highlights", "label", "ner_tags", "answers"}


@pytest.mark.parametrize("experiment", COLUMNS)
def test_columns_of_predictions(experiment, recipe, tmp_path):
    """Those of evaluation, of the samples, and of rows without labels."""
    short = ["trainer.max_epochs=1", "+trainer.limit_train_batches=1"]
    run = hydralight.train([*recipe(experiment), *short])
    start("eval", [f"run={run.path}"])
    labelled, plain = COLUMNS[experiment]
    rows = run.predictions("validation")
    assert labelled | {"row"} <= set(rows[0])
    samples = [json.loads(line) for line in next((run.path / "samples").iterdir()).open()]
    if experiment == "distilgpt2_sonnets":
        labelled = {"prompt", "prediction", "reference"}
    assert labelled | {"row"} <= set(samples[0])
    source, output = tmp_path / "new.jsonl", tmp_path / "out.jsonl"
    if experiment == "vit_cxr14":
        source = tmp_path / "data/validation/0.png"
    else:
        lines = [json.loads(line) for line in (tmp_path / "data/validation.jsonl").open()]
        kept = [{n: v for n, v in line.items() if n not in TARGETS} for line in lines]
        source.write_text("".join(json.dumps(line) + "\n" for line in kept))
    start("predict", [f"run={run.path}", f"input={source}", f"output={output}"])
    rows = [json.loads(line) for line in output.open()]
    assert plain | {"row"} <= set(rows[0])
    assert "reference" not in rows[0]


def test_a_source_is_read_once_and_written_for_as_the_model_does(
    bart_cnn, tiny_bart, articles, tmp_path, monkeypatch
):
    """In evaluation and prediction alike; also where what may be repeated is the source's."""
    shutil.copytree(tiny_bart, tmp_path / "bart")
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_bart)
    for parameter in model.parameters():
        parameter.data *= 10  # so that what it writes depends on what it reads
    model.save_pretrained(tmp_path / "bart")
    options = ["+generation.encoder_no_repeat_ngram_size=1", "+generation.min_new_tokens=12"]
    options += [f"checkpoint={tmp_path / 'bart'}", "trainer.max_epochs=1"]
    run = hydralight.train([*bart_cnn, *options])
    reads, original = [], BartEncoder.forward

    @wraps(original)  # `generate` looks at its signature
    def read(*args, **kwargs):
        reads.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(BartEncoder, "forward", read)
    start("eval", [f"run={run.path}"])
    assert len(reads) == 2  # batches of 4 and 3
    source = articles / "validation.jsonl"
    start("predict", [f"run={run.path}", f"input={source}", f"output={tmp_path / 'out'}"])
    assert len(reads) == 4
    evaluated = [row["prediction"] for row in run.predictions("validation")]
    predicted = [json.loads(line)["prediction"] for line in (tmp_path / "out").open()]
    texts = [json.loads(line)["article"] for line in source.open()]
    inputs = run.tokenizer(
        texts, padding=True, return_tensors="pt", max_length=128, truncation=True
    )
    expected = []
    for other in ({}, {"encoder_no_repeat_ngram_size": 0}):
        ids = run.model.generate(**{n: inputs[n] for n in ("input_ids", "attention_mask")}, **other)
        texts = run.tokenizer.batch_decode(ids, skip_special_tokens=True)
        expected.append([text.strip() for text in texts])
    assert evaluated == predicted == expected[0] != expected[1]
    assert len(set(evaluated)) > 3


# ---------------------------------------------------------------- steps


@pytest.fixture
def short(recipe):
    """One epoch: 4 steps of 13 rows, a log of the first step alone, no checkpoints, no samples."""
    return [
        *recipe("bert_mrpc"),
        *("data.batch_size=4", "trainer.max_epochs=1", "trainer.log_every_n_steps=50"),
        *("callbacks.samples=null", "callbacks.last_checkpoint=null", "callbacks.throughput=null"),
    ]


@pytest.mark.parametrize(
    ("broken", "more", "steps"),
    [
        (2, [], 3),  # as the next step is finished
        (2, ["trainer.log_every_n_steps=2"], 2),
        (2, ["callbacks.last_checkpoint=${last}"], 2),
        (4, [], 4),  # before the evaluation at the end
        (4, ["+trainer.limit_val_batches=0"], 4),  # before the last model is exported
    ],
    ids=["next step", "log", "checkpoint", "evaluation", "end"],
)
def test_nothing_is_made_of_weights_that_a_step_has_spoilt(
    broken, more, steps, short, tmp_path, monkeypatch
):
    """Where steps are looked at late, as on a GPU."""
    finished, original, begin = [], Task.loss_and_weight, Task.on_fit_start

    def loss(task, outputs, batch):
        loss_sum, weight = original(task, outputs, batch)
        if task.training:
            finished.append(1)
            loss_sum = loss_sum * (float("nan") if len(finished) == broken else 1)
        return loss_sum, weight

    def deferred(task):
        begin(task)
        task.gradient.deferred = True

    monkeypatch.setattr(Task, "loss_and_weight", loss)
    monkeypatch.setattr(Task, "on_fit_start", deferred)
    last = "{_target_: hydralight.callbacks.checkpoint.LastCheckpoint, every_n_train_steps: 1, "
    last += f"dirpath: {tmp_path / 'checkpoints'}}}"
    with pytest.raises(UserError, match=rf"not finite at step {broken} \(in the loss of rows"):
        hydralight.train([*short, *(o.replace("${last}", last) for o in more)])
    assert len(finished) == steps
    (folder,) = (tmp_path / "logs/train/runs").iterdir()
    assert not (folder / "model").exists()
    logged = (folder / "metrics.csv").read_text()
    assert "val/loss" not in logged
    if "callbacks.last_checkpoint=${last}" in more:
        state = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
        assert state["global_step"] == broken - 1


def test_step_metrics_are_in_a_checkpoint(recipe):
    run = hydralight.train([*recipe("bert_mrpc"), "trainer.max_epochs=1", "callbacks.samples=null"])
    state = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)
    row = run.history.dropna(subset=["lr"]).iloc[-1]
    names = ["train/loss", "lr", "train/grad_norm"]
    assert state["step_metrics"] == {name: row[name] for name in names}
    task = TextClassificationTask(model=None, optimizer=None)
    trainer = SimpleNamespace(precision="32-true", default_root_dir=".", world_size=1)
    trainer.datamodule = SimpleNamespace(target_capacity=4)
    trainer.optimizers, trainer.lr_scheduler_configs = [torch.optim.SGD([torch.zeros(1)])], []
    task.trainer = trainer
    task._restored = {"skipped": 3, "step_metrics": state["step_metrics"]}
    task.on_fit_start()
    assert task.step_metrics == state["step_metrics"]
    assert task.gradient.skipped == 3
    again: dict = {}
    task.on_save_checkpoint(again)
    assert again.items() >= {"step_metrics": state["step_metrics"], "skipped": 3}.items()
