"""What a sweep searches: Hydra's sweep syntax as distributions, and grids."""

from itertools import product

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from transformers.trainer_utils import default_hp_space_optuna

from hydralight.config.project import CONFIG_DIR
from hydralight.errors import UserError
from hydralight.sweeps import space


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
