"""Folders of configs that are typed hold for all that a command starts, and for what it leaves."""

import json
import os
import pickle
import shlex
import sys
from pathlib import Path

import pytest
import standins
from conftest import CONFIG_DIR
from hydra import compose, initialize_config_dir
from hydra._internal import hydra as hydra_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from sweeping import swept

import hydralight
from hydralight.commands import prepare, start
from hydralight.config import project
from hydralight.config.composition import composing
from hydralight.config.search_path import taken_out, typed_again, with_search_path
from hydralight.errors import UserError
from hydralight.runs.overrides import arguments_in_run
from hydralight.runs.recorded import begun_with
from hydralight.runs.run import Run
from hydralight.sweeps.recipe import again_of, typed_for, write_recipe
from hydralight.sweeps.trial import arguments_of, read_outcome
from hydralight.trials import train_trial, typed_for_trial

RECIPE = """# @package _global_
defaults:
  - bert_mrpc
  - override /optimizer: mine
  - _self_
trainer: {max_steps: 2}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A working directory with a folder of configs that no project names."""
    for name, text in {
        "experiment/my_mrpc.yaml": RECIPE,
        "optimizer/mine.yaml": "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.01\n",
        "robot/arm.yaml": "speed: 1\n",
    }.items():
        path = tmp_path / "here/mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here/mine"


@pytest.fixture
def typed(checkpoints, quick, tmp_path):
    """What is typed for a run of the recipe on stand-ins, but for the folder."""
    own = standins.overrides_for("bert_mrpc", tmp_path / "data", checkpoints)
    quiet = ["callbacks.samples=null", "callbacks.throughput=null"]
    return ["experiment=my_mrpc", *own, *quick, *quiet, "optimized_metric=val/loss"]


def test_folders_become_one_search_path(mine, tmp_path):
    full, other = f"file://{mine}", f"file://{tmp_path / 'other'}"
    (tmp_path / "other").mkdir()
    one = [f"hydra.searchpath=['{full}']", "seed=1"]
    for written in (["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "./mine"]):
        assert with_search_path([*written, "seed=1"]) == one
        assert with_search_path(["seed=1", *written]) == one
    assert with_search_path(["--config-d=mine", "seed=1"]) == one  # as Hydra's own parser takes it
    for written in ("mine", "file://mine", f"'{full}'"):
        assert with_search_path([f"hydra.searchpath=[{written}]", "seed=1"]) == one
        both = with_search_path(["seed=1", "-cd=mine", f"hydra.searchpath=[{written}]"])
        assert sorted(both) == one
    assert with_search_path(one) == one  # further ranks come with it
    several = ["-cd", "mine", "--config-dir=../other", "hydra.searchpath=[pkg://theirs]"]
    assert with_search_path(several) == [f"hydra.searchpath=['{full}','{other}','pkg://theirs']"]
    assert with_search_path(["-m", "-c", "job", "seed=1"]) == ["-m", "-c", "job", "seed=1"]
    assert taken_out(["-cn", "x", "-c", "job"], ("--config-name", "-cn")) == (["x"], ["-c", "job"])
    assert typed_again(one) == ["--config-dir=mine"]
    assert typed_again(["seed=1"]) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config-dir=nowhere"], "--config-dir=nowhere: there is no such folder"),
        (["--config-dir"], "--config-dir needs a value"),
        (["--config-path=mine"], "--config-path would take the place of the template's configs"),
        (["--config-name=mine"], r"there is no mine\.yaml in .*experiment=…"),
        (["--cfg", "job"], "--cfg is an option of the command line"),
        (["-m", "seed=1,2"], "-m is an option of the command line"),
    ],
)
def test_what_python_refuses_of_the_command_line(arguments, sentence, mine):
    with pytest.raises(UserError, match=sentence):
        hydralight.train(arguments)


def test_python_takes_what_the_command_line_takes(mine, typed, tmp_path, monkeypatch, capsys):
    run = hydralight.train(["--config-dir=mine", *typed])
    assert run.config.optimizer._target_ == "torch.optim.SGD"
    best = {name: value for name, value in run.metrics["best"].items() if name != "step"}
    model = [f"checkpoint={run.path / 'model'}", f"hydra.run.dir={tmp_path / 'evaluated'}"]
    rest = [word for word in typed if not word.startswith("checkpoint=")]
    again = hydralight.evaluate(["-cd", "mine", *rest, *model])
    assert again == pytest.approx(best, abs=1e-6)
    row = json.dumps(standins.row_for("bert_mrpc", 3))
    (tmp_path / "rows.jsonl").write_text(row + "\n")
    words = ["--config-dir=mine", f"run={run.path}", f"input={tmp_path / 'rows.jsonl'}"]
    assert len(hydralight.predict(words)) == 1
    monkeypatch.chdir(tmp_path)  # a run has all that it is made of
    longer = hydralight.train([f"resume={run.path}", "trainer.max_steps=3"])
    assert longer.history["step"].max() == 3


def test_a_resume_keeps_what_is_typed_of_the_search_path(mine, typed, monkeypatch):
    """Beside the folder of the user's project, of which Hydra would take the first alone."""
    project = mine.with_name("project")
    project.mkdir()
    folders = [CONFIG_DIR, project]
    monkeypatch.setattr("hydralight.runs.overrides.config_dirs", lambda: folders)
    monkeypatch.setattr("hydralight.runs.overrides.experiment_of", lambda _: "my_mrpc")
    words = arguments_in_run("train", mine, [], [f"hydra.searchpath=['file://{mine}']"])
    paths = [word for word in words if word.startswith("hydra.searchpath")]
    assert paths == [f"hydra.searchpath=['file://{mine}','file://{project}']"]


def test_a_trial_composes_from_where_its_sweep_was_typed(
    mine, typed, tmp_path, monkeypatch, request
):
    """Composed and run by processes that have another working directory, as launchers have."""
    (mine.parent / "pyproject.toml").write_text('[tool.hydralight]\nwhitelist = ["mine.*"]\n')
    project.projects.cache_clear()
    request.addfinalizer(project.projects.cache_clear)
    argv = ["train.py", "-m", "--config-dir=mine", *typed, "seed=1,2", "debug=fdr"]
    name, was_typed = prepare("train", argv)
    words = [word for word in argv[1:] if word != "-m"]
    with composing(was_typed), initialize_config_dir(str(CONFIG_DIR), job_name="train"):
        loader = GlobalHydra.instance().hydra.config_loader
        assert loader.place == str(mine.parent)
        master = loader.load_configuration(name, words, hydra_module.RunMode.MULTIRUN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(project, "_looked_from", [])
    project.projects.cache_clear()  # as in a new process
    elsewhere = pickle.loads(pickle.dumps(loader))
    assert project.projects() == (project.Project(("mine.*",)),)
    task = [word for word in words if not word.startswith(("hydra.", "seed="))]
    job = elsewhere.load_sweep_config(master, [*task, "seed=1"])
    assert job.optimizer._target_ == "torch.optim.SGD"
    monkeypatch.setattr(HydraConfig.instance(), "cfg", job)
    OmegaConf.update(job, "hydra.job.num", 0, force_add=True)
    run_dir = tmp_path / "sweep/0"
    run_dir.mkdir(parents=True)
    arguments = arguments_of(job, run_dir)
    place = job.hydra.runtime.cwd
    assert place == str(mine.parent)
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setattr("sys.path", [*sys.path])
    ended = train_trial(run_dir, arguments, typed=was_typed, place=place)
    assert (ended["state"], ended.get("reason")) == ("complete", None)
    assert Path.cwd() == mine.parent
    assert f"hydra.searchpath=['file://{mine}']" in typed_for_trial(was_typed, arguments).arguments


def swept_once(folder, recipe, *words, mine):
    """Write what a sweep of one trial leaves, which was begun with a folder of configs."""
    own = folder / "0/.hydra"
    own.mkdir(parents=True)
    path = f"hydra.searchpath=['file://{mine}']"
    fixed = [f"experiment={recipe}", *words]
    (folder / "sweep.json").write_text(json.dumps([path, *fixed, "optimizer.lr=0.25,0.5"]))
    study = {"objectives": ["val/f1"], "directions": ["maximize"], "swept": ["optimizer.lr"]}
    (folder / "study.json").write_text(json.dumps(study))
    (own / "overrides.yaml").write_text(json.dumps([*fixed, "optimizer.lr=0.5"]))
    choices = {"experiment": recipe, "optimizer": "mine", "robot": "arm", "scheduler": "cosine"}
    (own / "hydra.yaml").write_text(json.dumps({"hydra": {"runtime": {"choices": choices}}}))


def test_the_recipe_of_the_best_names_an_experiment_of_ones_own(mine, tmp_path):
    """Also by `report.py`, which nobody tells where the sweep was typed."""
    folder = tmp_path / "sweep"
    words = ["+robot=arm", "robot.speed=3", "scheduler=cosine", "paths.log_dir='my logs'"]
    swept_once(folder, "my_mrpc", *words, mine=mine)
    write_recipe(folder, folder / "0")
    text = (folder / "best.yaml").read_text()
    assert text.splitlines()[1:3] == [
        f"# python train.py --config-dir=mine experiment=best {shlex.quote(words[-1])}",
        "# Trial 0 of the sweep sweep; copy this file to mine/experiment/.",
    ]
    (mine / "experiment/best.yaml").write_text(text)
    again = typed_for(folder, folder / "0")
    assert again[:2] == ["--config-dir=mine", "experiment=my_mrpc"]
    composed = []
    for typed in (shlex.split(text.splitlines()[1])[3:], again):
        argv = ["train.py", *typed]
        _, was_typed = prepare("train", argv)
        with composing(was_typed), initialize_config_dir(str(CONFIG_DIR), job_name="train"):
            composed.append(OmegaConf.to_container(compose("train", argv[1:])))
    assert composed[0] == composed[1]
    optimizer = composed[0]["optimizer"]
    assert (optimizer["_target_"], optimizer["lr"]) == ("torch.optim.SGD", 0.5)
    assert composed[0]["robot"] == {"speed": 3}
    assert (composed[0]["trainer"]["max_steps"], composed[0]["scheduler"]["name"]) == (2, "cosine")


def test_a_sweep_that_goes_on_asks_for_its_folder_again(mine, tmp_path):
    """What is read from a sweep's directory is not trusted, also not as a folder of configs."""
    folder = tmp_path / "sweep"
    swept_once(folder, "my_mrpc", mine=mine)
    assert again_of(folder) == ["--config-dir=mine"]
    with pytest.raises(UserError, match=r"only from what is typed: type --config-dir=…"):
        prepare("train", ["train.py", "-m", f"sweep={folder}"])
    argv = ["train.py", "-m", "--config-dir=mine", f"sweep={folder}"]
    _, was_typed = prepare("train", argv)
    assert argv[1:4] == ["--multirun", "experiment=my_mrpc", "optimizer.lr=0.25,0.5"]
    assert f"hydra.searchpath=['file://{mine}']" in was_typed.arguments
    assert begun_with(folder, ["hydra.searchpath=[]"]) == argv[2:4]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "more",
    [
        [],
        ["trainer=ddp_cpu"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.job.chdir=true"],
    ],
)
def test_sweeps_with_a_recipe_of_ones_own(more, mine, typed, tmp_path):
    """By the command line, with further ranks and in the processes of a launcher."""
    folder = tmp_path / "sweep"
    script = CONFIG_DIR.parent / "train.py"
    own = ["--config-dir", str(mine), *typed, f"hydra.sweep.dir={folder}", *more]
    swept([*own, "optimizer.lr=0.1,0.2", "+hparams_search.keep=1"], tmp_path, str(script))
    assert [read_outcome(folder / name)["state"] for name in "01"] == ["complete"] * 2
    said = (tmp_path / "said.log").read_text().splitlines()
    words = shlex.split(said[-1])
    alone = "trainer.devices=1"  # further ranks would be started by this process's command line
    again = Run(start("train", [*words[2:], alone]))
    best = OmegaConf.load(folder / "best/config.yaml").optimizer.lr
    assert again.config.optimizer.lr == best
    (mine / "experiment/best.yaml").write_text((folder / "best.yaml").read_text())
    line = (folder / "best.yaml").read_text().splitlines()[1]
    once_more = Run(start("train", [*shlex.split(line)[3:], alone]))
    assert once_more.metrics["best"] == again.metrics["best"]
    assert sorted(os.listdir(folder / "best/model"))
    assert [(folder / name / "model").exists() for name in "01"].count(True) == 1
