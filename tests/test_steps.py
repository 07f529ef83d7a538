"""How long a run is, when it evaluates, and that it ends with an evaluation."""

import json
import math
import os
import signal
from fractions import Fraction

import pandas as pd
import pytest
import torch
from conftest import CONFIG_DIR
from lightning.pytorch import Callback
from safetensors.torch import load_file

import hydralight
from hydralight.callbacks.best_model import BestModel
from hydralight.errors import UserError
from hydralight.runs.run import Run, read_metrics
from hydralight.tasks.task import Task


class Crash(Exception):
    pass


@pytest.fixture
def pairs(recipe):
    """13 pairs in 4 batches an epoch, or in 7 of 2; with dropout, and a schedule without an end."""
    return [
        *recipe("bert_mrpc"),
        *("data.batch_size=4", "optimizer.lr=0.01", "scheduler=constant", "optimized_metric=val/loss"),
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
        (["trainer.max_steps=6"], 6, [4, 6]),
        (["trainer.max_steps=6", "trainer.max_epochs=1"], 4, [4]),
        (["trainer.max_steps=3", "trainer.max_epochs=1"], 3, [3]),
        (["trainer.max_epochs=0.5"], 2, [2]),
        (["trainer.max_epochs=1.1"], 5, [4, 5]),
        (["trainer.max_epochs=2.0"], 8, [4, 8]),
        (["trainer.max_epochs=0.5", "trainer.max_steps=6"], 2, [2]),
        (["trainer.max_epochs=1.5", "trainer.max_steps=5"], 5, [4, 5]),
        (["trainer.max_epochs=2.5", "data.batch_size=2", "trainer.accumulate_grad_batches=2"], 10, [4, 8, 10]),
        (["trainer.max_epochs=2", "trainer.val_check_interval=3"], 8, [3, 6, 8]),
        (["trainer.max_epochs=2", "trainer.val_check_interval=100"], 8, [8]),
        (["trainer.max_epochs=2", "trainer.val_check_interval=0.5"], 8, [2, 4, 6, 8]),
        (
            # 7 batches are 4 steps, the last of one batch
            ["trainer.max_epochs=2", "data.batch_size=2", "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=3"],
            8, [3, 6, 8],
        ),
        (
            ["trainer.max_epochs=2", "data.batch_size=2", "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=0.5"],
            8, [2, 4, 6, 8],
        ),
        (["trainer.max_epochs=3", "+trainer.check_val_every_n_epoch=2"], 12, [8, 12]),
        (["trainer.max_epochs=3", "trainer.val_check_interval=3", "+trainer.check_val_every_n_epoch=2"], 12, [6, 12]),
        (["trainer.max_epochs=1.5", "+trainer.overfit_batches=2"], 3, [2, 3]),
        (["trainer.max_epochs=1.5", "+trainer.limit_train_batches=2"], 3, [2, 3]),
        (["trainer.max_epochs=1.5", "+trainer.limit_val_batches=0"], 6, []),
        (["trainer.max_steps=0"], 0, [0]),
        (["trainer.max_steps=2", "callbacks=ema"], 2, [2]),
        (["trainer.max_epochs=1.5", "scheduler=linear"], 6, [4, 6]),
        (["trainer.max_epochs=1.5", "~scheduler"], 6, [4, 6]),
        (["trainer.max_steps=2", "debug=limit"], 2, [2]),
    ],
)
def test_how_long_a_run_is_and_when_it_evaluates(pairs, typed, steps, evaluated):
    typed = [t for t in typed]
    run = hydralight.train([*pairs, *typed])
    assert steps_of(run) == [upto(steps), evaluated]
    assert run.metrics["last"]["step"] == steps
    assert (run.path / "model/config.json").is_file()


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
    assert [path.name for path in one.path.iterdir()].sort() == [path.name for path in other.path.iterdir()].sort()


@pytest.mark.parametrize(
    ("begun", "extended", "whole"),
    [
        (["trainer.max_steps=6"], "trainer.max_steps=10", []),
        (["trainer.max_steps=6"], "trainer.max_epochs=2", []),
        (["trainer.max_steps=4"], "trainer.max_steps=6", []),  # an evaluation in either
        (["trainer.max_epochs=0.5"], "trainer.max_epochs=2.5", []),
        (["trainer.max_epochs=1.5"], "trainer.max_steps=7", []),
        (["trainer.max_steps=5"], "trainer.max_steps=9", ["trainer.val_check_interval=3"]),
        (["trainer.max_steps=3"], "trainer.max_steps=9", ["trainer.val_check_interval=7", "callbacks=ema"]),
        (["trainer.max_steps=3"], "trainer.max_steps=6", ["trainer.accumulate_grad_batches=2", "data.batch_size=2"]),
    ],
)
def test_an_extended_run_is_one_that_was_as_long_at_once(pairs, begun, extended, whole):
    short = hydralight.train([*pairs, *whole, *begun])
    assert steps_of(short)[1][-1] == short.metrics["best"]["step"] or "best" in short.metrics
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
        (["trainer.max_epochs=1.5"], 6),
        (["trainer.max_steps=4"], 4),
        (["trainer.max_epochs=2", "trainer.val_check_interval=3"], 6),
        (["trainer.max_epochs=2", "trainer.val_check_interval=3"], 8),
        (["trainer.max_steps=3", "callbacks.last_checkpoint.every_n_train_steps=2", "callbacks=ema"], 3),
        (["trainer.max_epochs=0.7", "~scheduler"], 3),
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
    with pytest.raises(UserError, match="has nothing left to do: .* where trainer.max_"):
        hydralight.train(overrides)
