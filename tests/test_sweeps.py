"""Sweeps from end to end, by the command line."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from optuna.trial import TrialState
from sweeping import begun, finished, processes_of, retried, study_of, swept, until

from hydralight.commands import start
from hydralight.config.project import CONFIG_DIR
from hydralight.runs.run import Run


def config_of(trial):
    """Return a trial's composed config, but for the search that it was part of."""
    config = OmegaConf.to_container(OmegaConf.load(trial / ".hydra/config.yaml"))
    return {key: value for key, value in config.items() if key != "hparams_search"}


def recipe_of(folder, tmp_path, *typed):
    """Return what `best.yaml` composes to as an experiment, with what no recipe may say typed."""
    own = tmp_path / "own/experiment/best.yaml"
    own.parent.mkdir(parents=True)
    own.write_text((folder / "best.yaml").read_text())
    overrides = [f"hydra.searchpath=[file://{tmp_path / 'own'}]", "experiment=best", *typed]
    with initialize_config_dir(str(CONFIG_DIR)):
        return OmegaConf.to_container(compose("train", overrides))


def best_metrics(trial):
    best = json.loads((trial / "metrics.json").read_text())["best"]
    return {name: value for name, value in best.items() if name != "step"}


@pytest.fixture
def mrpc(recipe):
    own = ["trainer.max_epochs=1", "optimizer.lr=0.01", "optimized_metric=val/loss"]
    return [*recipe("bert_mrpc"), *own]


def test_a_grid_from_end_to_end(mrpc, tmp_path):
    swept([*mrpc, "data.batch_size=4,0,2", "seed=1,2"], tmp_path)
    (folder,) = (tmp_path / "logs/train/multiruns").iterdir()

    table = pd.read_csv(folder / "sweep.csv").set_index("trial")
    points = list(product([4, 0, 2], [1, 2]))
    assert list(table.index) == list(range(6))
    assert list(zip(table["data.batch_size"], table["seed"], strict=True)) == points
    done = [number for number, (size, _) in enumerate(points) if size]
    assert [number for number in table.index if table["state"][number] == "complete"] == done
    for number in done:
        own = best_metrics(folder / str(number))
        assert dict(table.loc[number, list(own)]) == own
    why = "data.batch_size=0 should be at least 1."
    assert list(table["reason"][table["state"] == "failed"]) == [why, why]
    text = (folder / "sweep.md").read_text()
    assert text.count(why) == 2
    assert "6 trials (4 complete, 2 failed), to minimize `val/loss`" in text

    losses = {number: best_metrics(folder / str(number))["val/loss"] for number in done}
    best = min(losses, key=losses.get)
    assert (folder / "best").resolve() == folder / str(best)
    assert f"The best is trial {best}, with val/loss {losses[best]:.4g}" in text
    log_dir = f"paths.log_dir={tmp_path / 'logs'}"
    assert recipe_of(folder, tmp_path, log_dir) == config_of(folder / str(best))
    said = (tmp_path / "said.log").read_text().splitlines()
    assert f"best trial: {best}, val/loss {losses[best]:.4f}" in said
    assert "6 trials: 4 complete, 2 failed (sweep.md has the reasons)" in said
    words = shlex.split(said[-1])  # the line that runs the best trial again
    assert words[1] == "train.py"
    again = Run(start("train", [*words[2:], f"paths.log_dir={tmp_path / 'again'}"]))
    assert best_metrics(again.path) == best_metrics(folder / str(best))

    summary = pd.read_csv(folder / "summary.csv").set_index("data.batch_size")
    assert list(summary["n"]) == [2, 2]
    for size, numbers in {4: done[:2], 2: done[2:]}.items():
        for name in best_metrics(folder / "0"):
            own = [best_metrics(folder / str(number))[name] for number in numbers]
            row = summary.loc[size]
            assert row[f"{name} mean"] == pytest.approx(np.mean(own))
            assert row[f"{name} std"] == pytest.approx(np.std(own, ddof=1))
    assert np.all(summary["val/loss std"] > 0)

    plots = {path.name: path.read_bytes() for path in (folder / "plots").iterdir()}
    for name in ("history", "importances", "slice", "parallel_coordinate"):
        assert plots[f"{name}.png"].startswith(b"\x89PNG")
        assert b"Plotly.newPlot" in plots[f"{name}.html"]

    before = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/trial.json")}
    swept([f"sweep={folder}"], tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/trial.json")} == before
    assert len([path for path in folder.iterdir() if path.name.isdigit()]) == 6
    assert list((tmp_path / "logs/train/multiruns").iterdir()) == [folder]

    rows = (folder / "sweep.csv").read_text()
    (folder / "sweep.csv").unlink()
    subprocess.run([sys.executable, "report.py", str(folder)], cwd=ROOT, check=True)
    assert (folder / "sweep.csv").read_text() == rows


def check_search(folder, n_trials, interrupted):
    """Check the study and the report of a search that was killed."""
    study = study_of(folder)
    assert [trial.state for trial in finished(study)] == [TrialState.COMPLETE] * n_trials
    assert [trial.number for trial in retried(study)] == interrupted
    assert len(study.trials) == n_trials + len(interrupted)
    proposals = [t.params for t in study.trials if "retry_of" not in t.user_attrs]
    assert len({tuple(params.values()) for params in proposals}) == n_trials
    for trial in finished(study):
        own = best_metrics(folder / str(trial.number))
        assert trial.value == own[study.user_attrs["objectives"][0]]
    states = f"{n_trials} complete, {len(interrupted)} interrupted"
    assert f"{len(study.trials)} trials ({states})" in (folder / "sweep.md").read_text()


@pytest.mark.soak
def test_a_search_that_is_killed_goes_on(mrpc, tmp_path):
    """Its process alone is killed, and then all of its group; the trial is in another one."""
    folder = tmp_path / "sweep"
    search = ["hparams_search=default", "optimizer.lr=tag(log, interval(1e-4, 1e-2))"]
    search += ["trainer.max_epochs=3", "data.batch_size=2", "hparams_search.n_trials=5"]
    arguments = [*mrpc, *search, f"hydra.sweep.dir={folder}"]
    for number, kill in [(1, os.kill), (3, os.killpg)]:
        process = begun(arguments, tmp_path)
        until((folder / str(number) / "metrics.json").exists, process)
        assert len(processes_of(tmp_path)) > 2  # the sweep, a server and the trial
        kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        until(lambda: not processes_of(tmp_path))
        assert not (folder / f"{number}/trial.json").exists()
        arguments = [f"sweep={folder}"]
    swept(arguments, tmp_path)
    check_search(folder, 5, [1, 3])
    assert recipe_of(folder, tmp_path) == config_of((folder / "best").resolve())
    until(lambda: not processes_of(tmp_path))


def test_trials_on_other_numbers_of_devices_are_the_same(mrpc, tmp_path):
    """The step is fixed by `data.batches_per_step`; in another step, the values are others."""
    own = ["trainer=ddp_cpu", "trainer.devices=1,2", "data.batch_size=2"]
    folder = tmp_path / "sweep"
    swept([*mrpc, *own, "data.batches_per_step=2", f"hydra.sweep.dir={folder}"], tmp_path)
    one, two = (best_metrics(folder / name) for name in "01")
    assert two == pytest.approx(one, rel=1e-5, abs=1e-5)
    assert len(one) > 3
    losses = [pd.read_csv(folder / name / "metrics.csv")["train/loss"].dropna() for name in "01"]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(*losses, rtol=1e-5)
    alone = start("train", [*mrpc, "data.batch_size=2", "data.batches_per_step=4"])
    assert best_metrics(alone)["val/loss"] != pytest.approx(one["val/loss"], rel=1e-3)


@pytest.mark.thorough
def test_the_ranks_of_a_trial_train_that_trial(mrpc, tmp_path):
    rates = {"0": 0.01, "1": 0.02}
    own = ["trainer=ddp_cpu", "data.batch_size=2", "optimizer.lr=0.01,0.02"]
    swept([*mrpc, *own], tmp_path, script="tests/ranks.py")
    (folder,) = (tmp_path / "logs/train/multiruns").iterdir()  # no rank has swept by itself
    weights = []
    for name, rate in rates.items():
        files = sorted((folder / name).glob("rank-*.json"))
        ranks = [json.loads(file.read_text()) for file in files]
        assert [(rank["lr"], rank["world"]) for rank in ranks] == [(rate, 2), (rate, 2)]
        assert ranks[0]["weights"] == ranks[1]["weights"]
        weights.append(ranks[0]["weights"])
    assert weights[0] != weights[1]
    assert [trial.state for trial in study_of(folder).trials] == [TrialState.COMPLETE] * 2


@pytest.mark.thorough
def test_a_hopeless_trial_is_pruned_and_no_secret_is_written(mrpc, tmp_path):
    """After its first evaluation; of three trials, of which one fails."""
    pruner = ["hparams_search.pruner._target_=optuna.pruners.ThresholdPruner"]
    pruner += ["+hparams_search.pruner.upper=5", "hparams_search=base"]
    grid = ["hparams_search.sampler=null", "optimizer.lr=1e3,1e-4,high"]
    own = ["trainer.max_epochs=1.5", "data.batch_size=4"]  # 4 steps an epoch
    token = "hf_" + "b2" * 16
    own += [f"tags=[{token}]", "+callbacks.best_model.card.api_key=hunter2"]
    folder = tmp_path / "sweep"
    swept([*mrpc, *pruner, *grid, *own, f"hydra.sweep.dir={folder}"], tmp_path)
    table = pd.read_csv(folder / "sweep.csv")
    assert list(table["state"]) == ["pruned", "complete", "failed"]
    assert table["step"][0] == 4
    hopeless, good, wrong = study_of(folder).trials
    assert hopeless.state == TrialState.PRUNED
    for trial, steps in [(hopeless, [4]), (good, [4, 6])]:
        history = pd.read_csv(folder / f"{trial.number}/metrics.csv")
        evaluated = history.dropna(subset="val/loss").groupby("step")["val/loss"].last()
        assert list(evaluated.index) == steps
        assert trial.intermediate_values == pytest.approx(dict(evaluated))
        assert max(history["step"]) == steps[-1]
    assert hopeless.intermediate_values[4] > 5
    assert "optimizer.lr=high" in wrong.user_attrs["reason"]
    assert (folder / "best").resolve() == folder / "1"
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = {str(path.relative_to(folder)): path.read_text(errors="ignore") for path in files}
    assert not [name for name, text in texts.items() if token in text or "hunter2" in text]


@pytest.mark.soak
def test_a_search_that_is_killed_often_goes_on(quick, tmp_path):
    """Kills at random times, of its process or of all its group, until the 20 trials are done."""
    rng = random.Random(0)
    folder = tmp_path / "sweep"
    small = ["data.num_train=64", "data.num_eval=8", "trainer.max_epochs=1"]
    small += ["experiment=quickstart", "hparams_search=default", "data.batch_size=8"]
    arguments = [*quick, *small, f"hydra.sweep.dir={folder}", "hparams_search.n_trials=20"]
    for kill in [os.kill, os.killpg] * 5:
        process = begun(arguments, tmp_path)
        known = set(folder.glob("[0-9]*"))
        until(lambda known=known: set(folder.glob("[0-9]*")) - known, process)
        time.sleep(rng.uniform(0, 4))
        kill(process.pid, signal.SIGKILL)
        process.wait()
        until(lambda: not processes_of(tmp_path))
        arguments = [f"sweep={folder}"]
    swept(arguments, tmp_path)
    numbers = {int(path.name) for path in folder.glob("[0-9]*")}
    settled = {int(path.parent.name) for path in folder.glob("[0-9]*/trial.json")}
    assert len(settled) == 20
    check_search(folder, 20, sorted(numbers - settled))


@pytest.mark.soak
def test_a_sweep_does_not_grow(mrpc, tmp_path):
    folder = tmp_path / "sweep"
    process = begun([*mrpc, "seed=range(1, 32)", f"hydra.sweep.dir={folder}"], tmp_path)
    resident = []
    for number in (3, 30):
        until((folder / str(number)).exists, process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident.append(int(status.partition("VmRSS:")[2].split()[0]))
    assert process.wait(60) == 0
    assert resident[1] == pytest.approx(resident[0], rel=0.1)
