"""The study of a sweep: what is tried next, also after a kill."""

import json
import sqlite3
from contextlib import closing
from itertools import product

import pytest
from hydra.utils import execution_whitelist
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sweeping import complete

from hydralight.config.whitelist import WHITELIST
from hydralight.errors import UserError
from hydralight.sweeps.request import SweepRequest
from hydralight.sweeps.storage import stored_study
from hydralight.sweeps.study import SweepStudy

SPACE = {"optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True), "seed": IntDistribution(1, 40)}
GRID = [{"seed": seed, "data.fold": fold} for seed, fold in product((1, 2), (0, 1))]
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 7}


@pytest.fixture(autouse=True)
def whitelist():
    with execution_whitelist(WHITELIST):
        yield


def search_in(folder, objective="val/f1", direction="maximize", searched=SPACE):
    return SweepStudy(folder, SweepRequest((objective,), (direction,), searched, sampler=TPE))


def grid_in(folder, points=GRID):
    lists = {key: list(dict.fromkeys(point[key] for point in points)) for key in points[0]}
    searched = {key: CategoricalDistribution(values) for key, values in lists.items()}
    request = SweepRequest(("val/f1",), ("maximize",), searched, points=tuple(points))
    return SweepStudy(folder, request)


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


@pytest.mark.parametrize(
    "change",
    [
        "update trial_params set distribution_json = 'torn'",
        'update trial_params set distribution_json = \'{"name": "Odd", "attributes": {}}\'',
        "update trial_system_attributes set value_json = '{'",
    ],
)
def test_a_study_that_somebody_changed_is_told(change, tmp_path):
    asked(search_in(tmp_path), 2)
    with closing(sqlite3.connect(tmp_path / "study.db")) as file, file:
        file.execute(
            "insert into trial_system_attributes (trial_id, key, value_json) values (1, 'a', '1')"
        )
        file.execute(change)
    for opened in (search_in, stored_study):
        with pytest.raises(UserError, match=r"study\.db cannot be read as a study"):
            opened(tmp_path)
