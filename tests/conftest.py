"""Tiny checkpoints and files; everything is offline, and the caches are the test session's own."""

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
from forked import Commands
from standins import article, write_jsonl

from hydralight.config.project import CONFIG_DIR
from hydralight.config.resolvers import register_resolvers

register_resolvers()
ROOT = CONFIG_DIR.parent
EXPERIMENTS = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))


@pytest.fixture(autouse=True)
def no_trace_of_ddp() -> Iterator[None]:
    """Lightning leaves a process group and its variables behind, which later runs would join."""
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
def commands() -> Iterator[Commands]:
    """Command lines in forks of a process that has imported everything, once."""
    served = Commands()
    yield served
    served.close()


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
