"""What a report says of a sweep, ours or another program's."""

import json

import pandas as pd
import pytest
from omegaconf import OmegaConf

from hydralight.sweeps.report import report


def test_a_report_on_another_programs_sweep(tmp_path):
    """Hydra's files and a `metrics.csv` in each job; one job has not come to an evaluation."""
    points = {"0": (0.1, 1), "2": (0.1, 2), "9": (0.5, 1), "10": (0.5, 2), "11": (0.9, 1)}
    accuracies = {"0": 0.25, "2": 0.5, "9": 1.0, "10": 0.5}
    for name, (rate, seed) in points.items():
        own = tmp_path / name / ".hydra"
        own.mkdir(parents=True)
        typed = ["model=resnet", f"model.optimizer.lr={rate}", f"seed={seed}"]
        own.joinpath("overrides.yaml").write_text(json.dumps(typed))
        config = {"model": {"optimizer": {"lr": rate}}, "seed": seed}
        config |= {"optimized_metric": "val/acc"}
        own.joinpath("config.yaml").write_text(json.dumps(config))
        if name in accuracies:
            # as Lightning's logger writes it: training and evaluation have rows of their own
            rows = ["epoch,step,train/loss,val/acc", "0,3,0.9,", "0,3,,0.125", "1,7,0.5,"]
            rows.append(f"1,7,,{accuracies[name]}")
            (tmp_path / name / "metrics.csv").write_text("\n".join(rows) + "\n")
    report(tmp_path)
    table = pd.read_csv(tmp_path / "sweep.csv")
    assert list(table["trial"]) == [0, 2, 9, 10, 11]
    swept = zip(table["model.optimizer.lr"], table["seed"], strict=True)
    assert list(swept) == list(points.values())
    assert "model" not in table  # which was the same in all
    assert list(table["state"]) == [*["complete"] * 4, "interrupted"]
    assert list(table["val/acc"][:4]) == list(accuracies.values())
    assert list(table["train/loss"][:4]) == [0.5] * 4
    assert table["val/acc"].isna()[4]
    assert (tmp_path / "best").resolve() == tmp_path / "9"
    text = (tmp_path / "sweep.md").read_text()
    assert "5 trials (4 complete, 1 interrupted), to maximize `val/acc`" in text
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert list(summary["val/acc mean"]) == [0.375, 0.75]
    assert list(summary["val/acc std"]) == pytest.approx([0.125 * 2**0.5, 0.25 * 2**0.5])
    assert (tmp_path / "plots/history.png").stat().st_size > 1000
    recipe = OmegaConf.load(tmp_path / "best.yaml")
    assert recipe.model.optimizer.lr == 0.5
    assert "resnet" not in str(recipe.get("defaults"))  # no group of ours
