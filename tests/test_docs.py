"""The documentation: its code runs, its error messages are what one gets, and its names exist."""

import ast
import builtins
import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import orbax.checkpoint
import pytest
from test_architecture import FLOORS

ROOT = Path(__file__).parent.parent
PAGES = {
    page: (ROOT / page).read_text(encoding="utf-8")
    for page in (
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/checkpoints.md",
        "docs/extending.md",
        "docs/logging.md",
        "docs/parameter_groups.md",
        "docs/training_loops.md",
    )
}
HEAD, *SECTIONS = PAGES["docs/extending.md"].split("\n## ")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The blocks of code, with their languages: ``python``, or ``pycon`` for an interpreter's session."""
    yield from re.findall(r"^```(python|pycon)\n(.*?)^```", text, flags=re.S | re.M)


def run(text: str, scope: dict[str, Any]) -> None:
    """Run the code of a section, and compare what its sessions print and raise; lines of messages may be wrapped."""
    for language, code in blocks(text):
        if language == "python":
            exec(code, scope)
            continue
        for example in doctest.DocTestParser().get_examples(code):
            shown, raised = "", None
            try:
                if isinstance(ast.parse(example.source).body[0], ast.Expr):
                    shown = repr(eval(example.source.strip(), scope)) + "\n"
                else:
                    exec(example.source, scope)
            except Exception as e:
                raised = f"{type(e).__name__}: {e}"
            if example.exc_msg is None:
                assert (raised, shown) == (None, example.want), example.source
            else:
                assert raised == " ".join(example.exc_msg.split()), example.source


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.partition("\n")[0])
def test_recipes_run_as_written(section: str) -> None:
    """Each section of docs/extending.md, after the code at the top of the page, with the messages of its mistakes."""
    scope: dict[str, Any] = {"__name__": "recipes"}
    run(HEAD, scope)
    assert {language for language, _ in blocks(section)} == {"python", "pycon"}
    run(section, scope)


def test_checkpoints_run_as_written() -> None:
    """The page docs/checkpoints.md, from top to bottom."""
    text, scope = PAGES["docs/checkpoints.md"], dict[str, Any]()
    run(text, scope)
    assert len(list(blocks(text))) == len(re.findall(r"^```\w", text, flags=re.M))
    same = jax.tree.map(lambda x, y: bool((x == y).all()), scope["outside"], scope["last"]["state"])
    assert all(jax.tree.leaves(same))
    assert scope["moved"]["params"].keys() == scope["params"].keys()


def test_parameter_groups_run_as_written() -> None:
    """The page docs/parameter_groups.md, from top to bottom."""
    text, scope = PAGES["docs/parameter_groups.md"], dict[str, Any]()
    run(text, scope)
    assert len(list(blocks(text))) == len(re.findall(r"^```\w", text, flags=re.M)) > 10


def test_logging_runs_as_written() -> None:
    """The page docs/logging.md, from top to bottom."""
    text = PAGES["docs/logging.md"]
    run(text, {"__name__": "logging_page"})
    assert len(list(blocks(text))) == len(re.findall(r"^```\w", text, flags=re.M))


def test_training_loops_run_as_written() -> None:
    """The page docs/training_loops.md, from top to bottom."""
    text, scope = PAGES["docs/training_loops.md"], dict[str, Any]()
    run(text, scope)
    assert len(list(blocks(text))) == len(re.findall(r"^```\w", text, flags=re.M))
    assert scope["state"].step == 6
    assert scope["training"].step == 1


# Names

MODULES = [cx, *(importlib.import_module(module.name) for module in pkgutil.walk_packages(cx.__path__, "chainax."))]
ALIASES = {"cx": cx, "cxe": cxe, "tx": cx.chain, "orbax": orbax, "v1": orbax.checkpoint.v1}


def defined(code: str) -> Iterator[str]:
    """The names of the classes, functions, arguments and variables of some code, and the attributes that it reads."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)):
            yield ast.unparse(node)


DEFINED = {
    name for path in (*ROOT.glob("src/**/*.py"), ROOT / "tests/registry.py") for name in defined(path.read_text())
}


def resolves(item: Any, parts: list[str]) -> bool:
    """Whether an object has an attribute of an attribute ...; a class may only annotate it, as a field."""
    if not parts:
        return True
    if hasattr(item, parts[0]):
        return resolves(getattr(item, parts[0]), parts[1:])
    return len(parts) == 1 and any(parts[0] in inspect.get_annotations(base) for base in getattr(item, "__mro__", ()))


def exists(name: str) -> bool:
    """Whether a name, dotted or not, is one of the library's, of JAX's or of Python's."""
    first, *rest = name.split(".")
    starts = [module for module in MODULES if module.__name__.split(".")[-1] == first]
    starts += [vars(module)[first] for module in MODULES if first in vars(module)]
    starts += [ALIASES[first]] if first in ALIASES else []
    known = any(hasattr(module, name) for module in (builtins, jax, jnp))
    return known or name in DEFINED or any(resolves(item, rest) for item in starts)


def is_there(path: str) -> bool:
    """Whether a path is that of a file or a folder, in the repository or in ``src``."""
    return any((root / path).exists() for root in (ROOT, ROOT / "src", ROOT / "src/core/engine"))


def missing(span: str, own: set[str]) -> list[str]:
    """What a piece of code in the text names that does not exist. ``own`` are names that the page itself defines."""
    if span.startswith("make "):
        return [] if re.search(rf"^{span[5:]}:", (ROOT / "Makefile").read_text(), flags=re.M) else [span]
    paths = re.findall(r"(?<!\S)[\w-]+/[\w./-]*(?!\S)|(?<!\S)\w+\.(?:py|md|toml)(?!\S)", span)
    if paths:
        return [path for path in paths if not is_there(path)]
    try:
        nodes = list(ast.walk(ast.parse(span)))
    except SyntaxError:
        return [span]
    inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    names = [ast.unparse(n) for n in nodes if isinstance(n, (ast.Name, ast.Attribute)) and id(n) not in inner]
    names += [node.arg for node in nodes if isinstance(node, ast.keyword) and node.arg]
    return [name for name in names if name not in own and not exists(name)]


@pytest.mark.parametrize("page", PAGES)
def test_names_exist(page: str) -> None:
    """Whatever stands in backticks, and wherever a link leads: modules, classes, fields, arguments, paths, targets."""
    text = PAGES[page]
    own = {name for language, code in blocks(text) if language == "python" for name in defined(code)}
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    spans = set(re.findall(r"`([^`]+)`", prose))
    assert len(spans) > 20
    assert {span: wrong for span in spans if (wrong := missing(span, own))} == {}
    folder = (ROOT / page).parent
    assert [path for path in re.findall(r"\]\(([^)#:]+)\)", prose) if not (folder / path).exists()] == []


@pytest.mark.parametrize(
    "span", ("walk.Walks", "Leafwise.leafs", "src/core/value.py", "engine/step.py", "make tests", "At")
)
def test_names_that_do_not_exist_are_found(span: str) -> None:
    """Of every kind that pages name."""
    assert missing(span, set()) == [span]


def test_floors_are_those_of_the_map() -> None:
    """The table of docs/architecture.md is that of tests/test_architecture.py."""
    rows = re.findall(r"^\| (`.*?) \|", PAGES["docs/architecture.md"], flags=re.M)
    floors = [row.replace("`", "").replace(",", "").replace(".py", "").replace("/", ".") for row in rows]
    assert floors == [folders for folders, _ in FLOORS]


def test_contributing_is_a_page() -> None:
    """Whoever reads it reads all of it."""
    assert len(PAGES["CONTRIBUTING.md"].split()) < 600
