"""Scripts with Trainer that the converter moves: each has the losses that it had.

The scripts are run as they are, on checkpoints without dropout. They read their rows in the order
in which Hydralight takes them, which is given to their sampler.
"""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import standins
import torch
import transformers
from transformers import AutoTokenizer, Trainer

import hydralight
from hydralight.data.order import Order
from hydralight.from_trainer.convert import convert
from hydralight.from_trainer.reading import read
from hydralight.from_trainer.table import rows

SCRIPTS = {
    # what is trained: (recipe, architecture, class, no dropout)
    "classification": (
        *("bert_mrpc", "bert", "AutoModelForSequenceClassification"),
        {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    ),
    "summarization": ("bart_cnn", "bart", "AutoModelForSeq2SeqLM", {"dropout": 0.0}),
    "language_modelling": (
        *("distilgpt2_sonnets", "gpt2", "AutoModelForCausalLM"),
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    ),
}
OURS = {  # what the script itself says
    "classification": "data.splits=null data.name=null",
    "summarization": "data.splits=null data.name=null data.max_source_length=128 "
    "data.max_target_length=32",
    "language_modelling": "data.clean=[] data.append=null data.packing=false "
    "generation.max_new_tokens=8",
}
ROWS, BATCH, SEED = 16, 4, 42
COMMON = {
    "per_device_train_batch_size": BATCH,
    "num_train_epochs": 2,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "optim": "adamw_torch",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
    "seed": SEED,
}


class InOurOrder:
    """A sampler, an epoch after the other."""

    def __init__(self, batch_size, batches_per_step):
        self.order = Order(
            num_rows=ROWS, batch_size=batch_size, seed=SEED, batches_per_step=batches_per_step
        )
        self.epoch = -1

    def __len__(self):
        return ROWS

    def __iter__(self):
        self.epoch += 1
        return iter(self.order.rows(self.epoch).tolist())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function from a script's name to its checkpoint and file."""
    folder = tmp_path_factory.mktemp("moved")

    def made(script):
        recipe, architecture, auto_class, dropout = SCRIPTS[script]
        there = folder / script
        if not there.exists():
            plain = standins.checkpoint(architecture, folder / f"plain-{script}")
            torch.manual_seed(1)
            kind = getattr(transformers, auto_class)
            kind.from_pretrained(plain, **dropout).save_pretrained(there)
            AutoTokenizer.from_pretrained(plain).save_pretrained(there)
            lines = [standins.row_for(recipe, index) for index in range(ROWS)]
            standins.write_jsonl(there / "rows.jsonl", lines)
        return there

    return made


@pytest.fixture
def losses_of(made, tmp_path, monkeypatch):
    """A function from a script and arguments to the losses of its steps, theirs and ours."""

    def run(script, **arguments):
        folder = made(script)
        arguments = {**COMMON, **arguments}
        own = {"model_name_or_path": str(folder), "train_file": str(folder / "rows.jsonl")}
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        file.write_text(json.dumps({**own, **arguments, "output_dir": str(tmp_path / "out")}))
        return theirs(script, file, arguments), ours(script, file)

    def theirs(script, file, arguments):
        losses, more = [], arguments.get("gradient_accumulation_steps", 1)
        before = Trainer.training_step

        def step(self, *args, **kwargs):
            loss = before(self, *args, **kwargs)
            losses.append(float(loss))
            return loss

        sampler = InOurOrder(arguments["per_device_train_batch_size"], more)
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "training_step", step)
            patch.setattr(Trainer, "_get_train_sampler", lambda self, *args: sampler)
            patch.setattr(sys, "argv", [script, str(file)])
            place = Path(__file__).parent / "moved" / f"{script}.py"
            runpy.run_path(str(place), run_name="__main__")
        return np.array(losses).reshape(-1, more).sum(axis=1)

    def ours(script, file):
        said = convert(read(file), [f"experiment={SCRIPTS[script][0]}", *OURS[script].split()])
        own = ["callbacks.samples=null", "data.validation_fraction=0"]
        run = hydralight.train([*said.overrides(), *own])
        return run.history["train/loss"].dropna().to_numpy()

    return run


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_losses_are_the_scripts(script, losses_of):
    theirs, ours = losses_of(script)
    assert len(theirs) == len(ours) == 2 * ROWS // BATCH
    assert np.ptp(ours) > 0.01
    print(f"{script}: {np.abs(theirs - ours).max():.1e}")
    assert np.abs(theirs - ours).max() < 1e-5


# with further arguments, on another script, or by a wider margin
BESIDE = {
    "gradient_accumulation_steps": {"script": "language_modelling"},
    "bf16": {"apart": 2e-2},
    "lr_scheduler_type": {"lr_scheduler_type": "linear"},
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", [n for n, row in rows("arguments").items() if "trains" in row])
def test_an_argument_that_changes_the_training_changes_it_here(name, losses_of):
    row, beside = rows("arguments")[name], dict(BESIDE.get(name, {}))
    script, apart = beside.pop("script", "classification"), beside.pop("apart", 1e-5)
    before = dict(row.get("with", {}), **beside)
    theirs, ours = losses_of(script, **(before | {name: row["example"]}))
    assert len(theirs) == len(ours)
    assert np.abs(theirs - ours).max() < apart
    _, without = losses_of(script, **before)
    same = len(ours) == len(without) and np.abs(ours - without).max() < 1e-6
    assert same == (row["trains"] == "same")
