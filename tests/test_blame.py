"""Whose mistake an exception is: a key's of the config, the user's own code's, or ours."""

import importlib.metadata
import sys
import traceback
from types import SimpleNamespace

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

import hydralight.optim.groups
from hydralight.cli import exit_with
from hydralight.config.blame import is_ours, needed
from hydralight.config.explain import explain

STOPPING = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/loss"}
CFG = OmegaConf.create({"callbacks": {"stop": STOPPING}})


def raised(function, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*arguments)
    return caught.value


def test_a_library_that_refuses_is_named_by_its_key():
    from lightning.pytorch.callbacks import EarlyStopping

    error = raised(EarlyStopping(monitor="val/loss")._validate_condition_metric, None)
    assert explain(error, CFG).startswith("callbacks.stop: ")
    assert explain(error, OmegaConf.create()) is None  # nothing named it


def test_what_a_library_has_called_is_not_its_own():
    from lightning.pytorch.callbacks import EarlyStopping

    logs = SimpleNamespace(
        get=hydralight.optim.groups.parameter_groups
    )  # a bug of ours, beneath theirs
    error = raised(EarlyStopping(monitor="val/loss")._validate_condition_metric, logs)
    assert "_validate_condition_metric" in {
        f.name for f in traceback.extract_tb(error.__traceback__)
    }
    assert explain(error, CFG) is None


def test_our_own_bug_keeps_its_traceback_and_says_where_to_report_it(capsys):
    error = raised(hydralight.optim.groups.parameter_groups, None)  # an AttributeError of ours
    assert is_ours(error)
    assert explain(error, CFG) is None
    with pytest.raises(AttributeError) as caught:
        exit_with(error, False)
    (note,) = caught.value.__notes__
    urls = importlib.metadata.metadata("hydralight").get_all("Project-URL")
    assert note.startswith("This is a bug of Hydralight")
    assert any(url.split(", ")[1] in note for url in urls)


def test_code_of_the_users_own_is_not_our_bug(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("import json\ndef broken():\n    json.loads('{')\n")
    monkeypatch.syspath_prepend(tmp_path)
    import theirs

    error = raised(theirs.broken)  # raised in a library that theirs called
    assert explain(error, CFG) is None
    assert not is_ours(error)
    del sys.modules["theirs"]


def test_a_package_that_is_not_there_is_named_with_its_extra():
    missing = "The 'wandb>=0.12.10' distribution was not found and is required by the application."
    assert needed(ModuleNotFoundError(missing)) == "'hydralight[wandb]'"
    assert needed(ModuleNotFoundError("No module named 'mlflow.x'", name="mlflow.x")) == "mlflow"
    assert needed(ValueError("pip install x")) is None


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")],
)
def test_too_little_memory_says_what_takes_less(error):
    assert "lower data.batch_size" in explain(error)


def test_the_gpus_own_error_too():
    import torch

    assert "lower data.batch_size" in explain(torch.OutOfMemoryError("CUDA out of memory."))


def test_the_metadata_says_where_issues_are():
    assert "\nIssues = " in (ROOT / "pyproject.toml").read_text()
