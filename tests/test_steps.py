"""How long a run is, when it evaluates, and that it ends with an evaluation."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import CONFIG_DIR
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from safetensors.torch import load_file

import hydralight
from hydralight.callbacks.best_model import BestModel
from hydralight.errors import UserError
from hydralight.tasks.task import Task


class Crash(Exception):
    pass


@pytest.fixture
def pairs(recipe):
    """13 pairs in 4 batches an epoch, or in 7 of 2; with dropout, and a schedule without an end."""
    return [
        *recipe("bert_mrpc"),
        *(
            "data.batch_size=4",
            "optimizer.lr=0.01",
            "scheduler=constant",
            "optimized_metric=val/loss",
        ),
        "callbacks.samples=null",
    ]


def steps_of(run):
    """The optimizer steps of a run, and those after which it evaluated."""
    rows = run.history.reindex(columns=["step", "train/loss", "val/loss"])
    return [list(rows["step"][rows[name].notna()]) for name in ("train/loss", "val/loss")]


def upto(number):
    return list(range(1, number + 1))


@pytest.mark.parametrize(
    ("typed", "steps", "evaluated"),
    [
        (["trainer.max_steps=6", "debug=limit"], 6, [4, 6]),  # of one epoch
        (["trainer.max_steps=6", "trainer.max_epochs=1"], 4, [4]),
        (["++trainer.max_epochs=1.5", "trainer.max_steps=7", "~scheduler"], 6, [4, 6]),
        (["trainer.max_steps=3", "callbacks.last_checkpoint.every_n_train_steps=2"], 3, [3]),
        (["trainer.max_steps=0"], 0, [0]),
        (["trainer.max_steps=2", "debug=overfit"], 2, [2]),
        (["trainer.max_epochs=1.5", "+trainer.limit_val_batches=0"], 6, []),
    ],
)
def test_how_long_a_run_is_and_when_it_evaluates(pairs, caplog, typed, steps, evaluated):
    """Of 4 steps an epoch; the recipe says 3 epochs."""
    caplog.set_level("INFO")
    run = hydralight.train([*pairs, *typed])
    assert steps_of(run) == [upto(steps), evaluated]
    assert run.metrics["last"]["step"] == steps
    assert run.metrics["last"]["epoch"] == steps // (2 if "debug=overfit" in typed else 4)
    assert (run.path / "model/config.json").is_file()
    records = (run.path / "checkpoints").glob("last.json")
    assert [json.loads(path.read_text())["step"] for path in records] == [steps] * bool(steps)
    assert run.metrics["status"] == "finished"
    assert ("best" in run.metrics) == bool(evaluated)
    assert ("no metric: there was no evaluation" in caplog.text) != bool(evaluated)


def test_a_fraction_of_the_steps_that_micro_batches_make_has_an_end(pairs):
    run = hydralight.train([*pairs, "data.batches_per_step=2", "trainer.max_epochs=0.5"])
    steps = run.history["step"].max()
    with pytest.raises(
        UserError, match=f"nothing left to do: .* step {steps}, where trainer.max_ep"
    ):
        hydralight.train([f"resume={run.path}"])


def test_an_extended_run_takes_up_the_longer_schedule(pairs):
    """At once: the shorter one had come to 0 at its end."""
    linear = ["scheduler=linear", "scheduler.warmup_steps=0", "optimizer.lr=0.8"]
    run = hydralight.train([*pairs, *linear, "trainer.max_steps=4"])
    hydralight.train([f"resume={run.path}", "trainer.max_steps=8"])
    assert list(run.history["lr"].dropna()) == pytest.approx(
        [0.8, 0.6, 0.4, 0.2, 0.4, 0.3, 0.2, 0.1]
    )


def test_where_both_ends_are_in_files_the_steps_decide(pairs, tmp_path):
    recipe = OmegaConf.load(CONFIG_DIR / "experiment/bert_mrpc.yaml")
    recipe.trainer.max_steps = 5
    (tmp_path / "own/experiment").mkdir(parents=True)
    text = "# @package _global_\n" + OmegaConf.to_yaml(recipe)
    (tmp_path / "own/experiment/mine.yaml").write_text(text)
    own = ["experiment=mine", f"hydra.searchpath=[file://{tmp_path}/own]"]
    run = hydralight.train([*pairs[1:], *own])
    assert steps_of(run) == [upto(5), [4, 5]]
    assert (run.config.trainer.max_steps, run.config.trainer.max_epochs) == (5, -1)
    extended = hydralight.train([f"resume={run.path}", "trainer.max_epochs=2"])
    assert extended.metrics["last"]["step"] == 8


def assert_same(one, other):
    """The log's bytes, the metrics, and all weights: of the end, of the average, of the best."""
    assert one.path != other.path
    assert (one.path / "metrics.csv").read_bytes() == (other.path / "metrics.csv").read_bytes()
    assert one.metrics == other.metrics
    for name in ("state_dict", "current_model_state"):
        states = [
            torch.load(run.path / "checkpoints/last.ckpt", weights_only=True).get(name, {})
            for run in (one, other)
        ]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    for file in ("model/README.md", "model/model.safetensors"):
        assert (one.path / file).read_bytes() == (other.path / file).read_bytes()
    names = [{path.name for path in run.path.iterdir()} for run in (one, other)]
    assert names[0] - {"resume.json"} == names[1] - {"resume.json"}


@pytest.mark.parametrize(
    ("begun", "extended", "whole"),
    [
        (["trainer.max_steps=6"], "trainer.max_epochs=2", []),
        (["trainer.max_epochs=0.5"], "trainer.max_epochs=2.5", []),
        (["trainer.max_epochs=1.5"], "trainer.max_steps=7", ["callbacks=ema"]),
        (["trainer.max_steps=3"], "trainer.max_steps=6", ["trainer.val_check_interval=4"]),
    ],
)
def test_an_extended_run_is_one_that_was_as_long_at_once(pairs, begun, extended, whole):
    short = hydralight.train([*pairs, *whole, *begun])
    assert steps_of(short)[1][-1] == short.metrics["last"]["step"]
    longer = hydralight.train([f"resume={short.path}", extended])
    assert longer.path == short.path
    assert_same(longer, hydralight.train([*pairs, *whole, extended]))


def stop_in(monkeypatch, overrides, hook, step, owner=Task):
    """Train, and crash in a hook at that step."""

    def crash(self, *args, **kwargs):
        trainer = self.trainer if owner is Task else args[0]
        if trainer.global_step == step:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(owner, hook, crash, raising=False)
        with pytest.raises(Crash):
            hydralight.train(overrides)


@pytest.mark.parametrize(
    ("typed", "step"),
    [
        (["trainer.max_steps=6"], 6),
        (["trainer.max_epochs=0.7", "~scheduler", "callbacks=ema"], 3),
        (["trainer.max_epochs=2", "trainer.val_check_interval=3"], 8),
    ],
)
def test_an_evaluation_that_was_killed_is_done_again(pairs, tmp_path, monkeypatch, typed, step):
    """Also the one at the end, which has to come before there is nothing left to do."""
    overrides = [*pairs, *typed]
    whole = hydralight.train(overrides)
    overrides.append(f"paths.log_dir={tmp_path / 'killed'}")
    for hook, owner in [("on_validation_batch_start", Task), ("record", BestModel)]:
        stop_in(monkeypatch, overrides, hook, step, owner)
        (killed,) = (tmp_path / "killed/train/runs").iterdir()
        overrides = [f"resume={killed}"]
    assert_same(whole, hydralight.train(overrides))
    with pytest.raises(UserError, match=r"has nothing left to do: .* where trainer\.max_"):
        hydralight.train(overrides)


@pytest.fixture
def losses(monkeypatch):
    """The validation losses of a run, by step."""
    losses = {3: 0.5, 5: 0.1, 6: 0.6, 8: 0.7, 9: 0.4}
    original = Task.log_evaluation

    def log(task, prefix, values):
        loss = values["loss"].new_tensor(losses[task.global_step])
        original(task, prefix, {**values, "loss": loss})

    monkeypatch.setattr(Task, "log_evaluation", log)


def exported_at(run):
    """The step of the exported model, which is the one that `best` in metrics.json speaks of."""
    (step,) = re.findall("optimizer steps: ([0-9]+)", (run.path / "model/README.md").read_text())
    assert run.metrics["best"]["step"] == int(step)
    return int(step)


@pytest.mark.parametrize(
    ("kept", "typed"),
    [
        (2, []),
        (6, ["callbacks.best_model.mode=max"]),
        (4, ["callbacks.best_model.monitor=val/f1", "callbacks.best_model.mode=max"]),
    ],
)
def test_the_best_is_by_the_monitor_and_its_mode(pairs, monkeypatch, kept, typed):
    values = {2: (0.5, 0.2), 4: (0.55, 0.3), 6: (0.6, 0.1)}
    original = Task.log_evaluation

    def log(task, prefix, measured):
        said = dict(zip(("loss", "f1"), values[task.global_step], strict=True))
        as_said = {n: measured["loss"].new_tensor(value) for n, value in said.items()}
        original(task, prefix, {**measured, **as_said})

    monkeypatch.setattr(Task, "log_evaluation", log)
    length = ["trainer.max_steps=6", "trainer.val_check_interval=2"]
    run = hydralight.train([*pairs, *typed, *length])
    assert exported_at(run) == kept


def test_an_end_that_was_the_best_is_none_in_a_longer_run(pairs, losses, monkeypatch):
    overrides = [*pairs, "trainer.val_check_interval=3"]
    run = hydralight.train([*overrides, "trainer.max_steps=5"])
    assert exported_at(run) == 5
    stop_in(monkeypatch, [f"resume={run.path}", "trainer.max_steps=8"], "on_train_batch_start", 5)
    assert exported_at(run) == 3
    assert exported_at(hydralight.train([f"resume={run.path}"])) == 3
    assert_same(run, hydralight.train([*overrides, "trainer.max_steps=8"]))
    assert exported_at(hydralight.train([f"resume={run.path}", "trainer.max_steps=9"])) == 9
    assert not list(run.path.glob("model.*"))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_export_at_the_end_that_was_killed(pairs, losses, monkeypatch, tmp_path, number):
    """Before each of the renames that keep the best before it and put the last in its place."""
    renames, original = [], Path.rename

    def rename(path, target):
        if path.name.startswith("model"):
            renames.append(path)
        if len(renames) == 1 + number:  # one was at step 3
            raise Crash
        return original(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(Crash):
            hydralight.train([*pairs, "trainer.val_check_interval=3", "trainer.max_steps=5"])
    (killed,) = (tmp_path / "logs/train/runs").iterdir()
    assert exported_at(hydralight.train([f"resume={killed}", "trainer.max_steps=8"])) == 3


def test_a_run_that_early_stopping_ends_ends_with_an_evaluation(pairs):
    stop = ["callbacks=early_stopping", "callbacks.early_stopping.check_on_train_epoch_end=true"]
    stop += ["+callbacks.early_stopping.stopping_threshold=100", "trainer.val_check_interval=3"]
    assert steps_of(hydralight.train([*pairs, *stop])) == [upto(4), [3, 4]]


def test_the_last_model_is_exported_too(pairs, losses, capsys):
    own = ["trainer.val_check_interval=3", "callbacks.best_model.save_last=true"]
    run = hydralight.train([*pairs, *own, "trainer.max_steps=8"])
    assert exported_at(run) == 3
    card = (run.path / "model-last/README.md").read_text()
    assert "- optimizer steps: 8\n" in card
    assert "- val/loss: 0.7000\n" in card
    names = [
        {path.name for path in (run.path / name).iterdir()} for name in ("model", "model-last")
    ]
    assert names[0] == names[1]
    last = load_file(run.path / "model-last/model.safetensors")
    state = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[f"model.{name}"]) for name, value in last.items())


REFUSED = {
    "max_epochs": ["nan", "inf", "0", "-0.5", "-2"],
    "max_steps": ["-2"],
    "val_check_interval": ["0", "-1", "nan", "1.5", "2.0", "-0.5", "0.0"],
    "gradient_clip_val": ["0", "-1", "nan"],
    "accumulate_grad_batches": ["0", "-1"],
    "limit_train_batches": ["0", "-1", "nan", "1.5"],
    "limit_val_batches": ["-1", "nan", "-0.1", "inf"],
    "overfit_batches": ["-1", "nan"],
    "log_every_n_steps": ["-1"],
    "check_val_every_n_epoch": ["0", "-1"],
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_number_out_of_its_range_is_refused_before_data_is_read(key, tmp_path):
    for value in REFUSED[key]:
        overrides = [f"++trainer.{key}={value}", "experiment=bert_mrpc", "data.path=nowhere.csv"]
        with pytest.raises(UserError) as caught:
            hydralight.train([f"paths.log_dir={tmp_path / 'logs'}", *overrides])
        typed = OverridesParser.create().parse_override(f"a={value}").value()
        assert str(caught.value).startswith(f"trainer.{key}={typed} should be ")
    assert not (tmp_path / "logs").exists() or not list((tmp_path / "logs").rglob("*.yaml"))
