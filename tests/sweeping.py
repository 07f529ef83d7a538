"""What tests of sweeps share: what a trial says, what a study holds, and processes at work."""

import os
import subprocess
import sys
import time
from pathlib import Path

import optuna
from conftest import ROOT


def complete(value):
    return {"state": "complete", "metrics": {"val/f1": value, "val/loss": 1 - value}}


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


def until(condition, process=None):
    """Wait for a condition, while a process is at work."""
    deadline = time.monotonic() + 300
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
