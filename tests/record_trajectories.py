"""Record the losses that `test_trajectories.py` compares with: make trajectories.

One file a task: 50 steps on stand-ins, dropout on, through the command line, and where that was.
Recording is for a change that is meant to change the numbers, so it asks for a clean tree: the
commit that is written down is then the code that ran.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch
from standins import checkpoint, overrides_for

from hydralight.building import quiet_libraries
from hydralight.runs.environment import environment
from hydralight.runs.run import Run

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "trajectories"
EXPERIMENTS = {
    "text-classification": "bert_mrpc",
    "token-classification": "bert_ner_conll2003",
    "question-answering": "bert_squad_v2",
    "multiple-choice": "bert_swag",
    "summarization": "bart_cnn",
    "translation": "marian_wmt16_en_ro",
    "causal language modelling": "distilgpt2_sonnets",
    "causal language modelling with recurrence": "transformer_xl_reviews",
    "masked language modelling": "roberta_mlm_wikitext",
    "image-classification": "vit_cxr14",
}


def place() -> dict[str, object]:
    """What the numbers depend on, beside the code."""
    here = environment()
    packages = {name: v for name, v in here["packages"].items() if name != "hydralight"}
    return {
        "processor": here["processor"],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": here["python"],
        "packages": packages,
    }


def losses(experiment: str, folder: Path) -> list[float]:
    """Train 50 steps by `train.py`, in a folder."""

    @cache
    def made(model_type: str) -> Path:
        return checkpoint(model_type, folder / model_type)

    overrides = [
        f"experiment={experiment}",
        *overrides_for(experiment, folder / "data", made),
        f"hydra.run.dir={folder / 'run'}",
        *("trainer.accelerator=cpu", "trainer.devices=1", "precision=32-true", "seed=0"),
        *("trainer.max_epochs=-1", "trainer.max_steps=50", "+trainer.limit_val_batches=0"),
        *("trainer.log_every_n_steps=1", "callbacks.samples=null", "optimizer.lr=1e-3"),
    ]
    subprocess.run(
        [sys.executable, "train.py", *overrides],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stderr=subprocess.PIPE,
        timeout=300,
    )
    return Run(folder / "run").history["train/loss"].tolist()


def main() -> None:
    state = environment()["git"]
    if state is None or state["dirty"]:
        sys.exit("error: the tree has changes: commit them, and record then.")
    quiet_libraries()
    FOLDER.mkdir(exist_ok=True)
    for task, experiment in EXPERIMENTS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = losses(experiment, Path(folder))
        content = {"task": task, "commit": state["commit"], "environment": place(), "loss": found}
        (FOLDER / f"{experiment}.json").write_text(json.dumps(content, indent=1) + "\n")
        print(f"{experiment}: {found[0]:.4f} to {found[-1]:.4f}")


if __name__ == "__main__":
    main()
