"""Texts side by side train as they do one below the other."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hydralight
from hydralight.data.packing import balanced, pack
from hydralight.errors import UserError
from hydralight.tasks.task import Task

OFF = "model.config={resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0}"


@pytest.fixture
def sonnets(recipe):
    each_epoch = ["trainer.val_check_interval=1.0"]
    epochs = ["optimizer.lr=1e-3", "trainer.max_epochs=2"]
    return [*recipe("distilgpt2_sonnets"), OFF, *epochs, *each_epoch]


def test_documents_are_laid_out_whole():
    lengths = np.random.default_rng(0).integers(2, 150, 40)
    documents = [list(range(1000 * i, 1000 * i + n)) for i, n in enumerate(lengths)]
    rows = pack(documents, pad_token_id=7, pad_to_multiple_of=8)
    total = sum(lengths)
    number, width = rows["input_ids"].shape
    assert number == -(-total // 512)
    assert width % 8 == 0
    assert number * width < 1.1 * total
    starts = (rows["position_ids"] == 0).nonzero().tolist()
    found = []
    for (row, start), (next_row, stop) in zip(starts, [*starts[1:], (number, 0)], strict=True):
        part = slice(start, stop if next_row == row else width)
        ids = rows["input_ids"][row, part].tolist()
        labels = rows["labels"][row, part].tolist()
        assert rows["position_ids"][row, part].tolist() == list(range(len(ids)))
        if set(ids) == {7}:
            assert set(labels) == {-100}
        else:
            found.append(ids)
            assert labels == [-100, *ids[1:]]
    assert sorted(found) == documents
    assert len(balanced([2000, 500])) == 2  # a row holds the longest


def test_a_packed_text_is_read_as_alone(sonnets, monkeypatch):
    """And not by a model that is left to its defaults, where texts see one another."""
    tasks: list = []
    monkeypatch.setattr(Task, "on_train_end", lambda task: tasks.append(task), raising=False)
    hydralight.train([*sonnets, "trainer.max_epochs=-1", "trainer.max_steps=1"])
    (task,) = tasks
    task.eval()
    rows = task.trainer.datamodule.encoded("train")["input_ids"][:5]
    packed = pack(rows, task.trainer.datamodule.processor.pad_token_id)

    def losses(logits, labels):
        aligned = logits[:, :-1].transpose(1, 2), labels[:, 1:]
        each = F.cross_entropy(*aligned, ignore_index=-100, reduction="none")
        return each[labels[:, 1:] != -100].tolist()

    with torch.no_grad():
        alone = []
        for row in sorted(rows, key=len, reverse=True):
            ids = torch.tensor([row])
            alone += losses(task.model(ids, use_cache=False).logits, ids)
        assert losses(task(packed).logits, packed["labels"]) == pytest.approx(alone, abs=1e-5)
        for default in ({}, {"attention_mask": torch.ones_like(packed["input_ids"])}):
            batch = {name: packed[name] for name in ("input_ids", "position_ids")} | default
            leaked = np.subtract(losses(task.model(**batch).logits, packed["labels"]), alone)
            assert np.abs(leaked).max() > 1e-3


def test_packed_training_is_the_same(sonnets, monkeypatch, tmp_path):
    shapes: list = []

    def see(task, batch, batch_idx):
        shapes.append("position_ids" in batch)

    monkeypatch.setattr(Task, "on_train_batch_start", see, raising=False)
    packed, padded = (
        hydralight.train([*sonnets, f"data.packing={on}", f"paths.log_dir={tmp_path / on}"])
        for on in ("true", "false")
    )
    assert shapes == [True] * (len(shapes) // 2) + [False] * (len(shapes) // 2)
    for name in ("train/loss", "train/grad_norm", "val/loss"):
        ours, reference = (run.history[name].dropna().to_numpy() for run in (packed, padded))
        assert len(ours)
        np.testing.assert_allclose(ours, reference, atol=1e-5)


def test_a_model_that_looks_across_is_refused(recipe, sonnets):
    opt = "{model_type: opt, hidden_size: 16, num_hidden_layers: 1, ffn_dim: 16, "
    opt += "num_attention_heads: 2, word_embed_proj_dim: 16}"
    typed = [arg for arg in sonnets if not arg.startswith("model.")]
    scratch = [*typed, "model=scratch", f"model.config={opt}", "data.packing=true"]
    with pytest.raises(UserError, match="opt with sdpa attention looks across the texts"):
        hydralight.train(scratch)
    hydralight.train([*scratch[:-1], "data.packing=false", "+trainer.fast_dev_run=true"])
    with pytest.raises(UserError, match="packing does not go with segment-level recurrence"):
        hydralight.train([*recipe("transformer_xl_reviews"), "data.packing=true"])
    with pytest.raises(UserError, match=r"not joined: leave out block_size"):
        hydralight.train([*sonnets, "data.packing=true", "data.block_size=16"])
