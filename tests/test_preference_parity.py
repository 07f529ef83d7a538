"""Step by step what TRL's trainers do with the same model and rows: one process, no accumulation.

TRL tokenizes the rows itself, and gets them in the order that they were trained on.
"""

import copy
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from preferring import TEMPLATE, alike, files, messages, texts
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

import hydralight
from hydralight.data.ends import left_open
from hydralight.tasks.task import Task

STEPS = 20
SHARED = ["optimizer.lr=1e-3", "optimizer.weight_decay=0.01", "scheduler.warmup_steps=5"]
SHARED += ["trainer.max_epochs=null", f"trainer.max_steps={STEPS}", "callbacks.samples=null"]
SHARED += ["trainer.accumulate_grad_batches=1", "+trainer.limit_val_batches=0", "test=false"]
SHARED += ["model.gradient_checkpointing=false", "model.config=null"]
SHARED += ["data.max_length=112"]
THEIRS = {
    "max_steps": STEPS,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "warmup_steps": 5,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0,
    "optim": "adamw_torch",
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "max_length": 112,
}


class InOrder:
    """One of TRL's trainers on rows in their order, which records its losses."""

    losses: list[float]

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.losses.append(float(loss))
        return loss


def ours(overrides, monkeypatch):
    """A run, the model that it began with, and the rows of each of its batches."""
    seen: dict = {"rows": []}
    monkeypatch.setattr(
        Task, "on_train_start", lambda t: seen.update(model=copy.deepcopy(t.model)), raising=False
    )
    monkeypatch.setattr(
        Task,
        "on_train_batch_start",
        lambda t, batch, _: seen["rows"].append(batch["row"].tolist()),
        raising=False,
    )
    return hydralight.train([*overrides, *SHARED]), seen


def theirs(kind, config, seen, rows, tokenizer, folder, **options):
    """The losses and gradient norms of one of TRL's trainers."""
    size = len(seen["rows"][0])
    taken = [rows[row] for batch in seen["rows"] for row in batch]
    own = {"output_dir": str(folder), "per_device_train_batch_size": size, **THEIRS, **options}
    trainer = type("Ours", (InOrder, kind), {"losses": []})(
        model=seen["model"],
        args=config(**own),
        train_dataset=Dataset.from_list(taken),
        processing_class=tokenizer,
    )
    trainer.train()
    norms = [one["grad_norm"] for one in trainer.state.log_history if "grad_norm" in one]
    return np.array(trainer.losses), np.array(norms)


def compare(run, losses, norms):
    history = run.history.dropna(subset=["train/loss"])
    assert len(history) == len(losses) == len(norms) == STEPS
    mine = history["train/loss"].to_numpy(), history["train/grad_norm"].to_numpy()
    assert np.ptp(mine[0]) > 0.01
    apart = [
        np.abs(a - b) / np.maximum(1, np.abs(b)) for a, b in zip(mine, (losses, norms), strict=True)
    ]
    print(f"loss {apart[0].max():.1e}, norm {apart[1].max():.1e}")
    assert apart[0].max() < 1e-5
    assert apart[1].max() < 1e-5


@pytest.fixture
def llama(checkpoints, tmp_path):
    """A checkpoint whose tokenizer and chat template put nothing behind texts and turns.

    TRL ends texts itself, also those that the tokenizer has ended, and trains on what a template
    puts behind the end of a turn.
    """
    folder = tmp_path / "llama"
    shutil.copytree(checkpoints("llama"), folder)
    tokenizer = left_open(AutoTokenizer.from_pretrained(folder))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder, tokenizer


REFERENCED = {
    "sigmoid": {},
    "hinge": {"beta": 0.1},
    "ipo": {"beta": 0.5},
    "sigmoid_norm": {"beta": 2.0},
    "robust": {"label_smoothing": 0.1},
}


@pytest.mark.parametrize("loss_type", REFERENCED)
@pytest.mark.parametrize("row", [texts, messages])
def test_dpo(loss_type, row, llama, quick, tmp_path, monkeypatch):
    checkpoint, tokenizer = llama
    said = REFERENCED[loss_type]
    run, seen = ours(
        [
            *("experiment=qwen_dpo", "generation.max_new_tokens=5", f"checkpoint={checkpoint}"),
            *(files(tmp_path, row, (16, 7, 4)), *quick),
            *(f"data.plain_texts={str(row is texts).lower()}", f"task.loss_type={loss_type}"),
            *(f"task.{name}={value}" for name, value in said.items()),
        ],
        monkeypatch,
    )
    options = {"loss_type": [loss_type], **said}
    rows = [row(i) for i in range(16)]
    found = theirs(DPOTrainer, DPOConfig, seen, rows, tokenizer, tmp_path / "trl", **options)
    compare(run, *found)


# the likelihood of TRL's is a mean over all tokens of a batch, ours over those of each pair: they
# are the same where a batch is one pair, or where answers have one length
ALONE = {
    "orpo": ("orpo", {"beta": 0.5}, ORPOTrainer, ORPOConfig, {}, 1, texts),
    "cpo": ("cpo", {}, CPOTrainer, CPOConfig, {"loss_type": "sigmoid"}, 1, texts),
    "cpo of like lengths": ("cpo", {}, CPOTrainer, CPOConfig, {}, 2, alike),
    "simpo": (
        *("simpo", {"beta": 2.0, "simpo_gamma": 0.5, "label_smoothing": 0.1}),
        *(CPOTrainer, CPOConfig, {"loss_type": "simpo", "cpo_alpha": 0.0}, 2, texts),
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_losses_without_a_reference(name, llama, quick, tmp_path, monkeypatch):
    checkpoint, tokenizer = llama
    loss_type, said, trainer, config, options, size, row = ALONE[name]
    whole = ["task.nll_of=text"] if loss_type == "orpo" else []  # with its prompt, as TRL has it
    run, seen = ours(
        [
            *("experiment=qwen_dpo", "generation.max_new_tokens=5", f"checkpoint={checkpoint}"),
            *(files(tmp_path, row, (16, 7, 4)), *quick, f"task.loss_type={loss_type}"),
            *("data.plain_texts=true", f"data.batch_size={size}", "task.beta=null", *whole),
            *(f"task.{name}={value}" for name, value in said.items()),
        ],
        monkeypatch,
    )
    rows = [row(i) for i in range(16)]
    found = theirs(trainer, config, seen, rows, tokenizer, tmp_path / "trl", **said, **options)
    compare(run, *found)


@pytest.mark.parametrize("margin", [False, True])
def test_reward(margin, llama, quick, tmp_path, monkeypatch):
    checkpoint, tokenizer = llama

    def row(index):
        more = {"margin": 0.5 + index % 3} if margin else {}
        scores = ("score_chosen", "score_rejected")
        return {n: v for n, v in messages(index).items() if n not in scores} | more

    run, seen = ours(
        [
            *("experiment=reward_model", f"checkpoint={checkpoint}", "data.batch_size=2", *quick),
            *(files(tmp_path, row, (16, 7, 4)), "task.center_rewards_coefficient=0.01"),
        ],
        monkeypatch,
    )
    rows, options = [row(i) for i in range(16)], {"center_rewards_coefficient": 0.01}
    found = theirs(RewardTrainer, RewardConfig, seen, rows, tokenizer, tmp_path / "trl", **options)
    compare(run, *found)
