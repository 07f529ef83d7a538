"""Sweeps: what is searched, what goes on after a kill, where trials run, what is reported."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from transformers.trainer_utils import default_hp_space_optuna

from hydralight.config.project import CONFIG_DIR
from hydralight.config.whitelist import WHITELIST
from hydralight.errors import UserError
from hydralight.sweeps import isolation, space
from hydralight.sweeps.report import report
from hydralight.sweeps.study import SweepStudy
from hydralight.sweeps.sweeper import StudySweeper

# ---------------------------------------------------------------- what is searched


def distributions(typed=(), params=None):
    _, swept = space.split(typed, params or {})
    return {override.get_key_element(): space.distribution(override) for override in swept}


def test_default_space_is_that_of_the_trainer():
    names = {
        "learning_rate": "optimizer.lr",
        "num_train_epochs": "trainer.max_epochs",
        "seed": "seed",
        "per_device_train_batch_size": "data.batch_size",
    }
    trial = optuna.create_study().ask()
    default_hp_space_optuna(trial)
    params = OmegaConf.load(CONFIG_DIR / "hparams_search/default.yaml").params
    expected = {names[name]: own for name, own in trial.distributions.items()}
    assert distributions(params=params) == expected


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("interval(0, 0.5)", FloatDistribution(0, 0.5)),
        ("interval(1e-6, 1e-3)", FloatDistribution(1e-6, 1e-3)),
        ("tag(log, interval(1e-6, 1e-3))", FloatDistribution(1e-6, 1e-3, log=True)),
        ("int(interval(1, 9))", IntDistribution(1, 9)),
        ("tag(log, int(interval(1, 512)))", IntDistribution(1, 512, log=True)),
        ("range(1, 6)", IntDistribution(1, 5)),
        ("range(0, 10, 3)", IntDistribution(0, 9, step=3)),
        ("tag(log, range(1, 65))", IntDistribution(1, 64, log=True)),
        ("choice(4, 0.5, adamw)", CategoricalDistribution([4, 0.5, "adamw"])),
        ("8,16", CategoricalDistribution([8, 16])),
    ],
)
def test_distributions(sweep, expected):
    own = distributions([f"key={sweep}"])["key"]
    assert own == expected
    assert [type(v) for v in vars(own).values()] == [type(v) for v in vars(expected).values()]


def test_a_grid_is_the_product_in_order():
    lists = {"a": [1, 2, 3], "b": [0.1, 1e-5], "c": ["linear", "cosine"]}
    typed = [f"{key}={','.join(map(str, values))}" for key, values in lists.items()]
    fixed, swept = space.split([typed[0], "seed=1", *typed[1:]], {})
    assert fixed == ["seed=1"]
    expected = [dict(zip(lists, point, strict=True)) for point in product(*lists.values())]
    assert space.grid(swept) == expected


def test_what_is_typed_goes_before_the_space():
    params = {"optimizer.lr": "interval(0, 1)", "seed": "range(1, 9)", "data.fold": "choice(0, 1)"}
    fixed, swept = space.split(["optimizer.lr=0.5", "seed=3,4"], params)
    assert fixed == ["optimizer.lr=0.5"]
    assert [override.input_line for override in swept] == ["seed=3,4", "data.fold=choice(0, 1)"]


def test_what_is_no_list_or_no_sweep_is_refused():
    _, swept = space.split(["seed=1,2", "optimizer.lr=interval(0, 1)"], {})
    with pytest.raises(UserError, match=r"optimizer\.lr=interval\(0, 1\) is an interval, and a gr"):
        space.grid(swept)
    with pytest.raises(UserError, match=r"params\.seed=7 is one value: give a choice"):
        space.split([], {"optimizer.lr": "interval(0, 1)", "seed": 7})
    with pytest.raises(UserError, match="the_lr=tag"):
        distributions(["the_lr=tag(log, interval(0, 1))"])


# ---------------------------------------------------------------- the study

SPACE = {"optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True), "seed": IntDistribution(1, 40)}
GRID = [{"seed": seed, "data.fold": fold} for seed, fold in product((1, 2), (0, 1))]
TPE = OmegaConf.create({"_target_": "optuna.samplers.TPESampler", "seed": 7})


@pytest.fixture(autouse=True)
def whitelist():
    with execution_whitelist(WHITELIST):
        yield


def search_in(folder, objective="val/f1", direction="maximize", searched=SPACE):
    return SweepStudy(folder, None, [objective], [direction], TPE, None, searched)


def grid_in(folder, points=GRID):
    lists = {key: list(dict.fromkeys(point[key] for point in points)) for key in points[0]}
    searched = {key: CategoricalDistribution(values) for key, values in lists.items()}
    return SweepStudy(folder, None, ["val/f1"], ["maximize"], None, points, searched)


def complete(value):
    return {"state": "complete", "metrics": {"val/f1": value, "val/loss": 1 - value}}


def asked(study, number, value=0.5):
    points = []
    for _ in range(number):
        trial = study.ask()
        points.append(trial.params)
        study.tell(trial, complete(value))
    return points


def test_a_sampler_goes_on_with_new_points(tmp_path):
    (tmp_path / "other").mkdir()
    first = asked(search_in(tmp_path), 3)
    assert asked(search_in(tmp_path / "other"), 3) == first  # the seed is the sampler's
    points = [*first, *asked(search_in(tmp_path), 3), *asked(search_in(tmp_path), 3)]
    assert len({tuple(point.values()) for point in points}) == 9


def test_an_interrupted_trial_is_tried_again_and_does_not_count(tmp_path):
    study = search_in(tmp_path)
    asked(study, 2)
    points = [study.ask().params for _ in range(2)]  # launched together
    for _ in range(2):  # their second attempts are interrupted too
        study = search_in(tmp_path)
        assert len(study.finished) == 2
        assert [study.ask().params for _ in range(2)] == points
    study = search_in(tmp_path)
    assert asked(study, 2) == points
    assert asked(study, 1)[0] not in points
    assert [trial.number for trial in study.finished] == [0, 1, 8, 9, 10]
    interrupted = study.study.get_trials(states=[TrialState.FAIL])
    assert [trial.number for trial in interrupted] == [2, 3, 4, 5, 6, 7]
    assert all(trial.user_attrs["interrupted"] for trial in interrupted)
    retries = [trial.user_attrs.get("retry_of") for trial in study.study.trials]
    assert retries == [None, None, None, None, 2, 3, 4, 5, 6, 7, None]


def test_a_trial_that_was_written_down_is_settled(tmp_path):
    search_in(tmp_path).ask()
    (tmp_path / "0").mkdir()
    (tmp_path / "0/trial.json").write_text(json.dumps(complete(0.25)))
    study = search_in(tmp_path)
    (settled,) = study.finished
    assert (settled.state, settled.value) == (TrialState.COMPLETE, 0.25)
    assert study.ask().params != settled.params


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"val/f1": float("nan")}, "val/f1 is not a number"),
        ({"val/loss": 0.5}, "val/f1 is not among its metrics (val/loss)"),
    ],
)
def test_a_trial_without_its_objective_has_failed(metrics, reason, tmp_path):
    study = search_in(tmp_path)
    outcome = study.tell(study.ask(), {"state": "complete", "metrics": metrics})
    assert (outcome["state"], outcome["reason"]) == ("failed", reason)
    (trial,) = study.finished  # it counts
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, reason)


def test_another_sweep_in_the_same_directory_is_refused(tmp_path):
    search_in(tmp_path)
    wider = {**SPACE, "seed": IntDistribution(1, 41)}
    for other in (
        {"objective": "val/loss"},
        {"direction": "minimize"},
        {"searched": wider},
    ):
        with pytest.raises(UserError, match="was begun with other"):
            search_in(tmp_path, **other)
    asked(search_in(tmp_path), 1)


def test_a_grid_goes_on_with_the_points_that_are_left(tmp_path):
    (tmp_path / "old").mkdir()
    assert asked(grid_in(tmp_path / "old"), 2) == GRID[:2]
    grid_in(tmp_path / "old").ask()  # and interrupted
    (tmp_path / "old").rename(tmp_path / "new")
    assert asked(grid_in(tmp_path / "new"), 2) == GRID[2:]


def test_a_grid_misses_no_point_whenever_it_is_killed(tmp_path):
    """A trial is made in several steps: queued, begun, and given one parameter after the other."""
    points = [{"seed": seed, "data.fold": fold} for seed, fold in product(range(4), range(4))]
    for number, point in enumerate(points[:15]):
        study = grid_in(tmp_path, points).study
        study.enqueue_trial(point)
        if number % 3:
            trial = study.ask()
        if number % 3 == 2:
            trial.suggest_categorical("seed", range(4))
    study = grid_in(tmp_path, points)
    for _ in points:
        asked(study, 1)
    done = [trial.params for trial in study.finished]
    assert sorted(done, key=points.index) == points


# ---------------------------------------------------------------- the sweeper, without trials


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
        outcome = self.outcome(dict(override.split("=", 1) for override in job))
        (folder / "trial.json").write_text(json.dumps(outcome))
        return JobReturn(status=JobStatus.COMPLETED, _return_value=outcome)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Sweep in this process by a stand-in launcher, which is returned; nothing is drawn."""
    monkeypatch.setattr("hydralight.sweeps.report.draw", lambda *_: None)

    def swept(outcome, *typed, folder=tmp_path / "sweep"):
        typed = ["experiment=bert_mrpc", *typed]
        fixed, _ = space.split(typed, {})
        own = [f"hydra.sweep.dir={folder}", "hydra.mode=MULTIRUN"]
        with initialize_config_dir(str(CONFIG_DIR)):
            config = compose("train", [*fixed, *own], return_hydra_config=True)
            loader = GlobalHydra.instance().config_loader()
        launcher = Launcher(outcome, config, loader)
        plugins = Plugins.instance()
        monkeypatch.setattr(plugins, "instantiate_launcher", lambda **_: launcher)
        sweeper = StudySweeper()
        context = HydraContext(config_loader=loader, callbacks=None)
        sweeper.setup(hydra_context=context, task_function=None, config=config)
        try:
            sweeper.sweep(typed)
        except SystemExit as stop:
            launcher.exit_code = stop.code
        gc.collect()  # a traceback holds the sweep's lock
        return launcher

    return swept


LRS = "optimizer.lr=0.25,0.75,0.5"


def of_lr(job):
    return complete(float(job["optimizer.lr"]))


def study_of(folder):
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/study.db")


def finished(study):
    return [t for t in study.trials if t.state.is_finished() and "interrupted" not in t.user_attrs]


def retried(study):
    """Return the trials that were tried again, which was done with the same parameters."""
    again = [trial for trial in study.trials if "retry_of" in trial.user_attrs]
    first = [study.trials[trial.user_attrs["retry_of"]] for trial in again]
    assert [trial.params for trial in again] == [trial.params for trial in first]
    assert all(trial.user_attrs["interrupted"] for trial in first)
    return first


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_search_goes_on_to_the_same_total(n_jobs, sweep, tmp_path):
    numbers = iter(range(9))

    def interrupted(job):
        if next(numbers) == 3:  # when it has trained, but not said so
            run = {"status": "finished", "best": {"val/f1": 1.0, "step": 1}}
            (tmp_path / "sweep/3/metrics.json").write_text(json.dumps(run))
            raise KeyboardInterrupt
        return of_lr(job)

    search = ["hparams_search=default", "hparams_search.n_trials=6"]
    search.append(f"hparams_search.n_jobs={n_jobs}")
    assert sweep(interrupted, *search).exit_code == 130
    groups = sweep(of_lr, *search).launched
    assert {len(group) for group in groups[:-1]} == {n_jobs}
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
    """They are launched together, and the first one is done by then."""
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


def test_one_sweep_at_a_time_is_at_work_in_a_directory(sweep):
    def outcome(job):
        with pytest.raises(UserError, match="another sweep is at work in"):
            sweep(of_lr, LRS)
        return of_lr(job)

    assert len(sweep(outcome, LRS).launched) == 3


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["optimized_metric=test/f1"], "a sweep optimises validation metrics .* not 'test/f1'"),
        (["hparams_search=default", "+hparams_search.trials=3"], "did you mean 'n_trials'"),
        (["hparams_search=base"], "has no params"),
        (["hparams_search=default", "hparams_search.direction=up"], "should say minimize or max"),
    ],
)
def test_a_wrong_search_is_refused_before_any_trial(typed, sentence, sweep, tmp_path):
    with pytest.raises(UserError, match=sentence):
        sweep(of_lr, *typed)
    assert not (tmp_path / "sweep").exists()


# ---------------------------------------------------------------- a process of its own


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call a function in a process of its own, which has imported nothing."""
    monkeypatch.setattr(isolation, "PRELOADED", [])

    def called(function, *args, **environment):
        output = tmp_path / "output.log"
        return isolation.call(function, *args, environment=environment, output=output)

    return called


def until(condition, process=None):
    """Wait for a condition, while a process is at work."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.01)


def is_gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # nobody asks how it ended


def test_a_call_has_a_process_environment_and_output_of_its_own(call, tmp_path, monkeypatch):
    assert call(pow, 2, 10) == 1024
    monkeypatch.setenv("GIVEN", "since the server was started")
    assert call(os.getenv, "GIVEN") == "since the server was started"
    assert call(os.getenv, "GIVEN", GIVEN="for this call") == "for this call"
    assert len({os.getpid(), call(os.getpid), call(os.getpid)}) == 3
    assert call(os.system, "echo said; echo also >&2") == 0
    assert (tmp_path / "output.log").read_text() == "said\nalso\n"


@pytest.mark.parametrize(
    ("function", "argument", "sentence"),
    [
        (signal.raise_signal, signal.SIGKILL, r"ended by SIGKILL \(often for want of memory\)$"),
        (signal.raise_signal, signal.SIGTERM, "ended by SIGTERM$"),
        (os._exit, 0, "left with exit code 0$"),
        (int, "x", "left with exit code 1$"),
    ],
)
def test_a_call_that_dies_says_how(function, argument, sentence, call):
    with pytest.raises(isolation.Died, match=sentence):
        call(function, argument)


def test_what_a_call_has_started_ends_with_it(call, tmp_path):
    pids = tmp_path / "pids"
    assert call(os.system, f"sleep 1000 & echo $! >> {pids}") == 0
    with pytest.raises(isolation.Died, match="SIGKILL"):
        call(os.system, f"sleep 1000 & echo $! >> {pids}; kill -9 $PPID")
    until(lambda: all(map(is_gone, pids.read_text().split())))
    assert len(pids.read_text().split()) == 2


def test_a_death_is_noticed_whatever_is_left(call, tmp_path):
    """What it has forked keeps its pipe open."""
    code = f"""
import os, time
if os.fork():
    os.kill(os.getpid(), 9)
time.sleep(20)
open({str(tmp_path / "waited for")!r}, "w")
"""
    with pytest.raises(isolation.Died, match="SIGKILL"):
        call(exec, code)
    assert not (tmp_path / "waited for").exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_call_ends_with_its_caller(end, tmp_path):
    """Ctrl-C asks it to, so that it can write a checkpoint."""
    called = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open("asked", "w"), sys.exit(143)))
child = subprocess.Popen(["sleep", "1000"])
open("partial", "w").write(f"{os.getpid()} {child.pid}")
os.rename("partial", "pids")
time.sleep(1000)
"""
    caller = f"""
import signal
from pathlib import Path
from hydralight.sweeps import isolation
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind an &
isolation.PRELOADED.clear()
isolation.call(exec, {called!r}, environment={{}}, output=Path("output.log"))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", caller], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    until((tmp_path / "pids").exists, process)
    process.send_signal(end)
    assert process.wait(60) == -end
    until(lambda: all(map(is_gone, (tmp_path / "pids").read_text().split())))
    assert (tmp_path / "asked").exists() == (end == signal.SIGINT)


# ---------------------------------------------------------------- sweeps by the command line


def begun(arguments, tmp_path, script="train.py"):
    """Start a sweep, whose processes bear the test's directory in their environment."""
    with (tmp_path / "said.log").open("a") as said:
        return subprocess.Popen(
            [sys.executable, script, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, "SWEEP_OF": str(tmp_path)},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def swept(arguments, tmp_path, script="train.py"):
    code = begun(arguments, tmp_path, script).wait(600)
    assert code == 0, (tmp_path / "said.log").read_text()


def processes_of(tmp_path):
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"SWEEP_OF={tmp_path}".encode() in (path / "environ").read_bytes():
                found.append(path.name)
        except OSError:  # gone since, or another user's
            continue
    return [pid for pid in found if not is_gone(pid)]


def config_of(trial):
    """Return a trial's composed config, but for the search that it was part of."""
    config = OmegaConf.to_container(OmegaConf.load(trial / ".hydra/config.yaml"))
    return {key: value for key, value in config.items() if key != "hparams_search"}


def recipe_of(folder, tmp_path):
    """Return what `best.yaml` composes to as an experiment."""
    own = tmp_path / "own/experiment/best.yaml"
    own.parent.mkdir(parents=True)
    own.write_text((folder / "best.yaml").read_text())
    overrides = [f"hydra.searchpath=[file://{tmp_path / 'own'}]", "experiment=best"]
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
    why = "data.batch_size and data.eval_batch_size should be at least 1."
    assert list(table["reason"][table["state"] == "failed"]) == [why, why]
    text = (folder / "sweep.md").read_text()
    assert text.count(why) == 2
    assert "6 trials (4 complete, 2 failed), to minimize `val/loss`" in text

    losses = {number: best_metrics(folder / str(number))["val/loss"] for number in done}
    best = min(losses, key=losses.get)
    assert (folder / "best").resolve() == folder / str(best)
    assert f"The best is trial {best}, with val/loss {losses[best]:.4g}" in text
    assert recipe_of(folder, tmp_path) == config_of(folder / str(best))

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


def test_a_hopeless_trial_is_pruned_and_no_secret_is_written(mrpc, tmp_path):
    """After its first evaluation; of three trials, of which one fails."""
    pruner = ["hparams_search.pruner._target_=optuna.pruners.ThresholdPruner"]
    pruner += ["+hparams_search.pruner.upper=5", "hparams_search=base"]
    grid = ["hparams_search.sampler=null", "optimizer.lr=1e3,1e-4,high"]
    own = ["trainer.max_epochs=2", "data.batch_size=4"]  # 4 steps an epoch
    token = "hf_" + "b2" * 16
    own += [f"tags=[{token}]", "+callbacks.best_model.card.api_key=hunter2"]
    folder = tmp_path / "sweep"
    swept([*mrpc, *pruner, *grid, *own, f"hydra.sweep.dir={folder}"], tmp_path)
    table = pd.read_csv(folder / "sweep.csv")
    assert list(table["state"]) == ["pruned", "complete", "failed"]
    assert table["step"][0] == 4
    hopeless, good, wrong = study_of(folder).trials
    assert hopeless.state == TrialState.PRUNED
    for trial, steps in [(hopeless, [4]), (good, [4, 8])]:
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


# ---------------------------------------------------------------- sweeps of other programs


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
