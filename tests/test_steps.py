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
from hydralight.building import build_trainer
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
    history = run.history
    evaluated = history[history["val/loss"].notna()] if "val/loss" in history else history[:0]
    return list(history["step"][history["train/loss"].notna()]), list(evaluated["step"])


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
    assert steps_of(run) == (upto(steps), evaluated)
    assert run.metrics["last"]["step"] == steps
    assert (run.path / "model/config.json").is_file()
