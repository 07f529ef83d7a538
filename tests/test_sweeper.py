"""The sweeper, by a launcher that trains nothing."""

import io
import json
import os
import re
import shlex
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from rich.console import Console
from sweeping import complete, finished, retried, study_of

from hydralight.cli import Job
from hydralight.config.composition import composing
from hydralight.config.project import CONFIG_DIR
from hydralight.config.typed import Typed
from hydralight.config.whitelist import WHITELIST
from hydralight.errors import UserError
from hydralight.runs.recorded import begun_with
from hydralight.sweeps import space
from hydralight.sweeps.launch import together
from hydralight.sweeps.report import report
from hydralight.sweeps.request import SweepRequest
from hydralight.sweeps.sweeper import StudySweeper


@pytest.fixture(autouse=True)
def whitelist():
    with execution_whitelist(WHITELIST):
        yield


class Launcher:
    """Stands in for Hydra's: a function of a trial's overrides says what it comes to."""

    def __init__(self, outcome, config, loader):
        self.outcome, self.config, self.loader, self.launched = outcome, config, loader, []

    def launch(self, jobs, initial_job_idx):
        numbered = list(enumerate(jobs, initial_job_idx))
        self.launched.append(numbered)
        return [self.run(number, job) for number, job in numbered]

    def run(self, number, job):
        self.loader.load_sweep_config(self.config, job)
        folder = Path(self.config.hydra.sweep.dir) / str(number)
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        (folder / ".hydra/overrides.yaml").write_text(json.dumps(job))
        OmegaConf.save(
            OmegaConf.masked_copy(self.config, "optimized_metric"), folder / ".hydra/config.yaml"
        )
        outcome = self.outcome(dict(override.partition("=")[::2] for override in job))
        (folder / "trial.json").write_text(json.dumps(outcome))
        return JobReturn(status=JobStatus.COMPLETED, _return_value=outcome)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Sweep in this process by a stand-in launcher, which is returned; nothing is drawn."""
    monkeypatch.setattr("hydralight.sweeps.report.draw", lambda *_: None)

    def swept(outcome, *typed, folder=tmp_path / "sweep", task_function=None):
        typed = ["experiment=bert_mrpc", *typed]
        fixed, _ = space.split(typed, {})
        own = [f"hydra.sweep.dir={folder}", "hydra.mode=MULTIRUN"]
        was_typed = Typed((*typed, *own))
        with composing(was_typed), initialize_config_dir(str(CONFIG_DIR)):
            config = compose("train", [*fixed, *own], return_hydra_config=True)
            loader = GlobalHydra.instance().config_loader()
        launcher = Launcher(outcome, config, loader)
        plugins = Plugins.instance()
        monkeypatch.setattr(plugins, "instantiate_launcher", lambda **_: launcher)
        sweeper = StudySweeper()
        context = HydraContext(config_loader=loader, callbacks=None)
        sweeper.setup(hydra_context=context, task_function=task_function, config=config)
        try:
            sweeper.sweep(typed)
        except SystemExit as stop:
            launcher.exit_code = stop.code
        return launcher

    return swept


LRS = "optimizer.lr=0.25,0.75,0.5"


def of_lr(job):
    return complete(float(job["optimizer.lr"]))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_search_goes_on_to_the_same_total(end, sweep, tmp_path):
    numbers = iter(range(9))

    def interrupted(job):
        if next(numbers) == 3:  # when it has trained, but not said so
            run = {"status": "finished", "best": {"val/f1": 1.0, "step": 1}}
            (tmp_path / "sweep/3/metrics.json").write_text(json.dumps(run))
            if end == signal.SIGINT:
                raise KeyboardInterrupt
            signal.raise_signal(end)
        return of_lr(job)

    search = ["hparams_search=default", "hparams_search.n_trials=6"]
    search.append("hparams_search.n_jobs=2")  # one after the other all the same, in this process
    assert sweep(interrupted, *search).exit_code == 128 + end
    groups = sweep(of_lr, *search).launched
    assert {len(group) for group in groups} == {1}
    study = study_of(tmp_path / "sweep")
    assert len(finished(study)) == 6
    assert [trial.number for trial in retried(study)] == [3]
    jobs = [job for group in groups for job in group]
    assert [number for number, _ in jobs] == [4, 5, 6]
    for number, job in jobs:
        assert job[-4:] == space.overrides_of(study.trials[number].params)
    table = pd.read_csv(tmp_path / "sweep/sweep.csv")
    assert list(table["trial"]) == list(range(7))
    assert list(table["state"]) == ["interrupted" if n == 3 else "complete" for n in range(7)]
    assert sweep(of_lr, *search).launched == []


def test_the_best_is_by_the_direction_of_the_metric(sweep, tmp_path):
    for metric, value in {"val/f1": 0.75, "val/loss": 0.25}.items():
        folder = tmp_path / metric
        sweep(of_lr, LRS, f"optimized_metric={metric}", folder=folder)
        assert study_of(folder).best_value == value
        assert (folder / "best").resolve() == folder / "1"
    sweep(of_lr, LRS, "+hparams_search.direction=minimize", folder=tmp_path / "said")
    assert (tmp_path / "said/best").resolve() == tmp_path / "said/0"


def test_a_value_that_is_typed_twice_is_tried_once(sweep):
    jobs = sweep(of_lr, "optimizer.lr=0.5,0.5,0.25,0.5", "seed=1,1.0").launched
    assert [job[0][1][-2:] for job in jobs] == [
        ["optimizer.lr=0.5", "seed=1"],
        ["optimizer.lr=0.25", "seed=1"],
    ]


def test_the_report_says_why_a_trial_has_no_objective(sweep, tmp_path):
    came = {"1": complete(0.5), "2": complete(float("nan")), "3": {**complete(0), "metrics": {}}}
    sweep(lambda job: came[job["seed"]], "seed=1,2,3")
    table = pd.read_csv(tmp_path / "sweep/sweep.csv")
    assert list(table["state"]) == ["complete", "failed", "failed"]
    assert "val/f1 is not a number" in table["reason"][1]
    assert "val/f1 is not among its metrics" in table["reason"][2]
    assert "3 trials (2 failed, 1 complete)" in (tmp_path / "sweep/sweep.md").read_text()


def test_a_sweep_in_which_all_fail_says_so(sweep, tmp_path):
    failed = {"state": "failed", "reason": "the disk is full", "metrics": {}}
    with pytest.raises(UserError, match=r"no trial has come to a value: .*sweep\.md"):
        sweep(lambda job: failed, LRS)
    assert (tmp_path / "sweep/sweep.md").read_text().count("the disk is full") == 3


def test_values_that_make_no_config_fail_beside_others(sweep, tmp_path):
    """Which are not held up by them."""
    names = ["linear", "none_of_them", "cosine", "constant"]
    typed = [f"scheduler={','.join(names)}", "+hparams_search.n_jobs=4"]
    sweep(lambda job: complete(len(job["scheduler"]) / 16), *typed)
    study = study_of(tmp_path / "sweep")
    came = {trial.params["scheduler"]: trial.values for trial in finished(study)}
    assert came == {"linear": [0.375], "none_of_them": None, "cosine": [0.375], "constant": [0.5]}
    assert len(finished(study)) == 4
    assert [t.params["scheduler"] for t in study.trials].count("linear") == 1
    table = pd.read_csv(tmp_path / "sweep/sweep.csv").set_index("scheduler")
    assert "there is no 'none_of_them' in configs/scheduler" in table["reason"]["none_of_them"]
    assert sorted(table["state"]) == ["complete", "complete", "complete", "failed"]


@pytest.mark.parametrize("trial", ["check=true", "debug=fdr"])
def test_a_preflight_leaves_nothing_and_a_finished_sweep_alone(trial, sweep, tmp_path):
    assert sweep(of_lr, LRS, trial).launched
    assert not (tmp_path / "sweep").exists()
    sweep(of_lr, LRS)
    files = [path for path in (tmp_path / "sweep").rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    with suppress(UserError):
        sweep(of_lr, LRS, trial)
    after = {path: path.read_bytes() for path in files if path.exists()}
    assert after.keys() == before.keys()
    assert after == before


def test_a_sweep_keeps_the_weights_of_its_best_while_it_goes_on(sweep, tmp_path, caplog):
    """There are never more than those and the one of the trial at work; its report says whose."""
    caplog.set_level("INFO", logger="hydralight")
    folder, there = tmp_path / "sweep", []

    def trained(job):
        number = len(list(folder.glob("*/.hydra"))) - 1
        weights = folder / str(number) / "model/model.safetensors"
        weights.parent.mkdir()
        weights.write_bytes(b"x" * 1000)
        there.append(sorted(int(path.parent.parent.name) for path in folder.glob("*/model/*")))
        return of_lr(job)

    typed = ["optimizer.lr=0.1,0.5,0.2,0.4,0.3", "optimized_metric=val/f1"]
    sweep(trained, *typed, "+hparams_search.keep=2")
    assert there == [[0], [0, 1], [0, 1, 2], [1, 2, 3], [1, 3, 4]]
    deleted = [said for said in caplog.messages if said.startswith("deleted")]
    assert len(deleted) == 1
    assert deleted[0].startswith("deleted the weights of 3 trials, 3.0 KB: ")
    assert list(pd.read_csv(folder / "sweep.csv")["weights"]) == ["no", "yes", "no", "yes", "no"]
    head, _, *rows = (folder / "sweep.md").read_text().splitlines()[-7:]
    assert head.split("|")[-2].strip() == "weights"
    assert [row.split("|")[-2].strip() for row in rows] == ["no", "yes", "no", "yes", "no"]
    sweep(trained, *typed, "+hparams_search.keep=1")  # nothing is left to be run
    assert [path.parent.name for path in folder.glob("[0-9]*/model")] == ["1"]


@pytest.mark.parametrize(
    ("typed", "number", "said"),
    [
        ([LRS, "seed=1,2"], 6, "6 trials take about 4.0 MB on disk: weights of the best 3, and"),
        ([LRS, "hparams_search.keep=null"], 3, "3 trials take about 3.0 MB on disk: weights of 3"),
        (["hparams_search=default"], 2, "20 trials take about 4.0 MB on disk: weights of the best"),
    ],
)
def test_a_preflight_says_what_a_sweep_takes(typed, number, said, sweep, caplog):
    """Of a search the two ends are looked at: its space may have no end."""
    caplog.set_level("INFO", logger="hydralight")

    def checked(job):
        return {"state": "complete", "metrics": {}, "disk": 1_000_000}

    (launched,) = sweep(checked, *typed, "check=true").launched
    assert len(launched) == number
    assert caplog.messages[-1].startswith(said)


def test_one_sweep_at_a_time_is_at_work_in_a_directory(sweep):
    def outcome(job):
        with pytest.raises(UserError, match="is in use by"):
            sweep(of_lr, LRS)
        return of_lr(job)

    assert len(sweep(outcome, LRS).launched) == 3


def test_a_sweep_that_is_refused_leaves_the_record_as_it_is(sweep, tmp_path):
    """What it was begun with is what it goes on with."""
    sweep(of_lr, LRS)
    before = (tmp_path / "sweep/sweep.json").read_text()
    with pytest.raises(UserError, match="was begun with other space"):
        sweep(of_lr, "optimizer.lr=0.25,0.1")
    assert (tmp_path / "sweep/sweep.json").read_text() == before


def test_no_link_in_the_directory_of_a_sweep_is_followed(sweep, tmp_path):
    """Whether it begins there, goes on there, or is reported on."""
    folder, mine = tmp_path / "sweep", tmp_path / "mine"
    folder.mkdir()
    (folder / "sweep.json").write_text("[]")
    (folder / "sweep.csv").symlink_to(mine)
    for use in (
        lambda: sweep(lambda job: pytest.fail("a trial ran"), LRS),
        lambda: begun_with(folder, []),
        lambda: report(folder),
    ):
        with pytest.raises(UserError, match=r"sweep\.csv is a link that leads out of"):
            use()
    assert not mine.exists()


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["optimized_metric=test/f1"], "a sweep optimises validation metrics .* not 'test/f1'"),
        (["hparams_search=default", "+hparams_search.trials=3"], "did you mean 'n_trials'"),
    ],
)
def test_a_wrong_search_is_refused_before_any_trial(typed, sentence, sweep, tmp_path):
    with pytest.raises(UserError, match=sentence):
        sweep(of_lr, *typed)
    assert not (tmp_path / "sweep").exists()


def test_of_a_search_the_ends_are_checked(sweep):
    (checked,) = sweep(of_lr, "hparams_search=default", "check=true").launched
    ends = [[value.partition("=")[2] for value in job[-4:]] for _, job in checked]
    assert ends == [["1e-06", "1", "1", "4"], ["0.0001", "5", "40", "64"]]


@pytest.mark.parametrize("more", [[], ["check=true"]])
def test_what_a_launcher_refuses_is_a_sentence(more, sweep):
    def refused(job):
        raise ValueError("n_jobs == 0 has no meaning")

    with pytest.raises(UserError, match=r"hydra\.launcher: n_jobs == 0 has no meaning"):
        sweep(refused, LRS, *more)


def test_what_trials_import_is_named_by_the_function_that_runs_them(sweep, monkeypatch):
    """It is being imported before the first trial; not where trials run elsewhere."""
    prepared = []
    monkeypatch.setattr("hydralight.sweeps.worker.prepare", prepared.append)

    def outcome(job):
        assert len(prepared) == 1
        return of_lr(job)

    sweep(outcome, LRS, task_function=Job("train", False))
    assert prepared == ["hydralight.preloaded"]
    sweep(of_lr, LRS, "check=true", task_function=Job("train", False))
    sweep(of_lr, LRS, "hydra/launcher=joblib", task_function=Job("train", False))
    assert len(prepared) == 1


JOBLIB = {"_target_": "a.JoblibLauncher", "n_jobs": 3}
SLURM = {"_target_": "a.SlurmLauncher"}


@pytest.mark.parametrize(
    ("launcher", "n_jobs", "of_a_grid", "of_a_search"),
    [
        ({"_target_": "a.BasicLauncher"}, None, 1, 1),
        ({"_target_": "a.BasicLauncher"}, 2, 1, 1),
        (JOBLIB, None, 3, 3),
        ({**JOBLIB, "n_jobs": -1}, None, os.cpu_count(), os.cpu_count()),
        (SLURM, None, 9, 4),
        ({**SLURM, "array_parallelism": 5}, None, 5, 4),
        (SLURM, 2, 2, 2),
    ],
)
def test_how_many_trials_are_at_work_together(launcher, n_jobs, of_a_grid, of_a_search):
    seeds = {"seed": CategoricalDistribution(list(range(9)))}
    points = tuple({"seed": seed} for seed in range(9))
    search = SweepRequest(("val/f1",), ("maximize",), seeds, n_jobs=n_jobs)
    node = OmegaConf.create(launcher)
    assert together(search, node, BasicLauncher()) == of_a_search
    assert together(replace(search, points=points), node, BasicLauncher()) == of_a_grid


def test_a_sweep_says_how_far_it_is_and_what_is_best(sweep, caplog):
    caplog.set_level("INFO", logger="hydralight")

    def outcome(job):
        if job["optimizer.lr"] == "0.3":
            return {"state": "failed", "reason": "it broke.", "metrics": {}}
        return complete(float(job["optimizer.lr"]))

    sweep(outcome, "optimizer.lr=0.1,0.2,0.3,0.15", "optimized_metric=val/f1", "seed=3")
    first, *trials = [m for m in caplog.messages if not m.startswith(" ")][:5]
    assert first.startswith("grid of 4 trials in ")
    places = [(text.split("  ")[0], text.rpartition("  ")[2]) for text in trials]
    so_far = "(best so far: trial 1, val/f1 0.2000)"
    marks = ["(best so far)", "(best so far)", so_far, so_far]
    assert places == [(f"{n}/4", mark) for n, mark in enumerate(marks, 1)]
    assert caplog.messages[5:8] == [
        "best trial: 1, val/f1 0.2000",
        "  optimizer.lr=0.2",
        "4 trials: 3 complete, 1 failed (sweep.md has the reasons)",
    ]
    again = shlex.split(caplog.messages[-1])
    assert again[2:] == [
        "experiment=bert_mrpc",
        "optimized_metric=val/f1",
        "seed=3",
        "optimizer.lr=0.2",
    ]


def test_a_recipe_of_the_best_has_no_trace_of_its_sweep(sweep, tmp_path):
    """What the sweep adds to its trials is left out, also where the user has typed the same key."""
    folder = tmp_path / "sweep"
    typed = ["logger=[csv,wandb]", "logger.wandb.tags=[mine]", "~scheduler", "test=true"]
    sweep(lambda job: complete(float(job["optimizer.lr"])), "optimizer.lr=0.1,0.2", *typed)
    path = folder / "1/.hydra/overrides.yaml"
    added = ["++logger.wandb.group='a sweep'", "logger.wandb.tags=[mine,'trial 1']", "test=false"]
    path.write_text(json.dumps([*json.loads(path.read_text()), *added]))
    report(folder)
    own = tmp_path / "own/experiment/best.yaml"
    own.parent.mkdir(parents=True)
    own.write_text((folder / "best.yaml").read_text())
    with initialize_config_dir(str(CONFIG_DIR)):
        typed = [f"hydra.searchpath=[file://{tmp_path / 'own'}]", "experiment=best"]
        config = compose("train", typed)
    assert config.logger.wandb.tags == ["mine"]
    assert "group" not in config.logger.wandb
    assert (config.optimizer.lr, config.test) == (0.2, True)
    assert config.get("scheduler") is None


def test_what_is_no_number_is_left_empty(sweep, tmp_path):
    """In `sweep.md`; a metric that is none in all trials has no column. `sweep.csv` has them."""

    def outcome(job):
        done = complete(float(job["optimizer.lr"]) + float(job["seed"]))
        some = float("nan") if job["optimizer.lr"] == "0.1" else 0.25
        done["metrics"] |= {"val/all": float("nan"), "val/some": some}
        return done

    sweep(outcome, "optimizer.lr=0.1,0.2", "seed=1,2", "optimized_metric=val/f1")
    text = (tmp_path / "sweep/sweep.md").read_text()
    assert "nan" not in text.lower()
    assert "val/all" not in text
    assert text.count("0.2500 ± 0.0000") == 1
    assert {"val/all", "val/some"} <= set(pd.read_csv(tmp_path / "sweep/sweep.csv").columns)


def test_on_a_terminal_a_sweep_is_a_bar_of_one_line(sweep, monkeypatch):
    sent = io.StringIO()
    console = Console(file=sent, force_terminal=True, width=80, _environ={})
    monkeypatch.setattr("hydralight.progress.console", lambda: console)
    monkeypatch.setattr("hydralight.sweeps.announce.interactive", lambda: True)
    drawn = []

    def outcome(job):  # what stands there while a trial is at work
        console._live_stack[0].refresh()
        drawn.append(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sent.getvalue().split("\x1b[2K")[-1]))
        return complete(float(job["optimizer.lr"]))

    sweep(outcome, LRS, "optimized_metric=val/f1")
    assert "\x1b[2K\x1b[1A" not in sent.getvalue()
    assert all(len(line) <= 80 for line in drawn)
    assert [re.match(r"trials .* (\d/3) ", line)[1] for line in drawn] == ["0/3", "1/3", "2/3"]
    assert "best so far: trial 1, val/f1 0.7500" in drawn[2]
