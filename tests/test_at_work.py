"""Trials that are at work together, by launchers that train nothing."""

import os
import subprocess
import sys
import threading

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from optuna.distributions import CategoricalDistribution
from sweeping import complete, finished, retried

from hydralight.errors import UserError
from hydralight.sweeps.announce import Announcer
from hydralight.sweeps.at_work import AtWork
from hydralight.sweeps.loop import Loop
from hydralight.sweeps.request import SweepRequest
from hydralight.sweeps.study import SweepStudy
from hydralight.sweeps.trial import claimed, write_outcome


class Elsewhere(Launcher):
    """Runs a function of the trial's number, in the thread that it is called in."""

    def __init__(self, function):
        self.function, self.begun = function, []

    def setup(self, **kwargs):
        pass

    def launch(self, job_overrides, initial_job_idx):
        assert len(job_overrides) == 1
        self.begun.append(initial_job_idx)
        outcome = self.function(initial_job_idx)
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=outcome)]


def study_in(folder, number):
    points = tuple({"seed": seed} for seed in range(number))
    space = {"seed": CategoricalDistribution(list(range(number)))}
    return SweepStudy(folder, SweepRequest(("val/f1",), ("maximize",), space, points))


def run(study, launcher, room):
    with Announcer(study) as announcer, AtWork(launcher, study.folder, here=False) as at_work:
        loop = Loop(study, at_work, announcer, [], lambda job: None)
        while (left := study.request.total - len(study.finished)) > 0:
            loop.step(min(room, left))


def test_a_slow_trial_holds_up_no_other(tmp_path):
    """In rounds of two, the first would wait for the fourth for ever."""
    study, done = study_in(tmp_path, 5), threading.Event()

    def outcome(number):
        if number == 0:
            assert done.wait(60)
        if number == 3:
            done.set()
        return complete(number)

    launcher = Elsewhere(outcome)
    run(study, launcher, room=2)
    assert [trial.value for trial in study.finished] == [0, 1, 2, 3, 4]
    assert launcher.begun == [0, 1, 2, 3, 4]
    ends = [trial.datetime_complete for trial in study.finished]
    assert ends[0] > ends[3]


def lost(folder, times):
    """A function that loses trials so many times with what runs them."""

    def outcome(number):
        (folder / str(number) / ".hydra").mkdir(parents=True)
        if number < times:
            raise OSError("the node is gone")
        return complete(0.5)

    return outcome


@pytest.mark.parametrize(("times", "state"), [(2, "COMPLETE"), (3, "FAIL")])
def test_a_trial_whose_worker_is_gone_is_tried_twice_more(times, state, tmp_path):
    study = study_in(tmp_path, 1)
    run(study, Elsewhere(lost(tmp_path, times)), room=1)
    assert [trial.state.name for trial in study.finished] == [state]
    assert [trial.number for trial in retried(study.study)] == [0, 1]
    if state == "FAIL":
        why = "hydra.launcher: the node is gone., 3 times"
        assert finished(study.study)[0].user_attrs["reason"] == why


def test_a_trial_that_had_ended_when_its_worker_went_counts(tmp_path):
    study = study_in(tmp_path, 1)

    def outcome(number):
        (tmp_path / "0/.hydra").mkdir(parents=True)
        write_outcome(tmp_path / "0", complete(0.25))
        raise OSError("the node is gone")

    run(study, Elsewhere(outcome), room=1)
    assert [trial.value for trial in study.study.trials] == [0.25]


def test_what_a_launcher_refuses_ends_the_sweep(tmp_path):
    def refused(number):
        raise ValueError("no such partition")

    with pytest.raises(UserError, match="no such partition"):
        run(study_in(tmp_path, 3), Elsewhere(refused), room=2)


def test_trials_side_by_side_take_the_gpu_that_fewest_have():
    """Whatever their numbers: the next one takes the one that was left."""
    mine = [f"{os.getpid()}-{number}" for number in range(2)]
    code = f"""
from hydralight.sweeps.trial import claimed
print(claimed({mine}), flush=True)
input()
"""

    def begin():
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return process, process.stdout.readline().strip()

    trials = [begin() for _ in range(3)]
    assert [gpu for _, gpu in trials] == [mine[0], mine[1], mine[0]]
    trials[1][0].communicate("\n")
    assert claimed(mine) == mine[1]
    for process, _ in trials[::2]:
        process.communicate("\n")
