"""Step by step what HF's Trainer does, where its loss is right: one process, no accumulation.

Trainer is run here, on the same checkpoint and batches; nothing is stored.
"""

import copy

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import hydralight
from hydralight.tasks.task import Task

STEPS = 50
OFF = {
    "bart_cnn": "{dropout: 0}",
    "bert_mrpc": "{hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}",
    "bert_ner_conll2003": "{hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}",
    "distilgpt2_sonnets": "{resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0}",
    "roberta_mlm_wikitext": "{hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}",
}

FURTHER = {"distilgpt2_sonnets": ["data.packing=false"]}  # Trainer's model would look across


class Batches(Trainer):
    """Trainer on batches that are given, which records its losses."""

    def __init__(self, batches, **kwargs):
        super().__init__(train_dataset=batches, **kwargs)
        self.batches, self.losses = batches, []

    def get_train_dataloader(self):
        return torch.utils.data.DataLoader(self.batches, batch_size=None, shuffle=False)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))
        return loss


class LearningRates(TrainerCallback):
    def __init__(self):
        self.values = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.values.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("experiment", OFF)
def test_parity_with_trainer(experiment, recipe, tmp_path, monkeypatch):
    batches, seen = [], {}

    def begin(task):
        seen["model"] = copy.deepcopy(task.model)

    def record(task, batch, batch_idx):
        names = [*task._forward_names & batch.keys(), "labels"]
        batches.append({name: batch[name].clone() for name in dict.fromkeys(names)})

    def end(task):
        seen["ours"] = {name: p.detach().clone() for name, p in task.model.named_parameters()}

    for hook, function in (
        ("on_train_start", begin),
        ("on_train_batch_start", record),
        ("on_train_end", end),
    ):
        monkeypatch.setattr(Task, hook, function, raising=False)
    run = hydralight.train(
        [
            *recipe(experiment),
            f"model.config={OFF[experiment]}",
            "trainer.max_epochs=-1",
            f"trainer.max_steps={STEPS}",
            "+trainer.limit_val_batches=0",
            "optimizer.lr=1e-3",
            "optimizer.weight_decay=0.01",
            "scheduler.warmup_steps=5",
            "callbacks.samples=null",
            *FURTHER.get(experiment, []),
        ]
    )
    if experiment == "distilgpt2_sonnets":
        for batch in batches:  # Trainer counts the first token, which nothing predicts
            batch["labels"][:, 0] = -100
    rates = LearningRates()
    trainer = Batches(
        batches,
        model=seen["model"],
        args=TrainingArguments(
            output_dir=str(tmp_path / "trainer"),
            max_steps=STEPS,
            learning_rate=1e-3,
            weight_decay=0.01,
            warmup_steps=5,
            lr_scheduler_type="linear",
            max_grad_norm=1.0,
            optim="adamw_torch",
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        callbacks=[rates],
    )
    trainer.train()
    history = run.history.dropna(subset=["train/loss"])
    ours, theirs = history["train/loss"].to_numpy(), np.array(trainer.losses)
    assert len(ours) == len(theirs) == STEPS
    assert np.ptp(ours) > 0.01
    apart = ours - theirs
    print(f"{experiment}: loss max {np.abs(apart).max():.1e}, mean {apart.mean():+.1e}")
    assert np.abs(apart).max() < 1e-5
    assert abs(apart.mean()) < 1e-6
    np.testing.assert_allclose(history["lr"], rates.values, rtol=1e-6)
    weights = {
        name: float((seen["ours"][name] - weight).abs().max())
        for name, weight in trainer.model.named_parameters()
        # its true gradient is 0, and Adam makes steps of the rounding
        if "k_proj.bias" not in name and "key.bias" not in name
    }
    print(f"{experiment}: weights {max(weights.values()):.1e}")
    assert max(weights.values()) < 1e-5, weights
