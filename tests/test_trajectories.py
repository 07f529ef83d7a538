"""A change of the training code reproduces the losses that were recorded before it."""

import json

import numpy as np
import pytest
from record_trajectories import EXPERIMENTS, FOLDER, losses, place


@pytest.mark.parametrize("experiment", EXPERIMENTS.values())
def test_losses_are_those_recorded(experiment, tmp_path):
    recorded = json.loads((FOLDER / f"{experiment}.json").read_text())
    assert len(recorded["loss"]) == 50
    if recorded["environment"] != place():
        pytest.skip(
            f"recorded on {recorded['environment']}: numbers of this machine ({place()}) may "
            "differ from them, so that here the parity with Trainer decides (test_parity.py)"
        )
    apart = np.abs(np.subtract(losses(experiment, tmp_path), recorded["loss"]))
    assert apart.max() < 1e-4
    assert apart.mean() < 1e-5
