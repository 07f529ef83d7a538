"""The three contracts: losses as sums, the order of the data, models built late."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

import hydralight
from hydralight.data.sampling import (
    EpochBatchSampler,
    EpochRows,
    TokenBudgetSampler,
    widest,
)
from hydralight.tasks.losses import token_cross_entropy
from hydralight.tasks.task import Task


class Crash(Exception):
    pass


def final_state(run):
    return torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)


def step_log(overrides):
    """Train two epochs of 8 rows without dropout, and return the logged steps."""
    run = hydralight.train([*overrides, "model.config={dropout: 0}", "trainer.max_epochs=2"])
    return run.history.dropna(subset=["train/loss"])[["train/loss", "train/grad_norm"]]


def test_gradients_do_not_depend_on_micro_batches(bart_cnn, articles):
    files = [f"data.path.train='{articles / 'train.jsonl'}[:11]'", "trainer.gradient_clip_val=null"]
    whole = step_log([*bart_cnn, *files, "data.batch_size=8"])
    parts = step_log([*bart_cnn, *files, "data.batch_size=4", "trainer.accumulate_grad_batches=2"])
    # 8 rows of unequal targets and then 3: the second window is short, in batches and in targets
    assert len(whole) == len(parts) == 4
    np.testing.assert_allclose(whole, parts, rtol=2e-5)


def test_gradient_is_that_of_the_mean_over_targets(bart_cnn, articles, monkeypatch):
    """Against a gradient computed by hand from all the targets of the step at once."""
    seen = {}

    def record(task, *args, **kwargs):
        original(task, *args, **kwargs)
        seen["ours"] = [p.grad.clone() for p in task.model.parameters()]
        batch = task.trainer.datamodule.first_batch("train", 5)
        task.model.zero_grad()
        loss_sum, weight = token_cross_entropy(task(batch).logits, batch["labels"])
        assert weight == (batch["labels"] != -100).sum()
        (loss_sum / weight).backward()
        seen["reference"] = [p.grad.clone() for p in task.model.parameters()]

    original = Task.configure_gradient_clipping
    monkeypatch.setattr(Task, "configure_gradient_clipping", record)
    hydralight.train(
        [
            *bart_cnn,
            f"data.path.train='{articles / 'train.jsonl'}[:5]'",
            "data.batch_size=1",
            "trainer.gradient_clip_val=null",
            "trainer.accumulate_grad_batches=8",
            "model.config={dropout: 0}",
            "trainer.max_epochs=1",
        ]
    )
    for ours, reference in zip(seen["ours"], seen["reference"], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)


def test_loss_is_a_sum_and_weighs_nothing_without_targets():
    logits = torch.randn(2, 3, 7)
    labels = torch.tensor([[1, 2, -100], [3, -100, -100]])
    loss_sum, weight = token_cross_entropy(logits, labels)
    rows = logits.log_softmax(-1)
    expected = -(rows[0, 0, 1] + rows[0, 1, 2] + rows[1, 0, 3])
    torch.testing.assert_close(loss_sum, expected)
    assert weight == 3
    nothing, none = token_cross_entropy(logits, torch.full((2, 3), -100))
    assert nothing == 0
    assert none == 0


def indices(sampler):
    """The rows of one epoch's batches, without the epoch that goes with each."""
    return [[index for _, index in batch] for batch in sampler]


def test_order_is_a_function_of_seed_and_epoch():
    def epochs(seed, number=3):
        sampler = EpochBatchSampler(10, 4, seed=seed)
        return [indices(sampler) for _ in range(number)]

    first, second, third = epochs(seed=0)
    assert epochs(seed=0) == [first, second, third]
    assert first != second != third
    assert epochs(seed=1)[0] != first
    for epoch in (first, second, third):
        assert sorted(i for batch in epoch for i in batch) == list(range(10))
        assert [i for batch in epoch for i in batch] != list(range(10))
    assert indices(EpochBatchSampler(5, 2, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_order_goes_on_from_any_position():
    sampler = EpochBatchSampler(10, 4, seed=3)
    whole = [list(sampler) for _ in range(3)]
    assert {epoch for batch in whole[1] for epoch, _ in batch} == {1}
    resumed = EpochBatchSampler(10, 4, seed=3, epoch=1, position=2)
    assert list(resumed) == whole[1][2:]
    assert list(resumed) == whole[2]


def test_batches_of_like_lengths():
    lengths = np.random.default_rng(0).integers(5, 500, 1003)
    sampler = EpochBatchSampler(1003, 8, seed=2, lengths=lengths)
    first, second = indices(sampler), indices(sampler)
    for epoch in (first, second):
        assert sorted(i for batch in epoch for i in batch) == list(range(1003))
        assert len(epoch[-1]) == 3
        assert lengths.argmax() in epoch[0]
    together = lambda epoch: {frozenset(batch) for batch in epoch}  # noqa: E731
    assert len(together(first) & together(second)) < 3

    def padded(epoch):
        return sum(len(batch) * lengths[batch].max() for batch in epoch) / lengths.sum()

    plain = indices(EpochBatchSampler(1003, 8, seed=2))
    assert padded(plain) > 1.6
    assert padded(first) < 1.1
    longest = [lengths[batch].max() for batch in first[1:-1]]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.2  # not from long to short

    resumed = EpochBatchSampler(1003, 8, seed=2, lengths=lengths, epoch=1, position=60)
    assert indices(resumed) == second[60:]
    ranks = [
        indices(EpochBatchSampler(1003, 4, seed=2, lengths=lengths, rank=rank, world_size=2))
        for rank in range(2)
    ]
    steps = [sorted(one + other) for one, other in zip(*ranks, strict=True)]
    assert steps == [sorted(batch) for batch in first]


@pytest.mark.parametrize(
    ("num_rows", "world_size", "max_tokens"),
    [(1003, 1, 2048), (1003, 2, 1024), (17, 3, 600), (500, 1, 512), (4, 2, 4000)],
)
def test_batches_of_a_token_budget(num_rows, world_size, max_tokens):
    lengths = np.random.default_rng(num_rows).integers(5, 513, num_rows)

    def ranks(epoch, position=0):
        samplers = [
            TokenBudgetSampler(lengths, max_tokens, seed=2, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for sampler in samplers:
            sampler.epoch, sampler.position = epoch, position
        batches = [indices(sampler) for sampler in samplers]
        assert {len(part) + position for part in batches} == {len(sampler) for sampler in samplers}
        return batches

    epochs = [ranks(epoch) for epoch in range(3)]
    assert len({len(part) for parts in epochs for part in parts}) == 1
    for parts in epochs:
        rows = sorted(row for part in parts for batch in part for row in batch)
        assert len(rows) == len(set(rows)) > num_rows - world_size
        sizes = [len(batch) * lengths[batch].max() for part in parts for batch in part]
        assert max(sizes) <= max_tokens
        if num_rows > 100:
            assert len(rows) == num_rows
            assert lengths.max() in [lengths[part[0]].max() for part in parts]
            assert sum(sizes) < 1.1 * lengths.sum()
    together = [{frozenset(b) for b in parts[0] if len(b) > 3} for parts in epochs]
    if num_rows > 100:
        assert len(together[0] & together[1]) < len(together[0]) / 4
        longest = [lengths[batch].max() for batch in epochs[0][0][1:]]
        assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.2
    assert ranks(1, position=1) == [part[1:] for part in epochs[1]]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(("longest", "max_tokens"), [((400, 112), 1000), ((40, 12), 99)])
def test_a_token_budget_holds_for_sources_and_targets(longest, max_tokens, world_size):
    rng = np.random.default_rng(4)
    parts = np.stack([rng.integers(5, length, 800) for length in longest], axis=1)
    sampler = TokenBudgetSampler(parts, max_tokens, seed=2, world_size=world_size)
    for _ in range(3):
        batches = [parts[batch] for batch in indices(sampler)]
        sizes = [len(batch) * batch.max(axis=0).sum() for batch in batches]
        assert max(sizes) <= max_tokens
        assert sum(sizes) < 1.4 * sum(batch.sum() for batch in batches)
        assert len(batches) == len(sampler)


def test_rows_of_one_length_may_change_places():
    parts = np.array([[5, 1], [3, 3], [1, 5], [2, 1]])
    bounds = ((0, 1), (1, 2), (2, 4), (3, 9))
    assert [widest(parts, parts.sum(axis=1), *pair) for pair in bounds] == [10, 10, 10, 3]


@pytest.mark.parametrize("num_rows", [8, 9, 11, 16, 17])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_global_batches(num_rows, world_size):
    alone = indices(EpochBatchSampler(num_rows, 3 * world_size, seed=1))
    ranks = [
        indices(EpochBatchSampler(num_rows, 3, seed=1, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    steps = [sorted(i for part in step for i in part) for step in zip(*ranks, strict=True)]
    assert sorted(i for step in steps for i in step) == list(range(num_rows))
    assert all(part for batches in ranks for part in batches)
    if num_rows % (3 * world_size) >= world_size or num_rows % (3 * world_size) == 0:
        assert steps == [sorted(batch) for batch in alone]


def test_training_shuffles_and_evaluation_goes_from_long_to_short(bart_cnn, monkeypatch):
    seen: dict[str, list] = {"train": [], "val": []}
    monkeypatch.setattr(Task, "on_train_batch_start", recorder(seen["train"]), raising=False)
    monkeypatch.setattr(Task, "on_validation_batch_start", recorder(seen["val"]), raising=False)
    hydralight.train([*bart_cnn, "trainer.max_epochs=2"])
    rows = [row for batch in seen["train"] for row in batch]
    assert sorted(rows[:13]) == sorted(rows[13:]) == list(range(13))
    assert rows[:13] != rows[13:]
    assert rows[:13] != list(range(13))
    first, second, *again = seen["val"]
    assert again == [first, second]
    assert sorted(first + second) == list(range(7))
    monkeypatch.setattr(Task, "on_validation_batch_start", recorder(seen["val"], size_of))
    del seen["val"][:]
    hydralight.train([*bart_cnn, "trainer.max_epochs=1"])
    sizes = [size for batch in seen["val"] for size in batch]
    assert sizes == sorted(sizes, reverse=True) != sizes[::-1]


def test_a_token_budget_is_that_of_the_tensors(bart_cnn, monkeypatch):
    sizes: list[int] = []
    hook = recorder(sizes, lambda batch: batch["input_ids"].numel() + batch["labels"].numel())
    monkeypatch.setattr(Task, "on_train_batch_start", hook, raising=False)
    hydralight.train([*bart_cnn, "data.max_tokens=150", "trainer.max_epochs=3"])
    assert len(sizes) > 3
    assert 100 < max(sizes) <= 150


def test_a_part_of_an_evaluation_is_the_first_of_the_source(bart_cnn, monkeypatch):
    """The longest alone would stand for nothing."""
    seen: list = []
    monkeypatch.setattr(Task, "on_validation_batch_start", recorder(seen), raising=False)
    hydralight.train([*bart_cnn, "trainer.max_epochs=1", "+trainer.limit_val_batches=1"])
    assert seen == [[0, 1, 2, 3]]


def rows_of(batch):
    return batch["row"].tolist()


def size_of(batch):
    columns = (batch["labels"] != -100), batch["attention_mask"]
    return list(zip(*(column.sum(dim=1).tolist() for column in columns), strict=True))


def recorder(rows, what=rows_of):
    def hook(task, batch, batch_idx, dataloader_idx=0):
        rows.append(what(batch))

    return hook


@pytest.mark.parametrize(
    ("crash_at", "num_workers"),
    [(3, 0), (6, 2), (4, 0), (8, 2)],
    ids=["mid-epoch", "epoch 1", "in validation", "in the second validation"],
)
def test_resumed_run_is_the_uninterrupted_one(
    bart_cnn, tmp_path, monkeypatch, crash_at, num_workers
):
    overrides = [
        *bart_cnn,
        "trainer.max_epochs=2",
        f"data.num_workers={num_workers}",
        "callbacks.last_checkpoint.every_n_train_steps=1",
        "optimizer.lr=0.01",
    ]
    rows: list = []
    monkeypatch.setattr(Task, "on_train_batch_start", recorder(rows), raising=False)
    whole = hydralight.train(overrides)
    order = [*rows]
    rows.clear()

    def crash(task, *args):
        if task.global_step == crash_at:
            raise Crash

    hook = "on_validation_start" if crash_at in (4, 8) else "on_train_batch_start"
    with monkeypatch.context() as patch:
        patch.setattr(Task, hook, crash, raising=False)
        with pytest.raises(Crash):
            hydralight.train([*overrides, f"paths.log_dir={tmp_path / 'crashed'}"])
    (crashed,) = (tmp_path / "crashed/train/runs").iterdir()
    rows.clear()
    resumed = hydralight.train([f"resume={crashed}"])

    assert rows == order[crash_at:]
    expected, state = final_state(whole), final_state(resumed)
    assert expected["global_step"] == state["global_step"] == 8
    for name, value in expected["state_dict"].items():
        assert torch.equal(value, state["state_dict"][name]), name
    moments = [s["optimizer_states"][0]["state"][0]["exp_avg_sq"] for s in (expected, state)]
    assert torch.equal(*moments)
    assert whole.history.equals(resumed.history)
    assert whole.metrics == resumed.metrics


def test_dataloader_leaves_the_global_random_stream_alone(bart_cnn):
    """A plain loader draws its workers' seed from it whenever an iterator is made."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    rows = EpochRows(Dataset.from_dict({"a": [1, 2]}))
    sampler = EpochBatchSampler(2, 1)
    loader = DataLoader(rows, batch_sampler=sampler, generator=torch.Generator())
    list(loader)
    assert torch.equal(before, torch.get_rng_state())
    list(DataLoader([1, 2]))
    assert not torch.equal(before, torch.get_rng_state())
