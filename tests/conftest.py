"""Tiny checkpoints and files; everything is offline, and the caches are the test session's own."""

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hydralight-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import standins
from forked import Commands, served
from kept_configs import keep_configs
from standins import article, write_jsonl

from hydralight.config import project
from hydralight.config.project import CONFIG_DIR
from hydralight.config.resolvers import register_resolvers

register_resolvers()
keep_configs()
ROOT = CONFIG_DIR.parent
# How many cases of a test each run has, spread evenly; `make thorough` has the others.
SOME = {
    "test_bad_input.py::test_any_text_is_an_input": 2,
    "test_bad_input.py::test_rows": 7,
    "test_bad_input.py::test_settings": 13,
    "test_bad_input.py::test_texts_are_not_lists": 4,
    "test_callbacks.py::test_asked_to_go": 4,
    "test_contracts.py::test_resumed_run_is_the_uninterrupted_one": 2,
    "test_ddp.py::test_two_processes_evaluate_what_one_does": 0,
    "test_experiments.py::test_evaluation_reproduces_the_best": 5,
    "test_failures.py::test_data_and_checkpoint": 7,
    "test_failures.py::test_no_network": 0,
    "test_features.py::test_resumed_run_is_the_uninterrupted_one": 1,
    "test_features.py::test_training_is_compiled_for_few_shapes": 0,
    "test_invariance.py::test_micro_batches": 2,
    "test_learning.py": 2,
    "test_experiments.py::test_recipes_compose_in_every_script": 28,
    "test_mistakes.py::test_mistake": 40,
    "test_preference_parity.py": 6,
    "test_own_project.py::test_the_example_trains_evaluates_and_predicts": 0,
    "test_nodes.py::test_a_process_that_differs_stops_all": 3,
    "test_nodes.py::test_what_is_one_process_is_told": 1,
    "test_parity.py::test_parity_with_trainer": 3,
    "test_propose.py::test_the_line_is_pasted": 3,
    "test_run_directories.py::test_a_resume_as_another_training_is_refused": 6,
    "test_steps.py::test_a_number_out_of_its_range_is_refused_before_data_is_read": 4,
    "test_steps.py::test_an_evaluation_that_was_killed_is_done_again": 1,
    "test_steps.py::test_an_export_at_the_end_that_was_killed": 1,
    "test_steps.py::test_an_extended_run_is_one_that_was_as_long_at_once": 2,
    "test_sweeper.py::test_a_search_goes_on_to_the_same_total": 1,
    "test_tasks.py::test_columns_of_predictions": 3,
    "test_tasks.py::test_nothing_is_made_of_weights_that_a_step_has_spoilt": 2,
    "test_trajectories.py::test_losses_are_those_recorded": 3,
    "test_translation.py::test_language_codes": 1,
    "test_trust.py::test_our_own_recipes_ask_for_no_trust_and_hold_no_secret": 5,
    "test_trust.py::test_what_resumes_have_changed": 7,
}
EXPERIMENTS = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cases that `SOME` leaves out of each run."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("thorough") is None:
            name = f"{item.path.name}::{item.name.partition('[')[0]}"
            key = next((key for key in (name, item.path.name) if key in SOME), None)
            cases.setdefault(key or "", []).append(item)
    for key in SOME.keys() & cases.keys():
        number, total = SOME[key], len(cases[key])
        for index, item in enumerate(cases[key]):
            if index * number // total == (index - 1) * number // total:
                item.add_marker(pytest.mark.thorough)


@pytest.fixture(autouse=True, scope="module")
def little_garbage() -> None:
    """What is there by now, as all of the libraries are, is not looked through for garbage."""
    gc.freeze()


@pytest.fixture(autouse=True)
def no_trace_of_ddp() -> Iterator[None]:
    """Lightning leaves a process group and its variables behind, which later runs would join."""
    os.environ.pop("HYDRALIGHT_ALONE", None)  # of a run that a fixture of the session has made
    before = dict(os.environ)
    yield
    if "torch" in sys.modules:
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def few_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no curves, which is a quarter of a short one, unless a test is marked `draws`."""
    if request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr("hydralight.curves.panels_of", lambda table: {})


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from an architecture to the folder of a tiny random checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def made(model_type: str) -> Path:
        return standins.checkpoint(model_type, folder / f"tiny-{model_type}")

    return made


@pytest.fixture(scope="session")
def commands() -> Commands:
    """Command lines in forks of a process that has imported everything, once."""
    return served()


@pytest.fixture(scope="session")
def tiny_bart(checkpoints: Callable[[str], Path]) -> Path:
    """A random BART of 30 thousand parameters with a tokenizer of its own, as an HF folder."""
    return checkpoints("bart")


@pytest.fixture(scope="session")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train (13 rows), validation (7) and test (4) as JSON lines."""
    folder = tmp_path_factory.mktemp("articles")
    for split, start, stop in [("train", 0, 13), ("validation", 20, 27), ("test", 40, 44)]:
        write_jsonl(folder / f"{split}.jsonl", [article(i) for i in range(start, stop)])
    return folder


@pytest.fixture
def quick(tmp_path: Path) -> list[str]:
    """Overrides for a short run on the CPU, below `tmp_path`."""
    return [
        f"paths.log_dir={tmp_path / 'logs'}",
        "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=1",
        "callbacks.rich_progress=null",
    ]


@pytest.fixture
def recipe(
    checkpoints: Callable[[str], Path], quick: list[str], tmp_path: Path
) -> Callable[[str], list[str]]:
    """A function from a recipe's name to overrides that run it on stand-ins."""

    def overrides(experiment: str) -> list[str]:
        own = standins.overrides_for(experiment, tmp_path / "data", checkpoints)
        return [f"experiment={experiment}", *own, *quick]

    return overrides


@pytest.fixture
def bart_cnn(tiny_bart: Path, articles: Path, quick: list[str]) -> list[str]:
    """Overrides that run `bart_cnn` on the tiny checkpoint and files, below `tmp_path`."""
    files = ",".join(f"{s}:{articles / s}.jsonl" for s in ("train", "validation", "test"))
    return [
        "experiment=bart_cnn",
        f"checkpoint={tiny_bart}",
        f"data.path={{{files}}}",
        "data.max_source_length=128",
        "generation.max_new_tokens=12",
        *quick,
    ]


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let configs name the functions of `judges.py`, as a project's pyproject.toml does."""
    (tmp_path / "pyproject.toml").write_text('[tool.hydralight]\nwhitelist = ["judges.*"]\n')
    monkeypatch.chdir(tmp_path)
    project.projects.cache_clear()
    yield
    project.projects.cache_clear()
