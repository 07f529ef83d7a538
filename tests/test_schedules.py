"""Schedules by name, against their formulas."""

import math
from functools import partial

import pytest
import torch
from conftest import CONFIG_DIR
from omegaconf import OmegaConf
from transformers import SchedulerType

from hydralight.errors import UserError
from hydralight.optim import on_evaluation, schedule
from hydralight.optim.build import rehearse
from hydralight.optim.schedules import drawn, rates

TOTAL, WARMUP = 100, 10


def progress(step):
    return (step - WARMUP) / (TOTAL - WARMUP)


def half_cosine(part):
    return 0.5 * (1 + math.cos(math.pi * part))


AFTER_WARM_UP = {  # what each of the configs makes of a step that is behind warm-up
    "constant": lambda step: 1.0,
    "linear": lambda step: 1 - progress(step),
    "cosine": lambda step: half_cosine(progress(step)),
    "cosine_with_restarts": lambda step: half_cosine(4 * progress(step) % 1),
    "polynomial": lambda step: (1 - progress(step)) ** 2,
    "inverse_sqrt": lambda step: math.sqrt(WARMUP / step),
    "cosine_with_min_lr": lambda step: 0.1 + 0.9 * half_cosine(progress(step)),
    "cosine_warmup_with_min_lr": lambda step: 0.1 + 0.9 * half_cosine(progress(step + 1)),
    "warmup_stable_decay": lambda step: 1.0 if step < 80 else 1 - math.sqrt((step - 80) / 20),
}
BY_EVALUATION = {"reduce_on_plateau": "reduce_lr_on_plateau", "greedy": "greedy"}


def recipe(config, **more):
    node = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "scheduler" / f"{config}.yaml"))
    values = {key: value for key, value in node.items() if not key.startswith("_")}
    return partial(schedule, **{**values, **more})


@pytest.mark.parametrize("config", AFTER_WARM_UP)
def test_a_schedule_is_what_its_formula_says(config):
    found = rates(recipe(config, warmup_steps=WARMUP), 0.5, TOTAL, range(TOTAL))
    expected = [0.5 * AFTER_WARM_UP[config](step) for step in range(WARMUP, TOTAL)]
    assert found[WARMUP:] == pytest.approx(expected)
    first = 0.1 if config == "cosine_warmup_with_min_lr" else 0.0
    length = WARMUP - 1 if first else WARMUP
    warm = [0.5 * (first + (1 - first) * step / length) for step in range(WARMUP)]
    assert found[:WARMUP] == pytest.approx(warm)


def test_each_schedule_of_transformers_has_a_config():
    """`constant` is `constant_with_warmup` without any."""
    files = (CONFIG_DIR / "scheduler").glob("*.yaml")
    assert {path.stem for path in files} == {*AFTER_WARM_UP, *BY_EVALUATION}
    names = {OmegaConf.load(CONFIG_DIR / "scheduler" / f"{one}.yaml").name for one in AFTER_WARM_UP}
    assert {*names, *BY_EVALUATION.values(), "constant"} == {one.value for one in SchedulerType}


def test_lengths_are_steps_parts_of_the_run_or_tokens():
    ways = [
        {"warmup_steps": 10, "decay_steps": 20},
        {"warmup_ratio": 0.1, "decay_ratio": 0.2},
        {"warmup_tokens": 991, "decay_tokens": 2000, "tokens_per_step": 100.0},
    ]
    stable = [rates(recipe("warmup_stable_decay", **way), 1.0, 100, range(100)) for way in ways]
    assert stable[0] == stable[1] == stable[2]
    assert stable[0][10:81] == [1.0] * 71
    assert stable[0][81] < 1
    cut = rates(recipe("warmup_stable_decay", warmup_steps=4, decay_steps=50), 1.0, 8, range(8))
    assert cut[:5] == [0, 0.25, 0.5, 0.75, 1.0]
    assert cut[7] == pytest.approx(1 - math.sqrt(3 / 4))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "give warmup_steps or warmup_ratio, not both"),
        ({"decay_ratio": 0.3, "decay_tokens": 9}, "give decay_ratio or decay_tokens, not both"),
        ({"warmup_tokens": 3}, "warmup_tokens: the examples of this data have no tokens"),
        ({"name": "linear", "decay_steps": 3}, "only warmup_stable_decay has a decay of its own"),
        ({"name": "greedy"}, "greedy goes by evaluations: choose scheduler=greedy"),
        ({"name": "reduce_lr_on_plateau"}, "choose scheduler=reduce_on_plateau"),
        ({"options": {"decay_typ": 3}}, "no such option, and has .*; did you mean 'decay_type'"),
        (
            {"name": "linear", "options": {"power": 3}},
            "power: linear has no such option, and has",
        ),
        ({"options": {"decay_type": "steep"}}, "Unknown decay type"),
        ({"name": "linnear"}, "linnear"),
    ],
)
def test_what_a_schedule_does_not_take_is_told(values, sentence):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UserError, match=sentence):
        schedule(optimizer, 10, **{"name": "warmup_stable_decay", **values})


def test_schedules_by_evaluations_are_rehearsed_without_one():
    asked = {"name": "reduce_lr_on_plateau", "monitor": "val/loss", "mode": "min"}
    rehearse(partial(torch.optim.SGD, lr=1.0), partial(on_evaluation, **asked))
    with pytest.raises(UserError, match="patienc: reduce_lr_on_plateau has no such option"):
        rehearse(
            partial(torch.optim.SGD, lr=1.0),
            partial(on_evaluation, **asked, options={"patienc": 3}),
        )


def test_a_schedule_is_drawn():
    curve, marks = drawn(recipe("linear", warmup_steps=5), 1e-3, 20).split("\n")
    assert curve == " ▂▄▅▇██▇▇▆▆▅▅▄▄▃▃▂▂▁"
    assert marks == "0 at step 1, 0.001 at step 6, 0.00067 at step 11, 6.7e-05 at step 20"
    stepped = partial(lambda optimizer, total: torch.optim.lr_scheduler.StepLR(optimizer, 4))
    assert drawn(stepped, 1.0, 8).split("\n")[0] == "████▁▁▁▁"
    flat = drawn(recipe("constant"), 2e-5, 1000).split("\n")
    assert flat[0] == "█" * 48
