"""The three contracts: losses as sums, the order of the data, models built late."""

import numpy as np
import pytest
import torch

import hydralight
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
        batch = task.trainer.datamodule.sample_batch("train", 5)
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
