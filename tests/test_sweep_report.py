"""What a report says of a sweep, ours or another program's."""

import json

import pandas as pd
import pytest
from omegaconf import OmegaConf

from hydralight.config.project import CONFIG_DIR
from hydralight.sweeps.recipe import write_recipe
from hydralight.sweeps.report import report
from hydralight.sweeps.table import table_of


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
    assert not (tmp_path / "best").is_symlink()  # in a folder that is not ours
    text = (tmp_path / "sweep.md").read_text()
    assert "5 trials (4 complete, 1 interrupted), to maximize `val/acc`" in text
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert list(summary["val/acc mean"]) == [0.375, 0.75]
    assert list(summary["val/acc std"]) == pytest.approx([0.125 * 2**0.5, 0.25 * 2**0.5])
    assert (tmp_path / "plots/history.png").stat().st_size > 1000
    recipe = OmegaConf.load(tmp_path / "best.yaml")
    assert recipe.model.optimizer.lr == 0.5
    assert "resnet" not in str(recipe.get("defaults"))  # no group of ours


def job_in(folder, name, typed, accuracy, experiment=None):
    """Make a job of another program, which has come to an accuracy."""
    own = folder / str(name) / ".hydra"
    own.mkdir(parents=True)
    own.joinpath("overrides.yaml").write_text(json.dumps(typed))
    own.joinpath("config.yaml").write_text(json.dumps({"optimized_metric": "val/acc"}))
    choices = {"runtime": {"choices": {"experiment": experiment}}}
    own.joinpath("hydra.yaml").write_text(json.dumps({"hydra": choices}))
    (own.parent / "metrics.csv").write_text(f"step,val/acc\n1,{accuracy}\n")


def test_overrides_are_read_as_hydra_reads_them(tmp_path):
    """A value may have a sign of equality in it, quotes, or nothing that Hydra can read."""
    for number in (0, 1):
        typed = [
            f"a='x={number}, y'",
            f'+b="{number}"',
            f"c=[1,{number}]",
            f"~d={number}",
            f"e={number == 1}".lower(),
            f"f={{k: {number}}}",
            f"g={number}e-3",
            f"data@test={'two' if number else 'one'}",
            f"h=no(such, {number})",
            f"--flag={number}",
            f"i=<redacted>{number}",
        ]
        job_in(tmp_path, number, typed, number / 2)
    table, swept, _ = table_of(tmp_path)
    assert swept == ["a", "b", "c", "d", "e", "f", "g", "data@test", "i"]
    values = ["x=1, y", 1, "[1,1]", 1, "true", "{k:1}", 0.001, "two", "redacted1"]
    assert list(table.loc[1, swept]) == values
    report(tmp_path)  # and nothing of it is a fault
    assert OmegaConf.load(tmp_path / "best.yaml").a == "x=1, y"
    assert "i" not in OmegaConf.load(tmp_path / "best.yaml")


def test_a_recipe_knows_the_groups_of_a_project_that_is_built_on_this(tmp_path, monkeypatch):
    own = tmp_path / "mine"
    for path in ("experiment/theirs.yaml", "optimizer/tiger.yaml", "robot/arm.yaml"):
        (own / path).parent.mkdir(parents=True, exist_ok=True)
        (own / path).touch()
    typed = ["experiment=theirs", "optimizer=tiger", "+robot=arm", "robot.speed=3", "scheduler=odd"]
    typed += [
        "optimizer@second=adamw",
        "callbacks=[best_model, no_such]",
        "hparams_search.n_jobs=2",
    ]
    folder = tmp_path / "sweep"
    job_in(folder, 0, typed, 0.5, experiment="theirs")

    def defaults():
        write_recipe(folder, folder / "0")
        recipe = OmegaConf.to_container(OmegaConf.load(folder / "best.yaml"))
        assert recipe.keys() == {"defaults", "robot"}
        return recipe["defaults"], recipe["robot"]

    second = {"override /optimizer@second": "adamw"}
    monkeypatch.setattr("hydralight.sweeps.recipe.config_dirs", lambda: [CONFIG_DIR, own])
    tiger, arm = {"override /optimizer": "tiger"}, {"/robot": "arm"}
    assert defaults() == (["theirs", tiger, arm, second, "_self_"], {"speed": 3})
