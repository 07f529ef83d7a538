"""Callbacks: none needs another, or a place among them; and none leaves a trace in a run."""

import json
import os
import random
import shutil
import signal

import datasets
import numpy as np
import pytest
import torch
from conftest import CONFIG_DIR
from omegaconf import OmegaConf
from safetensors.torch import load_file
from standins import MODELS
from transformers import AutoTokenizer

import hydralight
from hydralight.runs.run import Run
from hydralight.tasks.task import Task


class Crash(Exception):
    pass


@pytest.fixture
def pairs(recipe):
    """13 pairs in batches of 4, twice; with dropout."""
    return [*recipe("bert_mrpc"), "data.batch_size=4", "trainer.max_epochs=2", "optimizer.lr=0.01"]


@pytest.fixture
def reversed_order(tmp_path):
    """Overrides for averaged weights and the default callbacks, the other way round."""
    ema = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "callbacks/ema.yaml"))
    names = OmegaConf.load(CONFIG_DIR / "callbacks/default.yaml").defaults
    folder = tmp_path / "own/callbacks"
    folder.mkdir(parents=True)
    config = {"defaults": ["_self_", *names[::-1]], "ema": ema["ema"]}
    OmegaConf.save(config, folder / "reversed.yaml")
    return ["callbacks=reversed", f"hydra.searchpath=[file://{tmp_path}/own]"]


def assert_same(one, other):
    assert one.history.equals(other.history)
    assert one.metrics == other.metrics
    for name in ("state_dict", "current_model_state"):
        states = [
            torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)[name]
            for run in (one, other)
        ]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    exported = [load_file(run.path / "model/model.safetensors") for run in (one, other)]
    assert all(torch.equal(value, exported[1][key]) for key, value in exported[0].items())


def crash():
    raise Crash


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def stopped(overrides, monkeypatch, hook, step, action):
    """Train, do something in a hook of that step, and return what ends the run."""

    def act(task, *args):
        if task.global_step == step:
            action()

    with monkeypatch.context() as patch:
        patch.setattr(Task, hook, act, raising=False)
        with pytest.raises((Crash, SystemExit)) as caught:
            hydralight.train(overrides)
    return caught.value


def drawing(monkeypatch):
    """Make the encoding draw from the global streams, as a reader of files may; count it."""
    original, calls = datasets.Dataset.map, [0]

    def drawn(*args, **kwargs):
        calls[0] += 1
        torch.rand(3), np.random.rand(3), random.random()
        return original(*args, **kwargs)

    monkeypatch.setattr(datasets.Dataset, "map", drawn)
    return calls


def test_the_order_of_callbacks_changes_nothing(pairs, reversed_order, tmp_path, monkeypatch):
    """Also not what a cold cache draws, before the averaged model is built in its own setup."""
    overrides = [*pairs, "callbacks.last_checkpoint.every_n_train_steps=3"]
    whole = hydralight.train([*overrides, "callbacks=ema"])
    with monkeypatch.context() as patch:
        calls = drawing(patch)
        other = [*overrides, *reversed_order, f"paths.log_dir={tmp_path / 'other'}"]
        turned = hydralight.train(other)
        assert calls[0]
    names = [name for name, node in turned.config.callbacks.items() if node]
    assert names == [name for name, node in whole.config.callbacks.items() if node][::-1]
    assert_same(whole, turned)

    typed = [*other, f"paths.log_dir={tmp_path / 'crashed'}"]
    for hook, step in (("on_train_batch_start", 4), ("on_validation_batch_start", 8)):
        stopped(typed, monkeypatch, hook, step, crash)
        (crashed,) = (tmp_path / "crashed/train/runs").iterdir()
        typed = [f"resume={crashed}"]
    assert_same(whole, hydralight.train(typed))


@pytest.mark.parametrize("order", ["default", "reversed"])
@pytest.mark.parametrize(
    ("hook", "step", "left", "accumulate"),
    [
        ("on_train_batch_start", 1, 2, 1),
        ("on_train_batch_start", 1, 2, 2),  # in a step's first micro-batch
        ("on_train_batch_start", 3, 4, 1),  # at the end of an epoch, before an evaluation
        ("on_validation_batch_start", 4, 4, 1),
    ],
)
def test_asked_to_go(
    pairs, reversed_order, monkeypatch, caplog, tmp_path, order, hook, step, left, accumulate
):
    overrides = [*pairs, *(reversed_order if order == "reversed" else ["callbacks=ema"])]
    sizes = [f"data.batch_size={4 // accumulate}", f"trainer.accumulate_grad_batches={accumulate}"]
    whole = hydralight.train([*overrides, *sizes])
    typed = [*overrides, *sizes, f"paths.log_dir={tmp_path / 'left'}"]
    for again in range(1 + (hook == "on_validation_batch_start")):  # that evaluation is done again
        before = signal.getsignal(signal.SIGTERM)
        assert stopped(typed, monkeypatch, hook, step, terminate).code == 143
        said = f"asked to end (SIGTERM): left after step {left}, with a checkpoint"
        assert caplog.text.count(said) == again + 1
        assert signal.getsignal(signal.SIGTERM) is before
        (folder,) = (tmp_path / "left/train/runs").iterdir()
        assert json.loads((folder / "checkpoints/last.json").read_text())["step"] == left
        assert "val/" not in (folder / "metrics.json").read_text()  # before the evaluation's end
        typed = [f"resume={folder}"]
    assert_same(whole, hydralight.train(typed))


@pytest.mark.parametrize(
    ("overrides", "hook", "step", "said"),
    [
        (["callbacks.last_checkpoint=null"], "on_train_batch_start", 1, "2, without a checkpoint"),
        (
            ["trainer.val_check_interval=3", "callbacks.last_checkpoint.every_n_train_steps=2"],
            "on_validation_batch_start",
            3,
            "3; the last checkpoint is of step 2",
        ),
    ],
)
def test_no_checkpoint_is_promised_where_there_is_none(
    pairs, monkeypatch, caplog, overrides, hook, step, said
):
    stopped([*pairs, *overrides], monkeypatch, hook, step, terminate)
    assert f"left after step {said}" in caplog.text


def test_the_best_model_may_be_elsewhere(pairs, tmp_path):
    run = hydralight.train([*pairs, f"callbacks.best_model.dirpath={tmp_path}/elsewhere/model"])
    assert run.metrics["best"]["step"] in (4, 8)
    assert load_file(tmp_path / "elsewhere/model/model.safetensors")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["model"]


def test_samples_leave_no_trace(bart_cnn):
    """They are drawn at random, before training and after each evaluation."""
    overrides = [*bart_cnn, "trainer.max_epochs=2", "generation.do_sample=true"]
    without = hydralight.train([*overrides, "callbacks.samples=null"])
    with_samples = hydralight.train(overrides)
    assert (with_samples.path / "samples").is_dir()
    assert not (without.path / "samples").exists()
    assert without.history.equals(with_samples.history)
    states = [
        torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (without, with_samples)
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_cold_cache_does_not_change_the_model(pairs, monkeypatch):
    """What is read and encoded anew may draw from the random streams; what is cached does not."""
    first: list = []

    def note(task, batch, batch_idx):
        if task.global_step == 0:
            first.append([p.detach().clone() for p in task.model.parameters()])

    monkeypatch.setattr(Task, "on_train_batch_start", note, raising=False)
    with monkeypatch.context() as patch:
        calls = drawing(patch)
        cold = hydralight.train(pairs)
        assert calls[0]
    warm = hydralight.train(pairs)
    assert all(map(torch.equal, *first))
    assert cold.history.equals(warm.history)
    assert Run(cold.path).metrics == warm.metrics


@pytest.mark.parametrize(
    ("experiment", "own", "takes"),
    [
        ("roberta_mlm_wikitext", None, 126),  # its positions begin behind the padding's
        ("distilgpt2_sonnets", 60, 60),
        ("t5_xsum", 200, 200),  # its positions have no end
    ],
)
def test_an_exported_tokenizer_says_what_the_model_takes(
    experiment, own, takes, recipe, checkpoints, tmp_path
):
    """Or less, where it said so itself; that of the run is as it was."""
    overrides = recipe(experiment)
    if own is not None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoints(MODELS[experiment]))
        tokenizer.model_max_length = own
        folder = shutil.copytree(checkpoints(MODELS[experiment]), tmp_path / "checkpoint")
        tokenizer.save_pretrained(folder)
        overrides = [*overrides, f"checkpoint={folder}"]
    few = ["trainer.max_epochs=1", "callbacks.samples=null", "+trainer.limit_train_batches=1"]
    run = hydralight.train([*overrides, *few])
    assert AutoTokenizer.from_pretrained(run.path / "model").model_max_length == takes
