"""Two processes over gloo do what one does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import CONFIG_DIR, ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import execution_whitelist, instantiate
from safetensors.torch import load_file
from standins import row_for, write_jsonl
from test_invariance import free_port

import hydralight
from hydralight.config.whitelist import WHITELIST
from hydralight.runs.run import Run


def script(name, arguments):
    command = [sys.executable, name, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ranks():
    """What is set for two processes that somebody else starts, on one machine."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0"}
    return [{**common, "WORLD_SIZE": "2", "LOCAL_RANK": rank} for rank in "01"]


def test_two_processes_do_what_one_does(bart_cnn, articles, tmp_path, commands):
    overrides = [
        *bart_cnn,
        f"data.path.train='{articles / 'train.jsonl'}[:12]'",
        *("data.batch_size=2", "data.batches_per_step=2"),
        "trainer.max_epochs=1",
        "trainer.gradient_clip_val=null",
        "test=true",
    ]
    one = hydralight.train(overrides)
    ddp = ["trainer=ddp_cpu", f"paths.log_dir={tmp_path / 'ddp'}"]
    # 7 rows are evaluated one by one: the second process has a step less
    script("train.py", [*overrides, *ddp, "data.eval_batch_size=1"])
    (folder,) = (tmp_path / "ddp/train/runs").iterdir()
    two = Run(folder)
    assert list(one.history.columns) == list(two.history.columns)
    np.testing.assert_allclose(one.history, two.history, rtol=2e-5)
    weights = [load_file(run.path / "model/model.safetensors") for run in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=1e-5)
    assert two.predictions("test") == one.predictions("test")

    evaluated = commands.together([["eval", f"run={folder}"]] * 2, tmp_path, ranks())
    assert [one.code for one in evaluated] == [0, 0], evaluated[0].err + evaluated[1].err
    printed = json.loads(evaluated[0].out)
    best = {name: value for name, value in two.metrics["best"].items() if name != "step"}
    assert printed == pytest.approx(best, abs=1e-6)
    assert [row["row"] for row in two.predictions("validation")] == list(range(7))

    # on one process, within an epoch: it goes on as if there had been one all the time
    hydralight.train([f"resume={folder}", "trainer.max_steps=5", "trainer.devices=1"])
    history = Run(folder).history
    assert list(history["step"]) == [1, 2, 3, 3, 4, 5, 5, 5]  # the last two: validation and test
    assert list(history["step"][history["val/loss"].notna()]) == [3, 5]
    hydralight.train([f"resume={one.path}", "trainer.max_steps=5"])
    np.testing.assert_allclose(Run(one.path).history, history, rtol=2e-5)


def test_two_processes_evaluate_what_one_does(recipe, tmp_path):
    """Sets of 7 rows and of 1, which one of the processes has no share of; texts are gathered."""
    lone = write_jsonl(tmp_path / "lone.jsonl", [row_for("bert_ner_conll2003", 50)])
    overrides = [
        *recipe("bert_ner_conll2003"),
        f"data.extra_eval={{lone: {lone}}}",
        f"data.path.train='{tmp_path / 'data/train.jsonl'}[:12]'",
        "model.config={hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}",
        "trainer.max_epochs=1",
        "trainer.gradient_clip_val=null",
    ]
    one = hydralight.train([*overrides, "data.batch_size=4"])
    ddp = ["trainer=ddp_cpu", "data.batch_size=2", f"paths.log_dir={tmp_path / 'ddp'}"]
    script("train.py", [*overrides, *ddp])
    (folder,) = (tmp_path / "ddp/train/runs").iterdir()
    np.testing.assert_allclose(one.history, Run(folder).history[one.history.columns], rtol=2e-5)
    assert "val/lone/f1" in one.history


def test_buffers_are_not_broadcast():
    """Ranks may evaluate different numbers of batches, and one would wait for the other."""
    with initialize_config_dir(str(CONFIG_DIR)), execution_whitelist(WHITELIST):
        for typed, told in ([], False), (["trainer.strategy.broadcast_buffers=true"], True):
            strategy = instantiate(compose("train", ["trainer=ddp_cpu", *typed]).trainer.strategy)
            assert strategy._ddp_kwargs == {"broadcast_buffers": told}
