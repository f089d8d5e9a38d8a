"""The map of the library: its floors, from the ground up, and that imports only run down, type-only ones included."""

from __future__ import annotations

import ast
import functools
import pathlib
from collections.abc import Iterator

SRC = pathlib.Path(__file__).parent.parent / "src"

FLOORS = (
    ("core.values", "frozen pytrees of numbers, schedules and tables; arithmetic; trees by path"),
    ("core.engine", "what a step does: runs of links, one leaf, storage, rounding, checks. Knows links by `protocol`"),
    ("core.facade", "links, chains and their methods, and what is derived from them: order, description, files"),
    ("schedules", "schedules, one kind a module"),
    ("transforms.shared", "what families of links share: the tree as a vector, links that hold chains"),
    ("transforms", "the links, by what they are for"),
    ("chains", "the prebuilt optimizers"),
    ("sweeping plotting flax torch", "tools that use chains and schedules, and states of flax and PyTorch"),
    ("laboratory", "experiments on the order of links: what it does, and which to take"),
    ("__init__ extend command_line __main__", "the public namespaces, and the command line"),
)
"""Each imports from itself and from those above it in this table, which lie below it in the house."""


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    """The modules of the library, by name."""
    paths = {".".join(path.relative_to(SRC).with_suffix("").parts): path for path in SRC.rglob("*.py")}
    return {name.removesuffix(".__init__") or "__init__": path for name, path in paths.items()}


def imported(name: str, path: pathlib.Path, deep: bool = True) -> set[str]:
    """The modules of the library that a module imports: anywhere in it, or outside functions unless ``deep``."""
    package = name.split(".") if path.name == "__init__.py" and name != "__init__" else name.split(".")[:-1]
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), deep):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("chainax.")}
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
        elif (node.module or "").split(".")[0] == "chainax":
            base = (node.module or "").split(".")[1:]
        else:
            continue
        module = ".".join(part for part in base if part)
        known = modules()
        found |= {f"{module}.{a.name}".strip(".") for a in node.names if f"{module}.{a.name}".strip(".") in known}
        found |= {module} if module in known and known[module].name != "__init__.py" else set()
    return found


def statements(tree: ast.AST, deep: bool) -> Iterator[ast.AST]:
    """All nodes of a module; without those in functions unless ``deep``."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if deep or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from statements(node, deep)


def floor(name: str) -> int | None:
    """The floor of a module: that of the longest folder that it lies in."""
    found = [
        (len(folder), i)
        for i, (folders, _) in enumerate(FLOORS)
        for folder in folders.split()
        if f"{name}.".startswith(f"{folder}.")
    ]
    return max(found)[1] if found else None


IMPORTS = {name: imported(name, path) for name, path in modules().items()}


def test_every_module_stands_on_a_floor():
    """And every floor that the table names is there."""
    assert len(IMPORTS) > 60
    assert [name for name, path in modules().items() if floor(name) is None and path.name != "__init__.py"] == []
    folders = {folder for folders, _ in FLOORS for folder in folders.split()}
    assert {folder for folder in folders if not any(f"{name}.".startswith(f"{folder}.") for name in IMPORTS)} == set()


def test_imports_run_down():
    """From the public namespaces to the values, and never up."""
    seen = {(a, b) for a, found in IMPORTS.items() for b in found}
    assert len(seen) > 200
    assert [f"{a} imports {b}" for a, b in seen if (floor(b) or 0) > (floor(a) or 0)] == []


def test_no_modules_import_each_other_in_a_circle():
    """Within a floor neither, but for imports within functions, which run when these are called."""
    left = {name: imported(name, path, deep=False) for name, path in modules().items()}
    while leaves := [name for name, found in left.items() if not found & left.keys()]:
        for name in leaves:
            del left[name]
    assert left == {}


def test_no_module_is_long():
    """A module has one job."""
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    del lengths["chains"]  # which is flat
    assert {name: n for name, n in lengths.items() if n > 400} == {}
