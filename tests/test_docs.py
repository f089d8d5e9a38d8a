"""The documentation for contributors: its code runs, its error messages are what one gets, and its names exist."""

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
import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("CONTRIBUTING.md", "docs/architecture.md", "docs/extending.md")


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


HEAD, *SECTIONS = read("docs/extending.md").split("\n## ")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The blocks of code, with their languages: ``python``, or ``pycon`` for an interpreter's session."""
    yield from re.findall(r"^```(python|pycon)\n(.*?)^```", text, flags=re.S | re.M)


def run(text: str, scope: dict[str, Any]) -> None:
    """Run the code of a section, and compare what its sessions print and raise; line breaks in messages are free."""
    for language, code in blocks(text):
        if language == "python":
            exec(code, scope)
            continue
        for example in doctest.DocTestParser().get_examples(code):
            shown, raised = "", None
            try:
                if isinstance(ast.parse(example.source).body[0], ast.Expr):
                    shown = repr(eval(example.source.strip(), scope))
                else:
                    exec(example.source, scope)
            except Exception as e:
                raised = f"{type(e).__name__}: {e}"
            if example.exc_msg is None:
                assert (raised, shown) == (None, example.want.rstrip("\n")), example.source
            else:
                assert raised == " ".join(example.exc_msg.split()), example.source


@pytest.mark.parametrize("section", SECTIONS, ids=lambda text: text.partition("\n")[0])
def test_recipes_run_as_written(section: str) -> None:
    """Each section of docs/extending.md, after the code at the top of the page."""
    scope: dict[str, Any] = {"__name__": "recipes"}
    run(HEAD, scope)
    assert {language for language, _ in blocks(section)} == {"python", "pycon"}
    run(section, scope)
