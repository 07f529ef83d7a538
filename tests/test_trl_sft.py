"""Step by step what TRL's `SFTTrainer` does: one process, no accumulation.

TRL is run here, on the same conversations; nothing is stored. It masks them itself.
"""

import copy
import re
import shutil
from dataclasses import fields

import numpy as np
import pytest
import torch
from conftest import ROOT
from datasets import Dataset
from standins import dialogue, write_jsonl
from transformers import AutoTokenizer, TrainingArguments
from trl import SFTConfig, SFTTrainer

import hydralight
from hydralight.tasks.task import Task

STEPS = 20
# ChatML with TRL's marks where ours finds a turn: behind its header, up to its end
MARKED = """\
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' %}
{%- generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}
{%- else %}{{ m.content + '<|im_end|>\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
# nothing stands behind the end of a turn, which TRL would count to a completion
CLOSED = MARKED.replace("{{ '\n' }}", "").replace("<|im_end|>\n", "<|im_end|>")


class InOrder(SFTTrainer):
    """TRL on the rows of batches that are given, which records its losses and gradient norms."""

    def __init__(self, batches, **kwargs):
        self.batches, self.history = batches, []
        super().__init__(**kwargs)

    def get_train_dataloader(self):
        return torch.utils.data.DataLoader(
            self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator
        )

    def log(self, logs, *args, **kwargs):
        self.history.append(dict(logs))
        super().log(logs, *args, **kwargs)


@pytest.fixture
def sides(recipe, checkpoints, tmp_path, monkeypatch):
    """Losses and gradient norms of 20 steps, ours and TRL's."""

    def compared(rows, *overrides, template=MARKED, **values):
        batches, seen = [], {}
        monkeypatch.setattr(
            Task,
            "on_train_start",
            lambda task: seen.update(
                model=copy.deepcopy(task.model), tokenizer=task.datamodule.processor
            ),
            raising=False,
        )
        monkeypatch.setattr(
            Task,
            "on_train_batch_start",
            lambda task, batch, batch_idx: batches.append(batch["row"].tolist()),
            raising=False,
        )
        folder = tmp_path / "checkpoint"
        shutil.copytree(checkpoints("llama"), folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.chat_template = template
        tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.save_pretrained(folder)
        ours = recipe("qwen_sft_chat")
        files = {split: write_jsonl(tmp_path / f"{split}.jsonl", rows) for split in ("a", "b")}
        run = hydralight.train(
            [
                *ours,
                f"data.path={{train: {files['a']}, validation: {files['b']}}}",
                "data.splits={train: train, validation: validation}",
                f"checkpoint={folder}",
                "data.chat_template=null",
                "model.config={attention_dropout: 0}",
                "data.batch_size=4",
                "data.group_by_length=false",
                "data.max_length=120",
                "trainer.accumulate_grad_batches=1",
                "trainer.max_epochs=-1",
                f"trainer.max_steps={STEPS}",
                "+trainer.limit_val_batches=0",
                "trainer.val_check_interval=100",
                "optimizer.lr=1e-3",
                "scheduler=linear",
                "scheduler.warmup_steps=5",
                "callbacks.samples=null",
                *overrides,
            ]
        )
        arguments = SFTConfig(
            output_dir=str(tmp_path / "trl"),
            max_steps=STEPS,
            learning_rate=1e-3,
            lr_scheduler_type="linear",
            weight_decay=0.0,
            warmup_steps=5,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            **{"max_length": 120, **values},
        )
        trainer = InOrder(
            batches[:STEPS],
            model=seen["model"],
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=seen["tokenizer"],
        )
        trainer.train()
        steps = [one for one in trainer.history if "loss" in one]
        theirs = np.array([[one["loss"], one["grad_norm"]] for one in steps])
        own = run.history.dropna(subset=["train/loss"])
        return own[["train/loss", "train/grad_norm"]].to_numpy(), theirs

    return compared


def messages(number):
    return [{"messages": dialogue(i)} for i in range(number)]


def completions(number):
    rows = [dialogue(i) for i in range(number)]
    return [{"prompt": said[:-1], "completion": said[-1:]} for said in rows]


CASES = {
    "masked": (messages, ["data.packing=false"], {"assistant_only_loss": True}, MARKED),
    "packed": (
        messages,
        ["data.packing=true"],
        {"assistant_only_loss": True, "padding_free": True, "max_length": None},
        MARKED,
    ),
    "completions": (
        completions,
        ["data.packing=false", "data.train_on=last_turn"],
        {"completion_only_loss": True},
        CLOSED,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_parity_with_trl(case, sides):
    rows, overrides, values, template = CASES[case]
    ours, theirs = sides(rows(12), *overrides, template=template, **values)
    assert len(ours) == len(theirs) == STEPS
    assert ours[0, 0] - ours[-1, 0] > 0.1  # it learns
    apart = np.abs(ours - theirs).max(axis=0)
    print(f"{case}: loss {apart[0]:.1e}, norm {apart[1]:.1e}")
    assert apart.max() < 1e-5, apart


def test_each_of_its_fields_is_in_the_documentation():
    known = {field.name for field in fields(TrainingArguments)}
    own = {field.name for field in fields(SFTConfig)} - known
    table = (ROOT / "docs/llm.md").read_text().partition("| `SFTConfig` | here |")[2]
    rows = [line.split("|")[1] for line in table.partition("\n\n")[0].splitlines() if "`" in line]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == own
