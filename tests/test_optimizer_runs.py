"""Runs with optimizers and schedules that need more of a training than a call after backward."""

import sys
from types import SimpleNamespace

import pytest
import pytorch_optimizer
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from safetensors.torch import load_file

import hydralight
from hydralight.errors import UserError
from hydralight.tasks.optimization import check_averages, check_monitored

FREE = ["optimizer=schedule_free_adamw", "scheduler=null", "optimizer.lr=1e-2"]
FREE += [
    "optimizer.warmup_steps=2",
    "callbacks.best_model.save_last=true",
    "callbacks.samples=null",
]
SHORT = ["callbacks.samples=null", "callbacks.best_model=null", "optimizer.lr=1e-3"]


def checkpoint(run):
    return torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)


def weights(run):
    return checkpoint(run)["state_dict"]


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first | second)


@pytest.fixture
def train(recipe):
    """A function from overrides to a run of `bert_mrpc`, of two steps an epoch."""
    return lambda *more: hydralight.train([*recipe("bert_mrpc"), *more])


def test_a_schedule_free_run_evaluates_and_exports_its_average_and_trains_on_as_without(train):
    run = train(*FREE, "trainer.max_epochs=2")
    saved, exported = checkpoint(run), load_file(run.path / "model-last/model.safetensors")
    states, groups = saved["optimizer_states"][0]["state"], saved["trained"]["parameters"]
    for number, name in enumerate(name for group in groups for name in group):
        trained, z = saved["state_dict"][name], states[number]["z"]
        average = trained.double() + (z.double() - trained.double()) * (1 - 1 / 0.9)
        own = exported[name.removeprefix("model.")]
        torch.testing.assert_close(own.double(), average, rtol=1e-6, atol=1e-7)
    assert not torch.equal(own, trained)
    found = hydralight.evaluate([f"run={run.path}"])
    assert found["val/loss"] == pytest.approx(run.metrics["best"]["val/loss"], rel=1e-6)

    often = train(*FREE, "trainer.max_epochs=2", "trainer.val_check_interval=1")
    assert len(often.history["val/loss"].dropna()) == 4
    assert same(weights(often), weights(run))

    half = train(*FREE, "trainer.max_epochs=1")
    whole = hydralight.train([f"resume={half.path}", "trainer.max_epochs=2"])
    assert same(weights(whole), weights(run))
    assert same(load_file(whole.path / "model-last/model.safetensors"), exported)


def test_a_schedule_free_optimizer_goes_with_no_other_average():
    optimizer = pytorch_optimizer.ScheduleFreeSGD([torch.zeros(1)])
    with pytest.raises(UserError, match="FreeSGD averages weights itself: leave callbacks=ema out"):
        check_averages(optimizer, [EMAWeightAveraging()])
    check_averages(optimizer, [])
    check_averages(torch.optim.SGD([torch.zeros(1)]), [EMAWeightAveraging()])


def test_a_schedule_follows_evaluations_and_is_resumed_in_their_midst(train):
    never = "scheduler.options={patience: 0, factor: 0.5, threshold: 9.0, threshold_mode: abs}"
    typed = [*SHORT, "scheduler=reduce_on_plateau", never, "scheduler.monitor=val/loss"]
    typed += ["scheduler.mode=min", "trainer.val_check_interval=1"]
    run = train(*typed, "trainer.max_epochs=2")
    rates = run.history["lr"].dropna().tolist()
    # the first evaluation is the best, and each one after it halves the rate of the next step
    assert rates == [1e-3, 1e-3, 5e-4, 2.5e-4]
    half = train(*typed, "trainer.max_epochs=1")
    whole = hydralight.train([f"resume={half.path}", "trainer.max_epochs=2"])
    assert whole.history["lr"].dropna().tolist() == rates
    assert same(weights(whole), weights(run))


@pytest.mark.thorough
def test_a_greedy_schedule_raises_the_rate_while_evaluations_get_better(train):
    options = "scheduler.options={patience: 0, factor: 0.5, min_lr: 1e-5, max_lr: 4e-3}"
    typed = [*SHORT, "scheduler=greedy", options, "scheduler.monitor=val/loss"]
    run = train(*typed, "scheduler.mode=min", "trainer.max_epochs=4")
    losses, rates = run.history["val/loss"].dropna(), run.history["lr"].dropna().tolist()
    expected, best = [1e-3, 1e-3], float("inf")
    for loss in losses[:-1]:
        better, best = loss < best - 1e-6, min(loss, best)
        rate = min(expected[-1] / 0.5, 4e-3) if better else max(expected[-1] * 0.5, 1e-5)
        expected += [rate, rate]
    assert rates == pytest.approx(expected)
    assert rates[2] == 2e-3


def test_what_a_schedule_cannot_follow_is_told():
    def check(monitor, limit=1.0):
        trainer = SimpleNamespace(limit_val_batches=limit)
        task = SimpleNamespace(trainer=trainer, evaluated_names=lambda: (["val/loss"], False))
        check_monitored(SimpleNamespace(monitor=monitor), task)

    check("val/loss")
    with pytest.raises(UserError, match=r"monitor=val/los is not among .*did you mean 'val/loss'"):
        check("val/los")
    with pytest.raises(UserError, match="goes by val/loss, and nothing is evaluated: choose"):
        check("val/loss", 0)


@pytest.mark.thorough
def test_a_decay_begins_anew_before_a_new_end(train):
    typed = [*SHORT, "scheduler=warmup_stable_decay", "scheduler.warmup_steps=1"]
    typed += ["scheduler.decay_steps=2", "scheduler.options.decay_type=linear"]
    run = train(*typed, "trainer.max_steps=5")
    assert run.history["lr"].dropna().tolist() == pytest.approx([0, 1e-3, 1e-3, 1e-3, 5e-4])
    longer = hydralight.train([f"resume={run.path}", "trainer.max_steps=8"])
    rates = longer.history["lr"].dropna().tolist()
    assert rates == pytest.approx([0, 1e-3, 1e-3, 1e-3, 5e-4, 1e-3, 1e-3, 5e-4])


@pytest.mark.thorough
def test_warm_up_is_given_in_tokens(train, capsys):
    """An epoch of two steps; what a run counts is what its encoded rows have."""
    from hydralight.tasks import optimization

    counted = []
    original = optimization.tokens_per_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            optimization,
            "tokens_per_step",
            lambda *of: counted.append((original(*of), of)) or counted[-1][0],
        )
        run = train(*SHORT, "scheduler.warmup_tokens=1000", "trainer.max_steps=8")
    (tokens, (data, _)), *_ = counted
    lengths = [len(row["input_ids"]) for row in data.encoded("train")]
    assert tokens == sum(lengths) / 2
    steps = -(-1000 // tokens)
    assert 1 < steps < 8
    rates = run.history["lr"].dropna().tolist()
    assert rates.index(max(rates)) == steps
    with pytest.raises(UserError, match="scheduler: give warmup_ratio or warmup_tokens, not both"):
        train("scheduler.warmup_tokens=10", "scheduler.warmup_ratio=0.1")


@pytest.mark.thorough
def test_a_changed_group_is_another_training(train):
    run = train(*SHORT, "optimizer.layer_decay=0.5", "trainer.max_epochs=1")
    more = [f"resume={run.path}", "trainer.max_epochs=2"]
    with pytest.raises(UserError, match=r"optimizer\.layer_decay is 0\.5, and now it is 0\.6"):
        hydralight.train([*more, "optimizer.layer_decay=0.6"])
    assert hydralight.train(more).history["epoch"].max() == 1


def test_a_preflight_shows_groups_and_schedule(train, capsys):
    typed = ["optimizer.groups=[{params: '*query*', lr: 1e-3}]", "scheduler.warmup_steps=2"]
    train(*typed, "check=true", "trainer.max_steps=20", "optimizer.lr=2e-4")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "lr 0.001, weight_decay 0: 1 tensor, 1,024 (bert.encoder.layer.0.attention.self" in said
    assert "lr 0.0002, weight_decay 0: 10 tensors" in said
    assert "0 at step 1, 0.0002 at step 3, 0.00011 at step 11, 1.1e-05 at step 20" in said
    assert "▄███▇▇▆▆▅▅▄▄▄▃▃▂▂▁▁" in said


def test_a_package_that_is_absent_is_named(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(UserError, match=r"pytorch_optimizer.Lion needs a package .*: pip install"):
        train("optimizer=lion")


THOROUGH = ["adafactor", "adafactor_hf", "lion", "muon", "schedule_free_sgd", "schedule_free_radam"]
THOROUGH += ["adamw_8bit", "galore", "apollo", "ademamix", "soap", "prodigy"]


@pytest.mark.thorough
@pytest.mark.parametrize("name", THOROUGH)
def test_a_run_with_each_optimizer_is_resumed_to_the_bit(name, train):
    rank = ["optimizer.matrices.rank=4"] if name in ("galore", "apollo") else []
    typed = [*SHORT, f"optimizer={name}", "scheduler=constant", *rank]
    run = train(*typed, "trainer.max_epochs=4")
    half = train(*typed, "trainer.max_epochs=2")
    whole = hydralight.train([f"resume={half.path}", "trainer.max_epochs=4"])
    assert same(weights(whole), weights(run))
