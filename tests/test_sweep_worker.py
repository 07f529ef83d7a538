"""The process that a trial runs in."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from sweeping import is_gone, until

from hydralight.runs.overrides import key_of, parsed
from hydralight.sweeps import worker
from hydralight.sweeps.trial import arguments_of, places_trials, read_outcome


def finished_trial(run_dir, arguments):
    assert arguments == ["seed=1"]
    return {"state": "complete", "metrics": {"val/f1": 0.5}}


def killed_trial(run_dir, arguments):
    signal.raise_signal(signal.SIGKILL)


@pytest.fixture
def call(tmp_path):
    """Call a function in a process of its own, which has imported nothing."""

    def called(function, *args, **environment):
        output = tmp_path / "output.log"
        return worker.call(function, *args, environment=environment, output=output, preload=None)

    return called


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
    with pytest.raises(worker.Died, match=sentence):
        call(function, argument)


def test_what_a_call_has_started_ends_with_it(call, tmp_path):
    pids = tmp_path / "pids"
    assert call(os.system, f"sleep 1000 & echo $! >> {pids}") == 0
    with pytest.raises(worker.Died, match="SIGKILL"):
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
    with pytest.raises(worker.Died, match="SIGKILL"):
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
from hydralight.sweeps import worker
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind an &
worker.call(exec, {called!r}, environment={{}}, output=Path("output.log"), preload=None)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", caller], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    until((tmp_path / "pids").exists, process)
    process.send_signal(end)
    assert process.wait(60) == -end
    until(lambda: all(map(is_gone, (tmp_path / "pids").read_text().split())))
    assert (tmp_path / "asked").exists() == (end == signal.SIGINT)


def test_what_all_trials_import_is_there_when_one_begins(tmp_path):
    """A fault in what is imported would be passed over in silence, and each trial be slow."""
    names = ["hydralight.training", "hydralight.tasks.seq2seq", "optuna", "matplotlib"]
    asked = f"[name in __import__('sys').modules for name in {names}]"
    caller = f"""
from pathlib import Path
from hydralight.cli import Job
from hydralight.sweeps import worker
found = worker.call(
    eval, {asked!r}, environment={{}}, output=Path("output.log"), preload=PRELOAD
)
print(found)
"""
    for preload, expected in [("Job('train', False).preload", True), ("None", False)]:
        code = caller.replace("PRELOAD", preload)
        said = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert said.stdout == f"{[expected] * len(names)}\n"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (finished_trial, {"state": "complete", "metrics": {"val/f1": 0.5}}),
        (
            killed_trial,
            {
                "state": "failed",
                "reason": "its process was ended by SIGKILL (often for want of memory)",
                "metrics": {},
            },
        ),
    ],
)
def test_how_a_trial_ends_is_written_down_whatever_happens(function, expected, tmp_path):
    outcome = worker.run_trial(
        function,
        ["seed=1"],
        tmp_path,
        environment={},
        optimized_metric="val/f1",
        preload=None,
    )
    seconds = outcome["seconds"]
    assert 0 < seconds < 60
    assert outcome == {**expected, "optimized_metric": "val/f1", "seconds": seconds}
    assert read_outcome(tmp_path) == outcome


# ---------------------------------------------------------------- what a trial is started with


@pytest.mark.parametrize(
    ("argument", "of_the_sweep"),
    [
        ("hydra.mode=MULTIRUN", True),
        ("hydra.run.dir='a=b'", True),
        ("hydra.sweep.subdir=x", True),
        ("hydra.sweeper.params={}", True),
        ("hydra/sweeper=basic", True),
        ("hydra/launcher=slurm", True),
        ("hydra.launcher.n_jobs=4", True),
        ("+hydra.launcher.partition=gpu", True),
        ("hydra.runtime.cwd=x", False),
        ("hydra.job.name=train", False),
        ("hydra.searchpath=[file:///hydra.mode=RUN]", False),
        ("hydra/job_logging=none", False),
    ],
)
def test_a_trial_is_told_nothing_of_its_sweep(argument, of_the_sweep):
    assert places_trials(argument) == of_the_sweep


def test_a_trial_is_a_single_run_of_the_same_values(monkeypatch):
    """Whatever signs are in the names of its directory and its tags."""
    folder = "it's ${seed}, [a]=b\\"
    job = {
        "overrides": {
            "hydra": ["hydra.mode=MULTIRUN", "hydra/launcher=joblib", "hydra.verbose=true"],
            "task": ["seed=3"],
        },
        "job": {"num": 7, "config_name": "train"},
        "sweep": {"dir": "/sweeps/it's [a]=b"},
    }
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(job))
    tags = ["a, b", "it's"]
    cfg = OmegaConf.create({"test": True, "logger": {"wandb": {"tags": tags}}})
    arguments = arguments_of(cfg, Path(f"/sweeps/{folder}/7"))
    assert arguments[:2] == ["hydra.verbose=true", "seed=3"]
    values = {key_of(a): parsed(a).value() for a in arguments[2:]}
    escaped = folder.replace("${", "\\${")  # which OmegaConf reads as the text
    assert values == {
        "hydra.run.dir": f"/sweeps/{escaped}/7",
        "hydra.mode": "RUN",
        "test": False,
        "logger.wandb.group": "it's [a]=b",
        "logger.wandb.tags": [*tags, "trial 7"],
    }
