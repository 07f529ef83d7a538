"""Which arguments something takes, read from its source: nothing is imported, which takes seconds.

A typed key is looked up here while a config is composed. What the source does not say is None, and
is checked once the libraries are there (`config/check.py`).
"""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FARTHEST = 8  # modules that a name is followed through


@cache
def arguments_of(target: str) -> tuple[frozenset[str], bool] | None:
    """Return the names of the arguments that a class or function takes, and whether it takes any.

    Args:
        target: Its dotted path, such as `lightning.pytorch.Trainer`.

    Returns:
        Names that are taken out of `**kwargs` by `kwargs.pop("name")` count as arguments; then no
        others are taken. None where the source does not tell.
    """
    found = _found(target, FARTHEST)
    return None if found is None else _taken(*found, FARTHEST)


def _found(target: str, left: int) -> tuple[ast.AST, str] | None:
    """Return what a dotted path names, and the module that it is in."""
    module, name = target, ""
    while _file(module) is None:
        module, dot, last = module.rpartition(".")
        if not dot or name:  # of an attribute of an attribute
            return None
        name = last
    if not name or not left:
        return None
    for node in _statements(_tree(module)):
        named = isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
        if named:
            return node, module
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _found(f"{_source(node, module)}.{alias.name}", left - 1)
    return None


@cache
def _file(module: str) -> Path | None:
    """Return the file of a module; a parent that is a package is not imported for it."""
    package, *parts = module.split(".")
    if not all(part.isidentifier() for part in (package, *parts)):
        return None
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.origin).parent.joinpath(*parts)
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements of a module, also those under a condition."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If | ast.Try):
            yield from _statements(child)
        else:
            yield child


def _source(node: ast.ImportFrom, module: str) -> str:
    """Return the module that a statement imports from."""
    file = _file(module)
    above = node.level - (file is not None and file.name == "__init__.py")
    parents = module.split(".")[: len(module.split(".")) - above] if node.level else []
    return ".".join([*parents, *([node.module] if node.module else [])])


def _taken(node: ast.AST, module: str, left: int) -> tuple[frozenset[str], bool] | None:
    if isinstance(node, ast.FunctionDef):
        return _of_function(node)
    if not isinstance(node, ast.ClassDef) or not left:
        return None
    makers = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
    for name in ("__init__", "__new__"):
        if name in makers:
            return _of_function(makers[name])
    bases = [_of_base(base, module, left) for base in node.bases]
    if any("dataclass" in ast.unparse(one) for one in node.decorator_list):
        fields = {
            inner.target.id
            for inner in node.body
            if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name)
            if "ClassVar" not in ast.unparse(inner.annotation)
            if inner.value is None or "init=False" not in ast.unparse(inner.value)
        }
        if None in bases:
            return None
        return frozenset(fields.union(*(base[0] for base in bases if base))), False
    return next((base for base in bases if base is not None), None)


def _of_base(base: ast.expr, module: str, left: int) -> tuple[frozenset[str], bool] | None:
    if ast.unparse(base).partition("[")[0] in ("ABC", "Generic", "Protocol", "object"):
        return frozenset(), False
    found = _found(f"{module}.{ast.unparse(base)}", left - 1)
    return None if found is None else _taken(*found, left - 1)


def _of_function(node: ast.FunctionDef) -> tuple[frozenset[str], bool]:
    arguments = node.args
    names = {one.arg for one in [*arguments.args, *arguments.kwonlyargs]} - {"self", "cls"}
    popped = set()
    if arguments.kwarg is not None:
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                taken = ast.unparse(call.func) == f"{arguments.kwarg.arg}.pop"
                popped |= {ast.literal_eval(call.args[0])} if taken else set()
    return frozenset(names | popped), arguments.kwarg is not None and not popped
