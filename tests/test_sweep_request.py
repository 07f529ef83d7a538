"""What is asked of a sweep: what is refused, and what follows from what is not said."""

from dataclasses import replace

import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, IntDistribution

from hydralight.config.project import CONFIG_DIR
from hydralight.errors import UserError
from hydralight.sweeps import space
from hydralight.sweeps.announce import ending
from hydralight.sweeps.request import EACH_ITS_OWN, SweepRequest, request_of

LR = "optimizer.lr=interval(0, 1)"
TPE = {"_target_": "optuna.samplers.TPESampler"}
PRUNER = {"_target_": "optuna.pruners.MedianPruner"}
SEARCH = SweepRequest(("val/f1",), ("maximize",), {"seed": IntDistribution(1, 40)}, sampler=TPE)


def asked(search, *typed):
    """Return the request, where losses are minimised and all else is maximised."""
    _, swept = space.split(typed, {})
    return request_of(search, swept, "val/f1", lambda name: "min" if "loss" in name else "max")


def test_a_grid_has_points_and_a_search_a_space():
    grid = asked({}, "seed=1,2", "data.fold=0,1")
    assert grid.points is not None
    assert grid.total == len(grid.points) == 4
    assert grid.space["seed"] == CategoricalDistribution([1, 2])
    search = asked({"sampler": TPE, "n_trials": 3}, "seed=range(1, 41)")
    assert (search.points, search.total) == (None, 3)
    assert search.space == {"seed": IntDistribution(1, 40)}
    assert asked({"sampler": {"_target_": None}}, "seed=1,2").sampler is None  # a grid
    assert asked({"pruner": {"_target_": None}}, "seed=1,2").pruner is None


@pytest.mark.parametrize(
    ("search", "typed", "objectives", "directions"),
    [
        ({}, "seed=1,2", ("val/f1",), ("maximize",)),
        ({}, "experiment=a,b", (EACH_ITS_OWN,), ("minimize",)),
        (
            {"objectives": ["val/loss", "val/f1", "seconds"]},
            "seed=1,2",
            ("val/loss", "val/f1", "seconds"),
            ("minimize", "maximize", "minimize"),
        ),
        ({"direction": "minimize"}, "seed=1,2", ("val/f1",), ("minimize",)),
        (
            {"objectives": ["val/f1", "seconds"], "direction": ["minimize", "maximize"]},
            "seed=1,2",
            ("val/f1", "seconds"),
            ("minimize", "maximize"),
        ),
        ({"objectives": ["val/loss"]}, "experiment=a,b", ("val/loss",), ("minimize",)),
    ],
)
def test_what_is_not_said_follows_from_the_metrics(search, typed, objectives, directions):
    request = asked(search, typed)
    assert (request.objectives, request.directions) == (objectives, directions)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"objectives": ("test/f1",)}, r"validation metrics .* and seconds, not 'test/f1'\.$"),
        ({"directions": ("up",)}, r"direction=up should say minimize or maximize for .* val/f1\.$"),
        ({"directions": ()}, r"direction=\[\] should say"),
        (
            {"directions": ("minimize", "maximize")},
            r"direction=\[minimize, maximize\] should say minimize or maximize for each of val/f1",
        ),
        (
            {
                "objectives": ("val/f1", "seconds"),
                "directions": ("maximize", "minimize"),
                "pruner": PRUNER,
            },
            "several objectives cannot prune",
        ),
        ({"space": {}}, "has no params: name what is to be searched"),
        ({"n_trials": 0}, "n_trials=0 should be a whole number from 1"),
        ({"n_trials": "ten"}, "n_trials=ten should be"),
        ({"n_trials": None}, "n_trials=None should be"),
        ({"n_trials": True}, "n_trials=True should be"),
        ({"n_jobs": -1}, "n_jobs=-1 should be"),
        ({"n_jobs": 1.5}, r"n_jobs=1\.5 should be"),
    ],
)
def test_what_does_not_go_together_is_refused(changed, sentence):
    with pytest.raises(UserError, match=sentence):
        replace(SEARCH, **changed)


def test_an_unknown_key_is_refused_by_the_nearest_one():
    with pytest.raises(UserError, match=r"hparams_search\.trials: .*did you mean 'n_trials'"):
        asked({"trials": 3}, "seed=1,2")


def test_an_interval_is_for_a_search_alone():
    assert asked({"sampler": TPE}, LR).points is None
    with pytest.raises(UserError, match="is an interval, and a grid takes lists"):
        asked({}, LR)


def test_the_end_of_a_trial_is_told_by_what_it_is_judged_by():
    metrics = {"val/f1": 0.51239, "val/loss": 2.0, "seconds": 3.0}
    done = {"state": "complete", "metrics": metrics, "optimized_metric": "val/loss"}
    assert ending(done, SEARCH) == "val/f1 0.5124"
    recipes = replace(SEARCH, objectives=(EACH_ITS_OWN,))
    assert ending(done, recipes) == "val/loss 2"
    assert ending({"state": "pruned", "step": 4}, SEARCH) == "pruned at step 4"
    assert ending({"state": "failed", "reason": "no disk"}, SEARCH) == "failed: no disk"


KEYS = {  # of `hparams_search`: another value changes what is asked
    "n_trials": 3,
    "n_jobs": 2,
    "objectives": ["val/loss"],
    "direction": "minimize",
    "sampler._target_": "optuna.samplers.RandomSampler",
    "sampler.seed": 7,
    "pruner._target_": "optuna.pruners.MedianPruner",
    "storage": "sqlite:///other.db",
    "keep": 5,
}


def test_every_key_of_a_search_changes_what_is_asked():
    known = set()
    for path in (CONFIG_DIR / "hparams_search").glob("*.yaml"):
        flat = pd.json_normalize(yaml.safe_load(path.read_text())).columns
        known |= {"params" if key.startswith("params") else key for key in flat}
    assert known - {"defaults", "params"} == KEYS.keys()

    def requested(*typed):
        with initialize_config_dir(str(CONFIG_DIR)):
            cfg = compose("train", ["hparams_search=default", *typed])
        cfg.seed = 42
        search = OmegaConf.to_container(cfg.hparams_search, resolve=True)
        _, swept = space.split([], search["params"])
        return request_of(search, swept, "val/f1", lambda name: "max")

    plain = requested()
    for key, value in KEYS.items():
        assert requested(f"hparams_search.{key}={value}") != plain, key
