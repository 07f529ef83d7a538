"""Runs that are killed with SIGKILL and resumed end with the bits of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from hydralight.runs import Run

COMBINATIONS = {
    "pairs": ("bert_mrpc", []),
    "masks, 2 workers": ("roberta_mlm_wikitext", ["data.num_workers=2"]),
    "words, 2 processes": ("bert_ner_conll2003", ["trainer=ddp_cpu", "data.batch_size=2"]),
}


def command(overrides):
    return subprocess.Popen(
        [sys.executable, "train.py", *overrides],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # with all its workers and ranks
    )


def finished(overrides) -> None:
    process = command(overrides)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said


def killed(overrides, folder: Path, wait: float) -> bool:
    """Kill a run some time after its next checkpoint; say whether it was still at work."""
    checkpoint = folder / "checkpoints/last.ckpt"
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    process = command(overrides)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        # a checkpoint is replaced while it is looked for
        try:
            if checkpoint.stat().st_mtime_ns > before:
                break
        except FileNotFoundError:
            pass
        time.sleep(0.01)
    time.sleep(wait)
    at_work = process.poll() is None
    if at_work:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return at_work


def kill_and_compare(combination, kills, recipe, tmp_path, seed):
    experiment, more = COMBINATIONS[combination]
    overrides = [
        *recipe(experiment),
        *more,
        "trainer.max_epochs=12",
        "trainer.accumulate_grad_batches=2",
        "callbacks.samples=null",
        "callbacks.last_checkpoint.every_n_train_steps=1",
        "optimizer.lr=1e-3",
    ]
    whole, other = tmp_path / "whole", tmp_path / "other"
    finished([*overrides, f"hydra.run.dir={whole}"])
    rng, times = random.Random(seed), 0
    typed = [*overrides, f"hydra.run.dir={other}"]
    for _ in range(kills):
        if not killed(typed, other, rng.uniform(0, 0.4)):
            break
        times += 1
        typed = [f"resume={other}"]
    assert times > 0, "it was never killed at work"
    if Run(other).metrics.get("status") != "finished":
        finished([f"resume={other}"])
    assert Run(whole).history.equals(Run(other).history)
    states = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (whole, other)
    ]
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name
    moments = [state["optimizer_states"][0]["state"] for state in states]
    for number, values in moments[0].items():
        for name, value in values.items():
            assert torch.equal(value, moments[1][number][name]), (number, name)
    assert Run(whole).metrics == Run(other).metrics


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_killed_twice(combination, recipe, tmp_path):
    kill_and_compare(combination, 2, recipe, tmp_path, seed=len(combination))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_killed_often(combination, seed, recipe, tmp_path):
    """18 runs of three kills each: make soak."""
    kill_and_compare(combination, 3, recipe, tmp_path, seed)
