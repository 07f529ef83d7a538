"""Runs on a prepared corpus: interrupted and resumed, they train on the rows they would have."""

import signal

import pytest
import torch
from compared import differences
from standins import article, write_jsonl
from test_kill import ended

import hydralight
from hydralight.commands import start
from hydralight.data.corpus import inputs
from hydralight.errors import UserError
from hydralight.tasks.task import Task


class Crash(Exception):
    pass


@pytest.fixture
def overrides(recipe, tmp_path, monkeypatch):
    """GPT-2 on blocks of 16 tokens, in units of 1 KB; a tenth of the texts to validate on."""
    monkeypatch.setattr(inputs, "UNIT_BYTES", 1000)
    for number in range(3):
        numbers = range(20 * number, 20 * number + 20)
        rows = [{"content": article(i)["article"] + f" {i}."} for i in numbers]
        write_jsonl(tmp_path / f"corpus/{number}.jsonl", rows)
    return [
        *recipe("gpt2_scratch"),
        f"data.path={tmp_path}/corpus/*.jsonl",
        f"data.prepared={tmp_path}/shards",
        "data.validation_hash=0.1",
        "data.window_shards=2",
        "data.batch_size=4",
        "data.batches_per_step=4",
        "trainer.accumulate_grad_batches=1",
        "trainer.max_epochs=1.5",
        "callbacks.last_checkpoint.every_n_train_steps=1",
        "callbacks.samples=null",
        "optimizer.lr=1e-2",
        "scheduler.warmup_steps=0",
    ]


@pytest.mark.parametrize("crash_at", [3, 9], ids=["first epoch", "second"])
def test_a_resumed_run_is_the_uninterrupted_one(overrides, tmp_path, monkeypatch, crash_at):
    """Resumed with another number of loader workers."""
    seen: list = []

    def note(task, batch, *args):
        if task.global_step == crash_at and len(crashes) == 1:
            raise Crash
        seen.append(batch["row"].tolist())

    crashes: list = []
    monkeypatch.setattr(Task, "on_train_batch_start", note, raising=False)
    whole = hydralight.train(overrides)
    order = [*seen]
    assert len(order) > 4 * crash_at
    crashes.append(1)
    with pytest.raises(Crash):
        hydralight.train([*overrides, f"paths.log_dir={tmp_path / 'crashed'}"])
    crashes.append(2)
    seen.clear()
    (crashed,) = (tmp_path / "crashed/train/runs").iterdir()
    resumed = hydralight.train([f"resume={crashed}", "data.num_workers=2"])
    assert seen == order[4 * crash_at :]
    states = [
        torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, resumed)
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert whole.metrics == resumed.metrics
    evaluated = hydralight.evaluate([f"run={resumed.path}"])
    assert evaluated["val/loss"] == pytest.approx(resumed.metrics["best"]["val/loss"], abs=1e-6)


def test_another_order_or_corpus_is_refused(overrides, tmp_path):
    run = hydralight.train([*overrides, "trainer.max_epochs=1"])
    resume = [f"resume={run.path}", "trainer.max_epochs=2"]
    with pytest.raises(UserError, match=r"data\.window_shards=2, and another value would change"):
        hydralight.train([*resume, "data.window_shards=3"])
    with pytest.raises(UserError, match="the training data is not the run's"):
        hydralight.train([*resume, "data.block_size=12", "data.max_length=12"])
    write_jsonl(tmp_path / "corpus/1.jsonl", [{"content": "Another text."}])
    with pytest.raises(UserError, match=r"1\.jsonl changed since .* run prepare\.py"):
        hydralight.train(resume)


def test_prepare_leaves_a_corpus_that_a_training_takes_up(overrides, tmp_path):
    index = tmp_path / "shards/index.json"
    assert start("prepare", overrides) is None
    made = index.stat().st_mtime_ns
    run = hydralight.train([*overrides, "trainer.max_steps=1"])
    assert run.metrics["status"] == "finished"
    assert index.stat().st_mtime_ns == made
    with pytest.raises(UserError, match=r"prepare\.py writes a corpus: give data\.prepared"):
        start("prepare", [*overrides, "data.prepared=null", "data.validation_hash=null"])


@pytest.mark.soak
def test_killed_and_resumed_on_another_number_of_processes(overrides, tmp_path):
    """With SIGKILL, from 1 process to 2 and back: the bits of one that was not interrupted."""
    whole, other = tmp_path / "whole", tmp_path / "logs/train/runs/other"
    typed = [*overrides, "trainer.same_bits=true", "trainer.deterministic=true"]
    assert ended([*typed, "trainer=cpu", f"hydra.run.dir={whole}"]).code == 0
    killed = ended([*typed, "trainer=cpu", f"hydra.run.dir={other}"], "batch", 13)
    assert killed.code == -signal.SIGKILL
    go_on = [f"resume={other}"]
    two = ["trainer.devices=2", "trainer.strategy=ddp"]
    assert ended([*go_on, *two], "batch", 7).code == -signal.SIGKILL
    assert ended([*go_on, "trainer.devices=1", "data.num_workers=2"]).code == 0
    assert [p for p in differences(whole, other) if ".yaml" not in p] == []


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("dpo_quickstart", [], "keeps no values of a reference"),
        ("kto", [], "keeps no values of a reference"),
        ("grpo_sort", ["task.num_iterations=2"], r"data\.num_iterations is not for a prepared"),
        ("bert_mrpc", ["data.max_tokens=4096"], r"data\.max_tokens is not for a prepared corpus"),
    ],
)
def test_what_needs_all_rows_is_refused_before_anything_is_prepared(
    recipe, tmp_path, name, more, said
):
    folder = tmp_path / "shards"
    with pytest.raises(UserError, match=said):
        hydralight.train([*recipe(name), f"data.prepared={folder}", *more])
    assert not folder.exists()
