"""Losses that are no numbers, checkpoints that are damaged, disks that are full, and SIGTERM."""

import resource
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import wandb
from forked import DIES
from safetensors.torch import load_file

import hydralight
from hydralight.callbacks.checkpoint import LastCheckpoint
from hydralight.config.resolvers import run_id
from hydralight.errors import UserError
from hydralight.runs.checkpoints import intact_checkpoint
from hydralight.tasks.task import Task


@pytest.fixture
def steps(recipe):
    """13 rows in batches of 4, a checkpoint after each step; two are kept."""
    return [
        *recipe("bert_mrpc"),
        "data.batch_size=4",
        "trainer.max_epochs=2",
        "callbacks.samples=null",
        "callbacks.last_checkpoint.every_n_train_steps=1",
        "callbacks.last_checkpoint.save_total_limit=2",
    ]


def broken_at(monkeypatch, number, value=float("nan")):
    """Make the loss of one training batch no number, and return where its rows are noted."""
    original, rows, calls = Task.loss_and_weight, [], [0]

    def loss(task, outputs, batch):
        loss_sum, weight = original(task, outputs, batch)
        if task.training:
            calls[0] += 1
            if calls[0] == number:
                rows.extend(batch["row"].tolist())
                loss_sum = loss_sum * value
        return loss_sum, weight

    monkeypatch.setattr(Task, "loss_and_weight", loss)
    return rows


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip", ["norm", "value"])
def test_a_loss_that_is_no_number_stops_the_run(steps, monkeypatch, value, clip):
    rows = broken_at(monkeypatch, 3, value)
    with pytest.raises(UserError) as caught:
        hydralight.train([*steps, f"+trainer.gradient_clip_algorithm={clip}"])
    assert "not finite at step 3 (in the loss of rows " + ", ".join(map(str, rows)) in str(
        caught.value
    )
    assert "checkpoints/last.ckpt" in str(caught.value)


def test_a_step_that_is_no_number_is_skipped_and_counted(steps, monkeypatch):
    weights = []
    record = lambda task, *args: weights.append(  # noqa: E731
        [p.detach().clone() for p in task.model.parameters()]
    )
    monkeypatch.setattr(Task, "on_train_batch_end", record, raising=False)
    broken_at(monkeypatch, 3)
    run = hydralight.train([*steps, "task.non_finite=skip"])
    same = [all(map(torch.equal, a, b)) for a, b in pairwise(weights)]
    assert [step + 2 for step, still in enumerate(same) if still] == [3]
    history = run.history.dropna(subset=["lr"]).set_index("step")
    assert history["train/loss"].isna().tolist() == [step == 3 for step in history.index]
    assert history["train/skipped"].fillna(0).tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert all(
        weight.isfinite().all()
        for weight in load_file(run.path / "model/model.safetensors").values()
    )


def test_what_has_no_targets_weighs_nothing(recipe, monkeypatch):
    """Rare masks: some micro-batches have none, and some steps."""
    weights = []

    def loss(task, outputs, batch):
        loss_sum, weight = original(task, outputs, batch)
        if task.training:
            weights.append(float(weight))
        return loss_sum, weight

    original = Task.loss_and_weight
    monkeypatch.setattr(Task, "loss_and_weight", loss)
    run = hydralight.train(
        [
            *recipe("roberta_mlm_wikitext"),
            *("data.mlm_probability=0.05", "data.batch_size=1", "data.block_size=16"),
            *("trainer.accumulate_grad_batches=2", "trainer.max_epochs=-1", "trainer.max_steps=20"),
            *("+trainer.limit_val_batches=0", "callbacks.samples=null"),
        ]
    )
    windows = list(zip(weights[::2], weights[1::2], strict=True))
    assert {(a > 0) + (b > 0) for a, b in windows} == {0, 1, 2}
    history = run.history.dropna(subset=["lr"])
    assert history["train/loss"].notna().tolist() == [a + b > 0 for a, b in windows]
    norms = history["train/grad_norm"].tolist()
    assert [norm > 0 for norm in norms] == [a + b > 0 for a, b in windows]
    assert all(weight.isfinite().all() for weight in run.model.parameters())


def test_a_damaged_checkpoint_gives_way_to_the_one_before(steps, caplog):
    whole = hydralight.train(steps)
    folder = whole.path / "checkpoints"
    last = folder / "last.ckpt"
    content = last.read_bytes()
    last.unlink()  # a link to the newest step
    last.write_bytes(content[: len(content) // 2])
    newest = folder / "step-00000008.ckpt"
    newest.unlink()
    newest.write_bytes(b"not a checkpoint")
    (whole.path / "metrics.json").write_text("{}")
    exported = load_file(whole.path / "model/model.safetensors")
    again = hydralight.train([f"resume={whole.path}"])
    assert f"{last} is damaged" in caplog.text
    assert "resuming from" in caplog.text
    assert "of step 7" in caplog.text
    assert again.history["step"].tolist() == whole.history["step"].tolist()
    weights = load_file(again.path / "model/model.safetensors")
    assert all(torch.equal(weight, weights[name]) for name, weight in exported.items())
    for path in folder.glob("*.ckpt"):
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged .* no other checkpoint"):
        hydralight.train([f"resume={whole.path}", "trainer.max_epochs=3"])


def test_a_full_disk_leaves_the_checkpoint_before(steps, tmp_path, monkeypatch):
    whole = hydralight.train(steps)
    original, limits = LastCheckpoint.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(callback, trainer):
        if trainer.global_step == 6:  # no file may grow beyond this
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            original(callback, trainer)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "save", save)
        with pytest.raises(UserError, match="the checkpoint of step 6 cannot be written"):
            hydralight.train([*steps, f"paths.log_dir={tmp_path / 'full'}"])
    (full,) = (tmp_path / "full/train/runs").iterdir()
    names = {path.stem for path in (full / "checkpoints").iterdir()}
    assert names == {"last", "step-00000004", "step-00000005"}  # each with its record
    assert intact_checkpoint(full / "checkpoints")[1].step == 5
    resumed = hydralight.train([f"resume={full}"])
    assert resumed.history.equals(whole.history)
    states = [
        torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, resumed)
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_sigterm_saves_and_asks_to_be_requeued(steps, tmp_path, commands):
    overrides = [
        *steps,
        "trainer.max_epochs=400",
        "callbacks.last_checkpoint.every_n_train_steps=null",
    ]
    overrides += ["+trainer.check_val_every_n_epoch=400"]
    log = tmp_path / "logs/train/runs"
    outcome = commands.run(["train", *overrides], tmp_path, **{DIES: "6 SIGTERM"})
    said = outcome.err
    assert outcome.code == 143, said
    assert "Traceback" not in said
    (folder,) = log.iterdir()
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    step = state["global_step"]
    assert f"left after step {step}" in said
    run = hydralight.train([f"resume={folder}", f"trainer.max_epochs={step // 4 + 2}"])
    logged = run.history.dropna(subset=["lr"])["step"].tolist()
    assert logged == list(range(1, 4 * (step // 4 + 2) + 1))


def test_wandb_goes_on_under_the_same_id(steps, monkeypatch):
    logged = []

    def log(run, metrics, *args, **kwargs):
        if "train/loss" in metrics:
            logged.append((run.id, metrics["trainer/global_step"]))
        return original(run, metrics, *args, **kwargs)

    original = wandb.Run.log
    monkeypatch.setattr(wandb.Run, "log", log)
    broken_at(monkeypatch, 6)
    with pytest.raises(UserError) as stopped:
        hydralight.train([*steps, "logger=wandb"])
    assert wandb.run is None
    (folder,) = {Path(word).parents[1] for word in str(stopped.value).split() if ".ckpt" in word}
    hydralight.train([f"resume={folder}"])
    assert wandb.run is None
    assert logged == [(run_id(str(folder)), step) for step in range(1, 9)]
    assert run_id(str(folder)) == run_id(str(folder / "x/../../" / folder.name))
    assert run_id(str(folder)) != run_id(str(folder.parent))
    assert set(run_id(str(folder / "é:#/1"))) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
