"""The same bits on 1, 2 and 4 processes (`trainer.same_bits=true`), also of a run that changes.

What imports Lightning, which reads the rank, is imported within tests: processes come by here.
"""

import json
import re
import shutil

import pytest
import torch
from test_invariance import Stopped, together
from torch import nn

import hydralight
from hydralight.data.order import Batches
from hydralight.errors import UserError
from hydralight.tasks.gradient_tree import GradientTree

FOUR = ["data.batch_size=2", "data.batches_per_step=4"]
SETTINGS = {
    # which evaluates one batch, so that other processes have none
    "bert_mrpc": [
        *FOUR,
        "callbacks=ema",
        "data.group_by_length=true",
        "data.eval_batch_size=8",
        "+trainer.limit_train_batches=7",
    ],
    "distilgpt2_sonnets": [
        *("data.batch_size=1", "data.batches_per_step=8", "precision=bf16-mixed"),
        *("+trainer.limit_val_batches=3", "data.eval_batch_size=1"),
    ],
}
FURTHER = {
    "bert_stsb": ["data.max_tokens=60", "data.batches_per_step=4", "data.eval_batch_size=1"],
    "bart_cnn": FOUR,
    "roberta_mlm_wikitext": [*FOUR, "trainer.gradient_clip_val=0.1"],
    "vit_cxr14": FOUR,
    "bert_squad": FOUR,
    "bert_ner_conll2003": ["data.batch_size=1", "data.batches_per_step=12"],
}
STEPS = 4  # of 13 rows, in epochs of whole and of short steps; with dropout and AdamW


def whole_state(run):
    """All that a run computes: its checkpoint, and what it logged, but the throughput."""
    checkpoint = torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)
    kept = {name: checkpoint[name] for name in ("state_dict", "optimizer_states")}
    kept["averaged"] = checkpoint.get("averaging_state")
    history = run.history.drop(columns=[c for c in run.history if "per_sec" in c])
    return {**kept, "history": history.to_dict("list"), "best": run.metrics["best"]}


def differences(one, other, where=""):
    """Yield the places where two structures are not equal, bit by bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            yield from differences(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{where}/{index}")
    elif isinstance(one, torch.Tensor):
        if not torch.equal(one, other):
            yield where
    elif one != other and not (one != one and other != other):
        yield where


@pytest.fixture
def trained(recipe, checkpoints, tmp_path):
    """Train on one process; and on two to the middle, and from there on four and on one."""

    def train(settings, **arguments):
        jobs, alone, folders = {}, {}, [tmp_path / name for name in ("two", "then_one")]
        for experiment, own in settings.items():
            overrides = [*recipe(experiment), *own, "callbacks.samples=null"]
            overrides += ["trainer.val_check_interval=1", f"trainer.max_steps={STEPS}"]
            files = (tmp_path / "data").rename(tmp_path / f"{experiment}_data")
            overrides = [o.replace(f"{tmp_path}/data/", f"{files}/") for o in overrides]
            run = hydralight.train([*overrides, f"paths.log_dir={tmp_path}/one"])
            alone[experiment] = whole_state(run)
            buckets = "+trainer.strategy.bucket_cap_mb=0.02"  # many, of which few are under way
            jobs[experiment] = [*overrides, "trainer.same_bits=true", buckets]
        assert together(jobs, folders[0], 2, before=stop_in_the_middle) == {}
        shutil.copytree(*folders)
        on = {name: [f"resume={folders[0] / name}"] for name in jobs}
        found = [together(on, folders[0], 4, outcome=whole_state, **arguments), {}]
        for name in jobs:
            run = hydralight.train([f"resume={folders[1] / name}", "trainer.devices=1"])
            found[1][name] = whole_state(run)
        return alone, found

    return train


def stop_in_the_middle():
    """End a run where its third step begins; what it has at that moment is in its checkpoint."""
    from hydralight.tasks.task import Task  # imports Lightning, which reads the rank

    def stop(task, *_):
        if task.trainer.global_step == STEPS // 2:
            raise Stopped

    Task.on_train_batch_start = stop


def check(alone, found):
    for other in found:
        for name, state in other.items():
            where = list(differences(alone[name], state))
            assert where[:3] == [], (name, len(where))
    assert alone.keys() == found[0].keys() == found[1].keys()


def test_the_same_bits(trained):
    check(*trained(SETTINGS))


@pytest.mark.thorough
def test_the_same_bits_of_further_tasks(trained):
    check(*trained(FURTHER))


def add_up_as_ddp():
    """The sum over processes is one of the backend's."""

    def hook(tree, _, bucket):
        work = torch.distributed.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    GradientTree.hook = hook


def seed_by_rank():
    """Dropout comes from one stream a process."""
    from hydralight.tasks import task

    task.seed_training = lambda *_: None


def take_every_fourth():
    """A process takes every fourth micro-batch, as a distributed sampler does with rows."""
    Batches._own = lambda self, batches: list(batches[self.place.rank :: self.place.world_size])


@pytest.mark.thorough
@pytest.mark.parametrize("change", [add_up_as_ddp, seed_by_rank, take_every_fourth])
def test_not_without(change, trained):
    """The negative controls."""
    name = "distilgpt2_sonnets"
    alone, (four, _) = trained({name: SETTINGS[name]}, before=change)
    assert any("state_dict" in where for where in differences(alone[name], four[name]))


def halves(values):
    """The sum of halves, of halves of them, and so on, as long as they are even."""
    if len(values) % 2:
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total
    return halves(values[: len(values) // 2]) + halves(values[len(values) // 2 :])


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 7, 8, 12, 20, 32])
def test_a_tree_in_one_process(number):
    """Gradients whose sum depends on its order; of a parameter that some micro-batches lack too."""
    stream = torch.Generator().manual_seed(number)
    values = list(torch.randn(number, 500, generator=stream))
    always, seldom = nn.Parameter(torch.zeros(500)), nn.Parameter(torch.zeros(500))
    tree = GradientTree([always, seldom])
    for _ in range(2):  # nothing of a step is left for the next
        always.grad = seldom.grad = None
        for index, value in enumerate(values):
            tree.begin(index, number)
            (always @ value).backward()
            if index == 1:
                (seldom @ value).backward()
        tree.finish()
        assert torch.equal(always.grad, halves(values))
        assert number < 2 or torch.equal(seldom.grad, values[1])
    if number > 3 and number % 2 == 0:
        assert not torch.equal(always.grad, sum(values[1:], start=values[0]))


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["trainer.devices=3"], "3 devices are not made of them; take 1, 2, 4, 8 or so."),
        (["trainer.devices=2", "data.batches_per_step=3"], "cannot be shared by 2 devices"),
        (["+trainer.limit_val_batches=0.5"], "=0.5 is a part of each device's batches"),
    ],
)
def test_what_cannot_be_had(typed, told, recipe):
    overrides = [*recipe("bert_mrpc"), "trainer=ddp_cpu", "trainer.same_bits=true", *typed]
    with pytest.raises(UserError, match=re.escape(told)):
        hydralight.train(overrides)


def test_a_batch_normalization_is_refused():
    from hydralight.tasks.same_bits import check_buffers

    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(UserError, match="1 is a batch normalization"):
        check_buffers(net)


def test_threads_are_fixed(recipe, tmp_path, monkeypatch):
    """One a process, unless the environment says more; a resume with others is refused."""
    from hydralight.tasks.task import Task

    seen = []
    monkeypatch.setattr(
        Task, "on_train_batch_start", lambda *_: seen.append(torch.get_num_threads())
    )
    overrides = [*recipe("bert_mrpc"), "trainer.same_bits=true", "trainer.max_steps=1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    run = hydralight.train(overrides)
    monkeypatch.delenv("OMP_NUM_THREADS")
    told = "by 2 threads a process on the cpu, and this is 1 thread .* set OMP_NUM_THREADS=2"
    with pytest.raises(UserError, match=told):
        hydralight.train([f"resume={run.path}", "trainer.max_steps=2"])
    hydralight.train([f"resume={run.path}", "trainer.max_steps=2", "trainer.same_bits=false"])
    other = hydralight.train([*overrides, f"paths.log_dir={tmp_path}/other"])
    assert seen == [2, 1, 1]
    recorded = [json.loads((r.path / "environment.json").read_text()) for r in (run, other)]
    assert [one["threads"] for one in recorded] == [2, 1]
