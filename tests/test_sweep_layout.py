"""What the sweeps import: nothing of what stands above them or beside them, and in no circle."""

import ast
from graphlib import TopologicalSorter

from hydralight.config.project import PACKAGE

BELOW = {"errors", "config", "runs", "metrics", "optim", "models", "adapters", "tokenizers"}


def imports_of(path):
    """Yield the dotted names of ours that a file imports anywhere, as also a function's imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1:] for name in names if name.split(".")[0] == "hydralight")


def files():
    found = sorted((PACKAGE / "sweeps").glob("**/*.py"))
    assert len(found) > 10
    return found


def test_nothing_in_sweeps_imports_what_is_above_or_beside():
    for path in files():
        upwards = [".".join(name) for name in imports_of(path) if name[0] not in {*BELOW, "sweeps"}]
        assert not upwards, f"{path.name} imports {upwards}"


def test_sweeps_import_one_another_in_no_circle():
    modules = {path.stem for path in files()}
    graph = {
        path.stem: {name[1] for name in imports_of(path) if name[0] == "sweeps"} & modules
        for path in files()
    }
    assert any(graph.values())
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_a_file_of_sweeps_is_read_in_one_go():
    sizes = {path.name: len(path.read_text().splitlines()) for path in files()}
    assert {name: size for name, size in sizes.items() if size > 200} == {}
