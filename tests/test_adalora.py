"""AdaLoRA: ranks are allocated as peft does it, exactly on a resume, and saved as they are."""

import shutil

import numpy as np
import pytest
import torch
from compared import differences
from peft import AdaLoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, get_linear_schedule_with_warmup

import hydralight
from hydralight.errors import UserError
from hydralight.tasks.task import Task

OFF = "model.config={hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}"
SETTINGS = {"init_r": 6, "target_r": 3, "tinit": 2, "tfinal": 4, "deltaT": 3}


@pytest.fixture
def typed(recipe):
    given = [f"model.adapter.{name}={value}" for name, value in SETTINGS.items()]
    short = ["trainer.max_epochs=-1", "trainer.max_steps=12", "data.batch_size=4"]
    short += ["optimizer.lr=1e-2", "callbacks.samples=null", "optimized_metric=val/loss"]
    return [*recipe("bert_mrpc"), "adapter=adalora", *short, *given]


def test_steps_are_those_of_peft_and_plain_torch(typed, monkeypatch, checkpoints):
    batches, seen = [], {}
    names = ("input_ids", "attention_mask", "token_type_ids", "labels")

    def record(task, batch, batch_idx):
        batches.append({n: batch[n].clone() for n in names if n in batch})

    def begin(task):
        seen["state"] = {n: one.clone() for n, one in task.model.state_dict().items()}

    def end(task):
        seen["after"] = {n: one.clone() for n, one in task.model.state_dict().items()}

    for hook, function in (
        ("on_train_batch_start", record),
        ("on_train_start", begin),
        ("on_train_end", end),
    ):
        monkeypatch.setattr(Task, hook, function, raising=False)
    plain = ["optimizer.weight_decay=0", "trainer.gradient_clip_val=null"]
    run = hydralight.train([*typed, OFF, *plain, "scheduler.warmup_ratio=0"])

    base = AutoModelForSequenceClassification.from_pretrained(
        checkpoints("bert"), hidden_dropout_prob=0, attention_probs_dropout_prob=0
    )
    config = AdaLoraConfig(
        task_type="SEQ_CLS",
        lora_alpha=32,
        lora_dropout=0,
        total_step=12,
        modules_to_save=["bert.pooler.dense"],
        **SETTINGS,
    )
    model = get_peft_model(base, config).train()
    model.get_base_model().load_state_dict(seen["state"])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    optimizer.param_groups[0]["weight_decay"] = 0
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 12)
    losses = []
    for step, batch in enumerate(batches, 1):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    history = run.history.dropna(subset=["train/loss"])
    assert len(losses) == 12
    assert np.abs(history["train/loss"].to_numpy() - losses).max() < 1e-5
    after = model.get_base_model().state_dict()
    assert max(float((after[n] - seen["after"][n]).abs().max()) for n in after) < 1e-5
    # two matrices of rank 6 keep 3 each on average
    left = [one for n, one in after.items() if "lora_E" in n]
    assert sum(int((one != 0).sum()) for one in left) == 6
    # what is saved is what was evaluated, and the term of the loss is no part of an evaluation
    best = {name: value for name, value in run.metrics["best"].items() if name != "step"}
    assert hydralight.evaluate([f"run={run.path}"]) == best
    assert losses[-1] > 1 > best["val/loss"]


def test_a_run_goes_on_to_the_bit(typed, tmp_path):
    whole, other = tmp_path / "whole", tmp_path / "other"
    saved = ["trainer.val_check_interval=2", "callbacks.last_checkpoint.save_total_limit=null"]
    hydralight.train([*typed, *saved, f"hydra.run.dir={whole}"])
    shutil.copytree(whole, other)
    for path in (other / "checkpoints").iterdir():
        if path.stem == "last" or int(path.stem.removeprefix("step-")) > 6:
            path.unlink()
    (other / "metrics.json").unlink()
    hydralight.train([f"resume={other}"])
    assert [place for place in differences(whole, other) if ".yaml" not in place] == []


def test_an_adapter_between_two_allocations_is_saved_whole(typed):
    """Ranks that are masked then are trained on until the next one."""
    run = hydralight.train([*typed, "trainer.max_steps=7", "model.adapter.tfinal=0"])
    state = load_file(run.model_dir / "adapter_model.safetensors")
    assert [one.shape[0] for n, one in state.items() if "lora_E" in n] == [6, 6]
    assert hydralight.evaluate([f"run={run.path}"])["val/loss"] == run.metrics["best"]["val/loss"]


def test_what_does_not_go_together(typed):
    for further, sentence in [
        (["model.adapter.tinit=9"], r"tinit=9 and tfinal=4 leave none of the run's 12 steps"),
        (["model.adapter.target_r=6"], r"target_r=6 should be below init_r=6"),
    ]:
        with pytest.raises(UserError, match=sentence):
            hydralight.train([*typed, *further])
    hydralight.train([*typed, "check=true"])
