"""A project of one's own, in a directory of its own, and what its pyproject.toml may say."""

import json
import shutil
import subprocess
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from conftest import CONFIG_DIR, ROOT
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf

import hydralight as hydralight_package
from hydralight.config import project
from hydralight.config.whitelist import allowed
from hydralight.dealing import own_source
from hydralight.errors import UserError
from hydralight.runs.overrides import with_groups_off, with_own_configs
from hydralight.runs.run import Run

HYDRALIGHT = Path(sys.executable).with_name("hydralight")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that writes a pyproject.toml, and reads the projects from a folder below it."""
    (tmp_path / "below").mkdir()
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setattr(sys, "path", [*sys.path])

    def read(content):
        (tmp_path / "pyproject.toml").write_text(content)
        project.projects.cache_clear()
        return project.projects()

    yield read
    project.projects.cache_clear()


def hydralight(*arguments, cwd):
    done = subprocess.run(
        [HYDRALIGHT, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_trains_evaluates_and_predicts(tmp_path):
    """By the command alone, in a copy of the folder, with the checkout's configs beside its own."""
    folder = shutil.copytree(ROOT / "examples" / "own_project", tmp_path / "own")
    hydralight("train", "experiment=ratings", "callbacks.samples=null", cwd=folder)
    (path,) = (folder / "logs/train/runs").iterdir()
    run = Run(path)
    assert run.metrics["best"]["val/mae"] < 0.3  # always three stars: 1.2
    assert "pytorch_optimizer.Lion" in (path / "config.yaml").read_text()
    printed = json.loads(hydralight("eval", "run=latest", cwd=folder))
    best = {name: value for name, value in run.metrics["best"].items() if name != "step"}
    assert printed == pytest.approx(best, abs=1e-6)
    for words, rating in (("lovely warm careful brilliant", 5), ("dull cold stale noisy", 1)):
        row = json.loads(hydralight("predict", "run=latest", f"input={words}", cwd=folder))
        assert (row["text"], row["rating"]) == (words, rating)


def test_a_project_is_found_above_the_working_directory(own, tmp_path):
    (found, *_) = own('[tool.hydralight]\nwhitelist = ["mine.*"]\nconfigs = "configs"\n')
    assert found == project.Project(("mine.*",), tmp_path / "configs")
    assert allowed("mine.losses.hinge")
    assert not allowed("yours.losses.hinge")
    assert sys.path[-1] == str(tmp_path)
    assert project.config_dirs() == [CONFIG_DIR, tmp_path / "configs"]
    added = with_own_configs(["seed=1"])
    assert added == [f"hydra.searchpath=['file://{tmp_path / 'configs'}']", "seed=1"]
    assert with_own_configs(added) == added
    typed = with_own_configs(["hydra.searchpath=[pkg://other]"])
    assert typed == [f"hydra.searchpath=['pkg://other','file://{tmp_path / 'configs'}']"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[tool.hydralight]\nwhitelst = []", "has no 'whitelst'; did you mean 'whitelist'"),
        ('[tool.hydralight]\nwhitelist = "mine.*"', "is a list of dotted names"),
        ('[tool.hydralight]\nwhitelist = ["*"]', "begins with a package"),
        ('[tool.hydralight]\nconfigs = "nowhere"', "is no folder"),
        ("[tool", "cannot be read"),
        ("[tool]\nhydralight = 3", "should be a table"),
    ],
)
def test_what_a_project_says_wrongly(own, content, sentence):
    with pytest.raises(UserError, match=sentence):
        own(content)


def test_an_installed_package_is_found_by_its_entry_point(own, tmp_path, monkeypatch):
    """It is not imported for that: an import would take the time that `--help` has."""
    package = tmp_path / "installed_one"
    (package / "configs").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("installed_one", "installed_one", "hydralight")
    monkeypatch.setattr(project, "entry_points", lambda group: [entry])
    assert own("") == (project.Project(("installed_one.*",), package / "configs"),)
    assert allowed("installed_one.tasks.Task")


def test_a_group_is_switched_off_by_null():
    typed = ["logger=null", "data.path=null", "hparams_search=null", "callbacks=none", "-m"]
    assert with_groups_off(typed) == ["~logger", "data.path=null", "callbacks=none", "-m"]


@pytest.mark.parametrize("group", ["logger", "callbacks", "scheduler", "generation"])
def test_a_run_goes_without_a_group(group, bart_cnn):
    """Also where the recipe has values of its own for it."""
    typed = [o for o in bart_cnn if not o.startswith(f"{group}.")]
    run = hydralight_package.train([*typed, f"{group}=null", "trainer.max_epochs=1"])
    assert (run.path / "metrics.csv").exists() == (group != "logger")
    assert (run.path / "checkpoints").exists() == (group != "callbacks")
    with pytest.raises(UserError, match="optimizer is switched off"):
        hydralight_package.train([*typed, "optimizer=null"])


def test_a_run_is_gone_on_with_and_evaluated_without_a_group(bart_cnn):
    """Its own config has no groups any more; what keeps its table cannot be left out on the way."""
    run = hydralight_package.train([*bart_cnn, "trainer.max_epochs=1"])
    for off in ("logger=null", "callbacks=null", "scheduler=null", "~logger"):
        assert hydralight_package.evaluate([f"run={run.path}", off])["val/loss"] > 0
    more = [f"resume={run.path}", "trainer.max_epochs=2"]
    with pytest.raises(UserError, match=r"the run keeps metrics\.csv, and no logger does now"):
        hydralight_package.train([*more, "logger=null"])
    off = ["callbacks.record=null", "debug=null"]
    assert hydralight_package.train([*more, *off]).history["epoch"].max() == 1


def test_a_config_with_a_name_of_the_templates_is_refused(own, tmp_path):
    (tmp_path / "configs/scheduler").mkdir()
    (tmp_path / "configs/scheduler/linear.yaml").write_text("name: mine")
    own('[tool.hydralight]\nwhitelist = []\nconfigs = "configs"\n')
    with pytest.raises(UserError, match=r"scheduler/linear\.yaml has the name of a config of"):
        with_own_configs([])


# ---------------------------------------------------------------- a source of one's own


class Poems:
    """A source with a state: built once, called for its splits."""

    def __init__(self, lines=1):
        self.lines = lines

    def __call__(self):
        return {"train": [{"text": "x"}] * self.lines}


def poems(lines=1, split_seed=0):
    return {"train": [{"text": str(split_seed)}] * lines}


@pytest.mark.parametrize(
    ("node", "keys", "expected"),
    [
        ("mine.poems", {}, [{"text": "0"}]),
        ("mine.poems", {"lines": 2, "split_seed": 7, "batch_size": 3}, [{"text": "7"}] * 2),
        ({"_target_": "mine.poems", "lines": 2}, {"lines": 3}, [{"text": "0"}] * 2),
        ("mine.Poems", {"lines": 3}, [{"text": "x"}] * 3),
    ],
)
def test_a_source_takes_its_own_keys(node, keys, expected, monkeypatch):
    module = types.ModuleType("mine")
    module.poems, module.Poems = poems, Poems
    monkeypatch.setitem(sys.modules, "mine", module)
    node = node if isinstance(node, str) else OmegaConf.create(node)
    with execution_whitelist(("mine.*", f"{__name__}.*")):
        assert own_source(node, keys)()["train"] == expected


def test_a_source_that_lacks_an_argument_is_told_before_it_is_called(monkeypatch):
    module = types.ModuleType("mine")
    module.lines = lambda number, path=None: {}
    monkeypatch.setitem(sys.modules, "mine", module)
    with pytest.raises(UserError, match=r"needs 'number': give data\.number=…"):
        own_source("mine.lines", {"path": "x"})
