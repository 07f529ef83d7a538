"""`callbacks=push`: what a run sends while it trains, and that it never minds what comes of it."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hubbing import WRITE, hubbing
from omegaconf import OmegaConf
from safetensors.torch import load

import hydralight
from hydralight.callbacks.best_model import BestModel
from hydralight.callbacks.push import Push
from hydralight.config.trust import check_trust
from hydralight.config.typed import Typed
from hydralight.errors import UserError
from hydralight.tasks.task import Task
from hydralight.uploads.process import Pushes

PUSH = ["callbacks=push", "callbacks.push.repo=me/model"]


@pytest.fixture
def hub(monkeypatch):
    with hubbing(monkeypatch) as server:
        yield server


@pytest.fixture
def pairs(recipe, tmp_path):
    """Four optimizer steps with an evaluation after each."""
    own = [*recipe("bert_mrpc"), "data.batch_size=4", "trainer.max_steps=4", "optimizer.lr=0.01"]
    return [*own, "trainer.val_check_interval=1", f"hydra.run.dir={tmp_path / 'run'}"]


def folder_of(folder, *files):
    for name, content in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def steps_of(hub):
    """The step of the model in each commit, whose files are those that its own list knows."""
    found = []
    for commit in hub.commits()[1:]:
        files = {n: c for n, c in commit["files"].items() if n != ".gitattributes"}
        known = json.loads(files.pop("checksums.json"))
        assert known.keys() == files.keys()
        found.append(json.loads(files["exported.json"])["step"])
    return found


def test_each_best_model_is_pushed_and_the_end(hub, pairs, caplog):
    """The first call is refused, which the run only tells; what follows has all."""
    hub.faults = {"create": [403]}
    with caplog.at_level("INFO"):
        run = hydralight.train([*pairs, *PUSH])
    said = [one.message for one in caplog.records if "uploads" in one.name]
    assert "nothing is pushed to me/model: the token has no right to write" in said[0]
    best = run.metrics["best"]["step"]
    assert steps_of(hub)[-1] == best
    assert f"The model of step {best}, {hub.url}/me/model/commit/" in said[-1]
    sent = hub.files()
    assert sent["results/metrics.json"] == (run.path / "metrics.json").read_bytes()
    assert b'"finished"' in sent["results/metrics.json"]
    assert sent["model.safetensors"] == (run.path / "model/model.safetensors").read_bytes()
    assert not list(run.path.glob("*.partial"))
    hub.asked.clear()
    hydralight.evaluate([f"run={run.path}"])  # which trusts nobody with a push, and makes none
    assert hub.asked == []


@pytest.mark.thorough
@pytest.mark.parametrize(("when", "summaries"), [("end", 2), ("save", None)])
def test_when_a_run_pushes(hub, pairs, when, summaries):
    run = hydralight.train([*pairs, *PUSH, f"callbacks.push.when={when}"])
    assert summaries in (None, len(hub.commits()))
    sent = load(hub.files()["model.safetensors"])
    best = load((run.path / "model/model.safetensors").read_bytes())
    last = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    last = {name: last[f"model.{name}"] for name in sent}
    assert run.metrics["best"]["step"] < 4
    assert any(not torch.equal(best[name], last[name]) for name in sent)
    pushed = last if when == "save" else best
    assert all(torch.equal(value, pushed[name]) for name, value in sent.items())
    assert not (run.path / "model-pushed").exists()


@pytest.mark.thorough
def test_each_best_model_is_there_before_the_next(hub, pairs, monkeypatch):
    """Each step waits for what the one before has pushed: no best model is left out."""

    def wait(task, *_):
        best = json.loads(place.read_text()).get("best", {}).get("step")
        (push,) = [one for one in task.trainer.callbacks if isinstance(one, Push)]
        ends = time.monotonic() + 60
        while best and best not in steps_of(hub) and time.monotonic() < ends:
            time.sleep(0.02)
            push.pushes.look()
        for one in task.trainer.callbacks:
            if isinstance(one, BestModel):
                one.best_value = None  # so that each is the best

    place = Path(pairs[-1].partition("=")[2]) / "metrics.json"
    monkeypatch.setattr(Task, "on_before_zero_grad", wait, raising=False)
    hub.make("me/model")
    hydralight.train([*pairs, *PUSH])
    assert sorted(set(steps_of(hub))) == [1, 2, 3, 4]


@pytest.mark.thorough
def test_a_run_that_is_asked_to_end_waits_for_no_hub(hub, pairs, monkeypatch, tmp_path):
    """The hub does not answer, and the run is gone at once; resumed, it pushes."""
    silent, asked, begun = threading.Event(), threading.Event(), []

    def wait():
        asked.set()
        silent.wait(60)

    def end(task, *_):
        begun.append(task.trainer)
        if task.global_step == 2:
            assert asked.wait(60)
            os.kill(os.getpid(), signal.SIGTERM)

    hub.faults = {"create": [wait]}
    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_before_zero_grad", end, raising=False)
        with pytest.raises(SystemExit) as caught:
            hydralight.train([*pairs, *PUSH])
    assert caught.value.code == 143
    assert not silent.is_set()
    (push,) = [one for one in begun[0].callbacks if isinstance(one, Push)]
    assert push.pushes.process is None
    assert not list((tmp_path / "run").glob("*.partial"))
    assert "me/model" not in hub.repos
    silent.set()
    run = hydralight.train([f"resume={tmp_path / 'run'}", PUSH[1]])
    assert steps_of(hub)[-1] == run.metrics["best"]["step"]


def test_one_is_on_its_way_and_the_newest_waits(hub, tmp_path):
    go, asked = threading.Event(), threading.Event()
    hub.make("me/model")

    def wait():
        asked.set()
        go.wait(60)

    hub.faults = {"commit": [wait]}
    pushes = Pushes("me/model", None, None)
    folders = [folder_of(tmp_path / str(i), ("config.json", str(i))) for i in range(4)]
    pushes.add(folders[0])
    assert asked.wait(60)
    for folder in folders[1:]:
        pushes.add(folder)
    assert [folder.exists() for folder in folders] == [True, False, False, True]
    go.set()
    assert pushes.finish(60)
    contents = [one["files"]["config.json"] for one in hub.commits()[1:]]
    assert contents == [b"0", b"3"]
    assert not any(folder.exists() for folder in folders)


def test_a_push_goes_with_its_run_and_leaves_the_last_commit(hub, tmp_path):
    """Its process ends with what has started it, and a wait for it is bounded."""
    hub.make("me/model")
    asked = threading.Event()

    def wait():
        asked.set()
        threading.Event().wait(30)

    hub.faults = {"commit": [wait, wait]}
    pushes = Pushes("me/model", None, None)
    pushes.add(folder_of(tmp_path / "a", ("config.json", "{}")))
    assert asked.wait(60)
    began = time.monotonic()
    assert not pushes.finish(0.2)
    process = pushes.process
    process.stdin.close()  # as the system does it for a training that is killed
    assert process.wait(20) == 1
    assert time.monotonic() - began < 25
    pushes.give_up()
    assert len(hub.commits()) == 1
    assert not (tmp_path / "a").exists()


def test_an_interrupted_run_gives_up_what_is_on_its_way(hub, tmp_path):
    push, asked = Push("me/model", str(tmp_path)), threading.Event()
    hub.make("me/model")

    def wait():
        asked.set()
        threading.Event().wait(30)

    hub.faults = {"commit": [wait]}
    folders = [folder_of(tmp_path / str(i), ("config.json", str(i))) for i in range(2)]
    for folder in folders:
        push.pushes.add(folder)
    assert asked.wait(60)
    process = push.pushes.process
    push.on_exception(None, None, KeyboardInterrupt())
    assert process.poll() == -signal.SIGKILL
    assert not any(folder.exists() for folder in folders)
    assert len(hub.commits()) == 1


def test_what_cannot_push_is_refused_before_it_trains(hub, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is no name of a repository"):
        Push("model", str(tmp_path))
    trainer = SimpleNamespace(callbacks=[], is_global_zero=True)
    with pytest.raises(UserError, match=r"sends what callbacks\.best_model exports"):
        Push("me/model", str(tmp_path)).on_fit_start(trainer, None)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="there is no token for the hub"):
        Push("me/model", str(tmp_path))
    assert hub.asked == []


def ours(caplog):
    """What was said, without the hub's client, which tells cards that have no header."""
    return [one.getMessage() for one in caplog.records if one.name.startswith("hydralight")]


def test_the_end_is_tried_again_and_a_failure_is_told(hub, tmp_path, monkeypatch, caplog):
    """Here nothing is trained: a folder stands for a run's."""
    folder_of(tmp_path, ("model/config.json", "{}"), ("config.yaml", "seed: 1\n"))
    monkeypatch.setattr("hydralight.callbacks.push.WAITS", (0, 0, 0))
    hub.faults = {"create": [503] * 3 + [503] * 3}  # the client of a push tries three times
    Push("me/model", str(tmp_path)).finish()
    assert hub.files()["config.json"] == b"{}"
    (said,) = ours(caplog)
    assert "the hub does not take it at the moment (503: no)" in said
    caplog.clear()
    (tmp_path / "model/config.json").write_text(json.dumps({"token": WRITE}))
    Push("me/model", str(tmp_path)).finish()
    said, last = ours(caplog)
    assert "config.json holds what looks like a secret" in said
    assert "the hub does not have the end of this run; to send it: " in last
    assert f"hydralight publish run={tmp_path} repo=me/model" in last
    assert len(hub.commits()) == 2
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(("said", "typed"), [
    ("callbacks.push.repo has no value", ["callbacks=push"]),
    ("would send each trial's model to one repository", ["-m", *PUSH, "seed=1,2"]),
])  # fmt: skip
def test_what_is_said_of_a_push(pairs, commands, tmp_path, said, typed, monkeypatch):
    done = commands.run(["train", *pairs, *typed], tmp_path)
    assert done.code == 1
    assert said in done.err


def test_a_config_that_was_read_pushes_nowhere(tmp_path):
    node = {"_target_": "hydralight.callbacks.push.Push", "repo": "evil/model", "private": False}
    for key, value in [("repo", "evil/model"), ("private", False)]:
        config = OmegaConf.create({"callbacks": {"push": node}})
        others = [f"callbacks.push.{one}={node[one]}" for one in ("repo", "private") if one != key]
        with pytest.raises(UserError, match=rf"push\.{key}={value} would change what is sent"):
            check_trust(config, Typed(tuple(others)), tmp_path)
