"""Imports run one way, in no circle, and files are short enough to be read in one go."""

import ast
import statistics
from functools import cache
from graphlib import TopologicalSorter
from typing import get_type_hints

import pytest

from hydralight.config.check import PARTS
from hydralight.config.project import PACKAGE
from hydralight.data.module import DataModule

GROUND = {"config", "runs", "metrics", "optim", "models", "tokenizers", "processors"}
GROUND |= {"model_configs", "loggers", "curves", "hub", "progress", "shell", "cached"}
GROUND |= {"adapters", "adapter_files", "quantization", "quantized_base", "adalora", "stores"}
GROUND |= {"packed", "disk", "nodes", "sharding", "shards", "model_files", "devices"}
GROUND |= {"sharded_adapters", "uploads"}
PART = {"data", "tasks", "callbacks", "sweeps"}
COMMANDS = {"building", "dealing", "training", "evaluation", "prediction", "preflight"}
COMMANDS |= {"preparation", "publishing", "summary", "harness"}
ENTRY = {"commands", "cli", "help", "completion", "trials", "preloaded", "manners", "notebook"}
ENTRY |= {"from_trainer"}
MAY_IMPORT = {"errors": set()}
MAY_IMPORT |= {ground: {"errors", *GROUND} for ground in GROUND}
MAY_IMPORT |= {part: {"errors", *GROUND, part} for part in PART}
MAY_IMPORT |= {one: {"errors", *GROUND, *PART, *COMMANDS} for one in COMMANDS}
MAY_IMPORT |= {one: {"errors", *GROUND, *PART, *COMMANDS, *ENTRY} for one in ENTRY}


def name_of(path):
    """The dotted name of a module of ours, without the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports_of(module):
    """The modules of ours that a file imports anywhere, as also in its functions; not for types."""
    tree = ast.parse(FILES[module].read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in set(ast.walk(tree)) - for_types:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            own = name.removeprefix("hydralight.")
            if own != name:
                found.add(own if own in FILES else own.rpartition(".")[0] or own)
    return found - {module}


@pytest.mark.parametrize("module", [name for name in FILES if name != "__init__"])
def test_imports_run_one_way(module):
    """Data, tasks, callbacks and sweeps stand side by side: none imports another."""
    layers = {name.partition(".")[0] for name in imports_of(module)}
    assert layers <= MAY_IMPORT[module.partition(".")[0]]


def test_imports_run_in_no_circle():
    graph = {module: imports_of(module) & FILES.keys() for module in FILES}
    assert sum(map(len, graph.values())) > 300
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_data_has_five_floors():
    @cache
    def floor(module):
        return 1 + max((floor(n) for n in imports_of(module) if n.startswith("data.")), default=0)

    assert max(floor(module) for module in FILES if module.startswith("data.")) == 5


def test_a_file_is_read_in_one_go():
    sizes = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert max(sizes.values()) <= 350
    assert statistics.median(size for size in sizes.values() if size) < 120
    assert max(size for name, size in sizes.items() if name.startswith("sweeps.")) <= 200


def test_the_parts_of_data_are_those_of_the_data_module():
    """What `building` deals out, and what the check of a config accepts."""
    hints = get_type_hints(DataModule.__init__)
    names = ("source", "splits", "mix", "encoding", "batching", "corpus")
    kinds = [getattr(hints[name], "__args__", (hints[name],))[0] for name in names]
    assert [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds] == list(PARTS["data"])
