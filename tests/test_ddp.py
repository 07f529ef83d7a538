"""Two processes over gloo do what one does."""

import subprocess
import sys

import numpy as np
import torch
from conftest import ROOT
from safetensors.torch import load_file

import hydralight
from hydralight.runs import Run


def test_two_processes_are_exactly_one_where_the_split_is_even(bart_cnn, articles, tmp_path):
    overrides = [
        *bart_cnn,
        f"data.path.train='{articles / 'train.jsonl'}[:12]'",
        "model.config={dropout: 0}",
        "trainer.max_epochs=1",
        "trainer.gradient_clip_val=null",
    ]
    one = hydralight.train([*overrides, "data.batch_size=4"])
    command = [sys.executable, "train.py", *overrides, "trainer=ddp_cpu", "data.batch_size=2"]
    command += [f"paths.log_dir={tmp_path / 'ddp'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "ddp/train/runs").iterdir()
    two = Run(folder)
    assert list(one.history.columns) == list(two.history.columns)
    np.testing.assert_allclose(one.history, two.history, rtol=2e-5)
    weights = [load_file(run.path / "model/model.safetensors") for run in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=1e-5)
