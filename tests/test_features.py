"""What every task can do: losses and metrics by config, more data sets, averaged weights."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight
from standins import row_for, write_jsonl

import hydralight
from hydralight.callbacks.throughput import Throughput
from hydralight.commands import start
from hydralight.data.mix import Mix
from hydralight.data.rows import read_rows
from hydralight.data.shapes.text_classification import TextClassification
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError
from hydralight.loggers import CSVLogger
from hydralight.tasks.classification import TextClassificationTask
from hydralight.tasks.losses import (
    focal_loss,
    label_cross_entropy,
    token_cross_entropy,
    weights_of_classes,
)
from hydralight.tasks.multiple_choice import MultipleChoiceTask
from hydralight.tasks.question_answering import QuestionAnsweringTask
from hydralight.tasks.task import Task


class Crash(Exception):
    pass


# ---------------------------------------------------------------- losses


def test_weighted_losses_are_those_of_torch():
    torch.manual_seed(0)
    logits, weights = torch.randn(6, 3), torch.tensor([0.5, 2.0, 4.0])
    labels = torch.tensor([0, 1, 2, 2, -100, 1])
    for smoothing in (0.0, 0.1):
        loss_sum, weight = token_cross_entropy(logits, labels, smoothing, weights)
        expected = F.cross_entropy(logits, labels, weights, label_smoothing=smoothing)
        torch.testing.assert_close(loss_sum / weight, expected)
    hot = torch.randint(2, (6, 3)).float()
    loss_sum, weight = label_cross_entropy(logits, hot, class_weights=weights)
    expected = F.binary_cross_entropy_with_logits(logits, hot, pos_weight=weights)
    torch.testing.assert_close(loss_sum / weight, expected)
    for targets in (labels, hot):
        batch = {"labels": targets}
        plain = (token_cross_entropy if targets is labels else label_cross_entropy)(logits, targets)
        torch.testing.assert_close(
            focal_loss(SimpleNamespace(logits=logits), batch, gamma=0), plain
        )
        assert focal_loss(SimpleNamespace(logits=logits), batch, gamma=2)[0] < plain[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_endings_that_a_row_does_not_have_are_never_chosen(smoothing, monkeypatch):
    logits = torch.tensor([[1.0, 2.0, 9.0], [0.5, 3.0, 1.0]], requires_grad=True)
    monkeypatch.setattr(Task, "forward", lambda task, batch: SimpleNamespace(logits=logits))
    task = MultipleChoiceTask(model=None, optimizer=None, label_smoothing=smoothing)
    batch = {"labels": torch.tensor([0, 2]), "choices": torch.tensor([2, 3])}
    batch["endings"] = [["a", "b"], ["c", "d", "e"]]
    outputs = task(batch)
    loss_sum, weight = task.loss_and_weight(outputs, batch)
    own = [(logits[:1, :2], batch["labels"][:1]), (logits[1:], batch["labels"][1:])]
    expected = sum(F.cross_entropy(*pair, label_smoothing=smoothing) for pair in own)
    assert loss_sum.item() == pytest.approx(expected.item())
    assert weight == 2
    loss_sum.backward()
    assert logits.grad[0, 2] == 0
    assert torch.isfinite(logits.grad).all()
    columns = task.decode(outputs, batch)
    assert columns["ending"] == ["b", "d"]
    assert [len(scores) for scores in columns["scores"]] == [2, 3]
    assert [sum(scores) for scores in columns["scores"]] == pytest.approx([1, 1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_padding_does_not_change_the_loss_of_answers(smoothing):
    torch.manual_seed(0)
    task = QuestionAnsweringTask(model=None, optimizer=None, label_smoothing=smoothing)
    start, end = torch.randn(2, 3, 9)
    positions = {
        "start_positions": torch.tensor([0, 2, 5]),
        "end_positions": torch.tensor([0, 4, 5]),
    }
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[:, 6:] = 0
    outputs = SimpleNamespace(start_logits=start, end_logits=end)
    loss_sum, weight = task.own_loss(outputs, {"attention_mask": mask, **positions})
    expected = [
        F.cross_entropy(side[:, :6], positions[f"{name}_positions"], label_smoothing=smoothing)
        for name, side in (("start", start), ("end", end))
    ]
    torch.testing.assert_close(loss_sum / weight, sum(expected) / 2)


def test_weights_of_classes():
    assert weights_of_classes({"b": 3}, ["a", "b"]) == [1.0, 3.0]
    with pytest.raises(UserError, match="no label 'bb'; did you mean 'b'"):
        weights_of_classes({"bb": 3}, ["a", "b"])
    with pytest.raises(UserError, match="3 values for 2 labels"):
        weights_of_classes([1, 2, 3], ["a", "b"])
    for bad in ([1, -1], [0, 0], {"a": "much"}):
        with pytest.raises(UserError, match="should be numbers, none below 0"):
            weights_of_classes(bad, ["a", "b"])


def test_balanced_weights_are_remembered_for_evaluation(recipe, tmp_path, capsys):
    """13 rows of which 7 are of the first class; evaluation has no training data to count in."""
    run = hydralight.train([*recipe("bert_mrpc"), "task.class_weights=balanced"])
    expected = compute_class_weight("balanced", classes=np.arange(2), y=[0] * 7 + [1] * 6)
    config = json.loads((run.path / "model/config.json").read_text())
    assert config["class_weights"] == pytest.approx(expected)
    capsys.readouterr()
    start("eval", [f"run={run.path}", f"data.path={tmp_path}/data/validation.jsonl"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["val/loss"] == pytest.approx(run.metrics["best"]["val/loss"], abs=1e-6)


def test_loss_and_metrics_by_config(recipe):
    short = ["trainer.max_epochs=1", "model.config={hidden_dropout_prob: 0}"]
    plain = hydralight.train([*recipe("bert_mrpc"), *short])
    accuracy = "torchmetrics.classification.MulticlassAccuracy, num_classes: 2, average: micro"
    usual = "torchmetrics.Accuracy, task: multiclass, num_classes: 2"
    changed = hydralight.train(
        [
            *recipe("bert_mrpc"),
            *short,
            "task.loss._target_=hydralight.tasks.losses.focal_loss",
            "+task.loss.gamma=0",
            f"task.metrics={{mine: {{_target_: {accuracy}}}, usual: {{_target_: {usual}}}}}",
            "optimized_metric=val/mine",
        ]
    )
    # the focal loss without focus is the cross-entropy
    torch.testing.assert_close(
        torch.tensor(plain.history["train/loss"].dropna().to_numpy()),
        torch.tensor(changed.history["train/loss"].dropna().to_numpy()),
    )
    best = changed.metrics["best"]
    assert best["val/usual"] == best["val/mine"]
    assert best["val/mine"] == pytest.approx(best["val/accuracy"])
    focused = hydralight.train(
        [*recipe("bert_mrpc"), *short, "task.loss._target_=hydralight.tasks.losses.focal_loss"]
    )
    assert focused.history["train/loss"][0] < plain.history["train/loss"][0] / 2


def test_a_metric_that_does_not_fit_is_named(recipe):
    wrong = "{mine: {_target_: torchmetrics.classification.MultilabelAccuracy, num_labels: 7}}"
    with pytest.raises(UserError, match=r"^task\.metrics\.mine: "):
        hydralight.train([*recipe("bert_mrpc"), f"task.metrics={wrong}"])


def test_monitored_metric_that_the_data_does_not_have(recipe):
    with pytest.raises(UserError, match="did you mean 'val/f1_macro'"):
        hydralight.train([*recipe("bert_mrpc"), "optimized_metric=val/f1_makro"])
    six_classes = [*recipe("distilbert_emotion"), "optimized_metric=val/f1"]
    with pytest.raises(
        UserError, match=r"'val/f1' .* not among the metrics of this data: .*f1_mac"
    ):
        hydralight.train(six_classes)


# ---------------------------------------------------------------- more data sets


def examples(folder, name, count, first=0):
    rows = [row_for("bert_mrpc", first + index) for index in range(count)]
    return write_jsonl(folder / f"{name}.jsonl", rows)


def test_extra_sets_are_evaluated_each_by_itself(recipe, tmp_path, capsys):
    sets = {name: examples(tmp_path, name, size, 60) for name, size in (("one", 9), ("two", 3))}
    extra = ",".join(f"{name}: {path}" for name, path in sets.items())
    run = hydralight.train([*recipe("bert_mrpc"), f"data.extra_eval={{{extra}}}"])
    best = run.metrics["best"]
    for name, path in sets.items():
        capsys.readouterr()
        start("eval", [f"run={run.path}", f"data.path={path}", "data.extra_eval=null"])
        printed = json.loads(capsys.readouterr().out)
        for metric, value in printed.items():
            assert best[metric.replace("val/", f"val/{name}/")] == pytest.approx(value, abs=1e-6)
    start("eval", [f"run={run.path}"])
    assert len(run.predictions("validation")) == 7


def key(row):
    return json.dumps(row)


def pairs(folder, mix=None, **parting):
    columns = {"text": "sentence1", "text_pair": "sentence2"}
    path = {"train": str(examples(folder, "own", 200))}
    mixed = Mix(mix=mix) if mix else Mix()
    source = Source(path=path, columns=columns)
    rows = read_rows(source, Splits(**parting), mixed, TextClassification())
    return {**rows.splits, **rows.sets}


def test_a_mix_leaves_evaluation_alone(tmp_path):
    other = examples(tmp_path, "other", 500, first=1000)
    plain = pairs(tmp_path)
    mixed = pairs(tmp_path, mix={"other": {"path": str(other), "weight": 0.25}})
    assert mixed["validation"].to_list() == plain["validation"].to_list()
    assert mixed["train"].to_list() == plain["train"].to_list()
    assert len(mixed["other"]) == 500
    assert mixed["other"].features == mixed["train"].features
    with pytest.raises(UserError, match="weights are the probabilities"):
        pairs(tmp_path, mix={"other": {"path": str(other), "weight": 1.5}})
    with pytest.raises(UserError, match="no 'wieght'; did you mean 'weight'"):
        pairs(tmp_path, mix={"other": {"path": str(other), "wieght": 0.5}})


def test_folds_validate_every_row_once(tmp_path):
    whole = pairs(tmp_path, validation_fraction=0.0)["train"].to_list()
    folds = [pairs(tmp_path, fold=number, num_folds=4) for number in range(4)]
    validated = [key(row) for fold in folds for row in fold["validation"].to_list()]
    assert sorted(validated) == sorted(map(key, whole))
    for fold in folds:
        both = [*fold["train"].to_list(), *fold["validation"].to_list()]
        assert sorted(map(key, both)) == sorted(map(key, whole))


# ---------------------------------------------------------------- averaged weights


EMA = ["callbacks=ema", "callbacks.ema.decay=0.5", "callbacks.rich_progress=null"]


def test_an_average_of_weights_leaves_positions_alone(recipe, monkeypatch):
    """They are no part of the export, so that `eval.py` has the true ones."""
    seen = []
    original = Task.evaluation_step

    def step(task, batch):
        seen.append({n: b.tolist() for n, b in task.model.named_buffers() if "position" in n})
        return original(task, batch)

    monkeypatch.setattr(Task, "evaluation_step", step)
    ema = ["callbacks=ema", "callbacks.ema.decay=0.9", "trainer.max_epochs=2"]
    hydralight.train([*recipe("bert_mrpc"), *ema, "data.batch_size=4"])
    assert seen[0]
    assert all(buffer == [[*range(128)]] for one in seen for buffer in one.values())


def test_average_of_weights_is_evaluated_and_exported(recipe, monkeypatch):
    seen = []

    def record(task, outputs, batch, batch_idx):
        seen.append({n: p.detach().clone() for n, p in task.model.named_parameters()})

    monkeypatch.setattr(Task, "on_train_batch_end", record, raising=False)
    run = hydralight.train(
        [*recipe("bert_mrpc"), *EMA, "trainer.max_epochs=1", "optimizer.lr=0.01"]
    )
    average = dict(seen[0])  # the first update copies
    for weights in seen[1:]:
        average = {n: 0.5 * average[n] + 0.5 * weights[n] for n in average}
    exported = load_file(run.path / "model/model.safetensors")
    for name, weight in average.items():
        torch.testing.assert_close(exported[name], weight, msg=name)
    assert max((seen[-1][n] - average[n]).abs().max() for n in average) > 1e-3


@pytest.mark.parametrize(
    ("experiment", "more"),
    [("bert_mrpc", EMA), ("roberta_mlm_wikitext", ["data.num_workers=2", "data.batch_size=4"])],
    ids=["averaged weights", "masks"],
)
def test_resumed_run_is_the_uninterrupted_one(experiment, more, recipe, tmp_path, monkeypatch):
    """A crash in the second epoch: averages, and masks drawn anew in each epoch, go on."""
    overrides = [*recipe(experiment), *more, "trainer.max_epochs=2"]
    overrides += ["callbacks.last_checkpoint.every_n_train_steps=1"]
    whole = hydralight.train(overrides)

    def crash(task, *args):
        if task.current_epoch == 1 and task.global_step == int(whole.history["step"].max()) - 1:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_train_batch_start", crash, raising=False)
        with pytest.raises(Crash):
            hydralight.train([*overrides, f"paths.log_dir={tmp_path / 'crashed'}"])
    (crashed,) = (tmp_path / "crashed/train/runs").iterdir()
    resumed = hydralight.train([f"resume={crashed}"])
    assert whole.history.equals(resumed.history)
    weights = [load_file(run.path / "model/model.safetensors") for run in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_masks_are_new_in_each_epoch_and_the_same_in_evaluation(recipe, monkeypatch):
    seen: dict[str, list] = {"train": [], "val": []}

    def recorder(epochs):
        def hook(task, batch, batch_idx, dataloader_idx=0):
            labels, ids = batch["labels"].numpy(), batch["input_ids"].numpy()
            whole = np.where(labels != -100, labels, ids)  # what a block says, by what is hidden
            epochs.append({tuple(w): tuple(one) for w, one in zip(whole, labels, strict=True)})

        return hook

    monkeypatch.setattr(Task, "on_train_batch_start", recorder(seen["train"]), raising=False)
    monkeypatch.setattr(Task, "on_validation_batch_start", recorder(seen["val"]), raising=False)
    overrides = [*recipe("roberta_mlm_wikitext"), "trainer.max_epochs=2", "data.batch_size=100"]
    hydralight.train(overrides)
    first, second = seen["train"]
    assert first.keys() == second.keys()
    assert all(first[block] != second[block] for block in first if len(set(block)) > 8)
    assert seen["val"][0] == seen["val"][1]


def test_training_is_compiled_for_few_shapes(recipe, tmp_path):
    """The graphs are as many as the lengths of batches, and the weights are saved as ever."""
    off = "model.config={hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}"
    short = [*recipe("bert_mrpc"), off, "trainer.max_steps=3", "+trainer.limit_val_batches=0"]
    short += ["callbacks.samples=null", "callbacks.best_model=null", "data.batch_size=2"]
    plain = hydralight.train(short)
    counts = []
    for multiple in ("null", "32"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        compiled = hydralight.train(
            [
                *short,
                "task.torch_compile={backend: eager, dynamic: false}",
                f"data.pad_to_multiple_of={multiple}",
            ]
        )
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        np.testing.assert_allclose(
            compiled.history["train/loss"], plain.history["train/loss"], atol=1e-5
        )
        names = [
            set(torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
            for run in (plain, compiled)
        ]
        assert names[0] == names[1]
    assert counts[0] > counts[1] > 0


def test_the_endings_of_a_choice_count_together(recipe, monkeypatch):
    sizes: list = []

    def see(task, batch, batch_idx):
        sizes.append(batch["input_ids"].numel())

    monkeypatch.setattr(Task, "on_train_batch_start", see, raising=False)
    hydralight.train([*recipe("bert_swag"), "data.max_tokens=300", "trainer.max_epochs=1"])
    assert 150 < max(sizes) <= 300


def test_a_resumed_run_keeps_its_order(recipe, tmp_path):
    short = ["callbacks.samples=null", "trainer.max_steps=1", "trainer.max_epochs=-1"]
    folders = {}
    for kind, data in {"rows": "data.batch_size=3", "tokens": "data.max_tokens=64"}.items():
        typed = [*recipe("bert_mrpc"), *short, data, f"paths.log_dir={tmp_path / kind}"]
        folders[kind] = hydralight.train(typed).path
    for kind, override, sentence in (
        ("rows", "data.seed=1", r"with data\.seed=42, and another value would change the order"),
        ("rows", "data.group_by_length=false", r"with data\.group_by_length=True, and another"),
        ("rows", "trainer.accumulate_grad_batches=2", "with trainer.accumulate_grad_batches=1"),
        ("rows", "data.batch_size=4", "with data.batch_size=3, and another value"),
        ("rows", "data.max_tokens=64", r"with data\.max_tokens=None"),
        ("tokens", "data.max_tokens=80", r"with data\.max_tokens=64"),
    ):
        with pytest.raises(UserError, match=sentence):
            hydralight.train([f"resume={folders[kind]}", "trainer.max_steps=2", override])
    with pytest.raises(UserError, match=r"data\.max_tokens=9 has no room for a training example"):
        hydralight.train([*recipe("bert_mrpc"), "data.max_tokens=9"])
    with pytest.raises(UserError, match="max_tokens counts tokens, and these examples have none"):
        hydralight.train([*recipe("vit_cxr14"), "data.max_tokens=900"])
    run = hydralight.train([f"resume={folders['tokens']}", "trainer.max_steps=2"])
    assert list(run.history["step"].unique()) == [1, 2]


def test_optimizers_are_fused_but_in_16_mixed():
    def optimizer(precision, **options):
        recipe = partial(torch.optim.AdamW, lr=1e-3, **options)
        task = TextClassificationTask(model=None, optimizer=recipe)
        task.trainer = SimpleNamespace(precision=precision, callbacks=[])
        task.model = torch.nn.Linear(2, 2)
        return task.configure_optimizers()

    assert optimizer("32-true").defaults["fused"]
    assert optimizer("bf16-mixed").defaults["fused"]
    assert not optimizer("32-true", foreach=True).defaults["fused"]
    assert not optimizer("16-mixed").defaults["fused"]
    with pytest.raises(UserError, match=r"set optimizer\.fused=false"):
        optimizer("16-mixed", fused=True)


def test_throughput_is_of_all_devices_and_of_training_alone(tmp_path, monkeypatch):
    clock, logged = [0.0], []
    monkeypatch.setattr("hydralight.callbacks.throughput.time.perf_counter", lambda: clock[0])
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append((step, values)))
    trainer = SimpleNamespace(
        global_step=0,
        log_every_n_steps=2,
        world_size=2,
        global_rank=0,
        strategy=None,
        loggers=[logger, CSVLogger(str(tmp_path))],
    )
    task = SimpleNamespace(log=lambda *_, **__: None)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    padded = {"row": torch.arange(2), "input_ids": mask, "attention_mask": mask}
    packed = {"row": torch.arange(3), "input_ids": torch.ones(1, 8)}
    throughput = Throughput()

    def step(batch, seconds, steps=1):
        clock[0] += seconds
        trainer.global_step += steps
        throughput.on_train_batch_end(trainer, task, None, batch, 0)

    throughput.on_train_start(trainer, task)
    step(padded, 1.0)
    step(padded, 0.5, steps=0)  # a micro-batch
    step(packed, 0.5)
    clock[0] += 100
    throughput.on_validation_end(trainer, task)
    step({"row": torch.arange(5), "pixel_values": torch.ones(5, 3, 2, 2)}, 1.0)
    step({"row": torch.arange(5), "pixel_values": torch.ones(5, 3, 2, 2)}, 1.0)
    per_second = {"train/examples_per_second": 7.0, "train/tokens_per_second": 16.0}
    assert logged == [(2, per_second), (4, {"train/examples_per_second": 10.0})]
    assert not list(tmp_path.iterdir())
