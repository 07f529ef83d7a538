"""Every recipe runs, and every config names arguments that exist."""

import copy
import json

import pytest
from conftest import CONFIG_DIR, EXPERIMENTS
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import hydralight
from hydralight.commands import start
from hydralight.config.check import check_targets
from hydralight.config.whitelist import WHITELIST, allowed
from hydralight.errors import UserError
from hydralight.runs.as_json import unspelled
from hydralight.sweeps.space import distribution, split


@pytest.fixture(autouse=True)
def _hydra_of_its_own():
    """What `composed` sets is of this file's tests alone."""
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


def composed(overrides, name="train"):
    with initialize_config_dir(str(CONFIG_DIR)):
        cfg = compose(name, overrides, return_hydra_config=True)
    OmegaConf.set_readonly(cfg.hydra, False)
    cfg.hydra.runtime.output_dir = "out"
    HydraConfig.instance().set_config(cfg)  # for ${hydra:…}
    cfg = copy.deepcopy(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    return cfg


def choices(group):
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_fast_dev_run(experiment, recipe, tmp_path):
    """One batch of each stage, on tiny stand-ins with the columns of the recipe's own data."""
    assert hydralight.train([*recipe(experiment), "debug=fdr"]) is None
    logs = tmp_path / "logs"
    assert not [path for path in logs.rglob("*") if path.is_file()]


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if e != "quickstart"])
def test_evaluation_reproduces_the_best(experiment, recipe, capsys):
    """A run of two batches, evaluated again by its exported model, which predicts each row."""
    short = [
        "trainer.max_epochs=1",
        "+trainer.limit_train_batches=2",
        "+trainer.limit_val_batches=1",
    ]
    if experiment == "distilgpt2_sonnets":
        short.append("trainer.val_check_interval=1")
    run = hydralight.train([*recipe(experiment), *short])
    best = {name: value for name, value in run.metrics["best"].items() if name != "step"}
    assert len(best) > 1
    capsys.readouterr()
    start("eval", [f"run={run.path}"])
    again = unspelled(json.loads(capsys.readouterr().out))
    # a correlation of nearly equal predictions magnifies their rounding
    tolerance = 1e-3 if experiment == "bert_stsb" else 1e-6
    assert again == pytest.approx(best, rel=tolerance, abs=1e-6, nan_ok=True)
    rows = [row["row"] for row in run.predictions("validation")]
    assert rows == sorted(rows)
    assert rows


GROUPS = ["task", "model", "adapter", "tokenizer", "generation", "data", "optimizer", "scheduler"]
GROUPS += ["trainer", "callbacks", "logger", "debug", "hparams_search"]


@pytest.mark.parametrize(("group", "choice"), [(g, c) for g in GROUPS for c in choices(g)])
def test_targets_take_their_arguments(group, choice):
    cfg = composed(["~experiment", f"{group}={choice}"])
    cfg.precision = "32-true"
    if choice == "push":
        cfg.callbacks.push.repo = "me/model"
    if choice.endswith("scratch"):
        cfg.model.config = {"model_type": "bart"}
    if choice.endswith("classification") and group == "task":
        cfg.data.problem_type = "regression"
        del cfg.data._target_
    check_targets(cfg)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("script", ["train", "eval", "predict"])
def test_recipes_compose_in_every_script(script, experiment):
    cfg = composed([f"experiment={experiment}"], script)
    cfg.precision = "32-true"
    check_targets(cfg)


def test_recipes_hold_the_command_that_runs_them():
    for experiment in set(EXPERIMENTS) - {"quickstart"}:
        header = (CONFIG_DIR / "experiment" / f"{experiment}.yaml").read_text()
        assert f"python train.py experiment={experiment}" in header


@pytest.mark.parametrize("search", choices("hparams_search"))
def test_searches_name_what_there_is(search):
    experiment = search if search in EXPERIMENTS else "bert_mrpc"
    cfg = composed([f"experiment={experiment}", f"hparams_search={search}"])
    _, swept = split([], cfg.hparams_search.get("params") or {})
    for override in swept:
        group, _, key = override.get_key_element().rpartition(".")
        assert key in (OmegaConf.select(cfg, group) if group else cfg)
        assert distribution(override)
    header = (CONFIG_DIR / "hparams_search" / f"{search}.yaml").read_text()
    assert f"hparams_search={search}" in header or search == "base"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ({"data": {"batchsize": 4}}, "no argument 'batchsize'; did you mean 'batch_size'?"),
        ({"data": {"batch_size": "four"}}, "data.batch_size=four should be int."),
        ({"data": {"too_long": "cut"}}, "data.too_long=cut should be truncate or drop or refuse."),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr=fast should be float"),
        ({"trainer": {"max_epoch": 1}}, "did you mean 'max_epochs'?"),
        ({"callbacks": {"samples": {"num_sample": 1}}}, "did you mean 'num_samples'?"),
        ({"task": {"_target_": "os.system"}}, "is not on the whitelist"),
    ],
)
def test_arguments_are_checked(override, sentence):
    cfg = OmegaConf.merge(composed([]), {"precision": "32-true"}, override)
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        check_targets(cfg)


def test_whitelist_is_narrow():
    assert allowed("torch.optim.AdamW")
    for target in ("os.system", "torch.load", "builtins.eval", "transformers.pipeline"):
        assert not allowed(target)
    assert not any(entry in ("torch.*", "hydralight.*", "lightning.*") for entry in WHITELIST)


def test_bart_cnn_is_the_recipe():
    cfg = composed(["experiment=bart_cnn"])
    assert cfg.checkpoint == "facebook/bart-large-cnn"
    assert cfg.data.path == "abisee/cnn_dailymail"
    assert cfg.data.splits.train == "train[:1%]"
    assert (cfg.data.max_source_length, cfg.data.max_target_length) == (1024, 128)
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (2e-5, 0.01)
    assert (cfg.data.batch_size, cfg.trainer.max_epochs) == (4, 4)
    assert cfg.callbacks.last_checkpoint.save_total_limit == 3
