"""A change of the training code reproduces the losses that were recorded before it.

They hold on other processors too: kernels for SSE4, AVX2 and AVX-512 are at most 1e-6 apart.
"""

import json

import numpy as np
import pytest
from record_trajectories import EXPERIMENTS, FOLDER, losses, place


@pytest.mark.parametrize("experiment", EXPERIMENTS.values())
def test_losses_are_those_recorded(experiment, tmp_path):
    recorded = json.loads((FOLDER / f"{experiment}.json").read_text())
    assert len(recorded["loss"]) == 50
    apart = np.abs(np.subtract(losses(experiment, tmp_path), recorded["loss"]))
    here, there = place(), recorded["environment"]
    other = {name: (there.get(name), value) for name, value in here.items() if there[name] != value}
    assert apart.max() < 1e-5, f"(recorded, here): {other}"
    assert apart.mean() < 1e-6, f"(recorded, here): {other}"
