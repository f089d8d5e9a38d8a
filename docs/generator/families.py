"""The pages that are made from the library itself: a page a family of links, and a page a group of functions."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import inspect
import math
import re
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import chainax as cx
import chainax.chains
import chainax.extend as cxe
from chainax.core.facade.link import Link
from chainax.core.facade.order import ROLES
from chainax.core.values.contents import code
from contents import AUTHORS, FAMILIES, FUNCTIONS, MODULES, TYPES, Page
from formulas import inline, mathml
from tested import references


def where() -> dict[str, tuple[Page, str]]:
    """The page of every public name, and its folder.

    Errors: ``LookupError`` for a name that belongs on no page.
    """
    found: dict[str, tuple[Page, str]] = {}
    for name in cx.__all__:
        if not inspect.ismodule(getattr(cx, name)):  # those have pages of their own
            found[name] = _page_of(name)
    return found | dict.fromkeys(cxe.__all__, (AUTHORS, "api"))


def _page_of(name: str) -> tuple[Page, str]:
    item = getattr(cx, name)
    if item.__module__ == "chainax.chains":
        section = sections()[name]
        pages = [page for page in FAMILIES if name in page.chains] or [p for p in FAMILIES if section in p.chains]
        if pages:
            return pages[0], "links"
    folders = {page: folder for folder, pages in (("links", FAMILIES), ("api", FUNCTIONS)) for page in pages}
    module = item.__module__.removeprefix("chainax.") + "."
    fits = [(len(part), page) for page in folders for part in page.modules.split() if module.startswith(part + ".")]
    if not fits:
        raise LookupError(f"{name} of {item.__module__} is on no page: add its module to FAMILIES or FUNCTIONS")
    page = max(fits, key=lambda fit: fit[0])[1]
    return page, folders[page]


@functools.cache
def sections() -> dict[str, str]:
    """The section of ``chains.py`` that each chain is in."""
    found, section = {}, ""
    for line in inspect.getsource(chainax.chains).splitlines():
        if match := re.match(r"# ([A-Z].*)", line):
            section = match[1]
        elif match := re.match(r"def ([a-z]\w*)", line):
            found[match[1]] = section
    return found


def pages() -> dict[str, str]:
    """The Markdown of every generated page, by its path among the documents."""
    places = where()
    made = {}
    for page in (*FAMILIES, *FUNCTIONS, AUTHORS):
        names = [name for name, (place, _) in places.items() if place == page]
        folder = places[names[0]][1]
        made[f"{folder}/{page.file}.md"] = "\n".join(_page(page, names)) + "\n"
    made |= {f"api/{name}.md": f"# chainax.{name}\n\n::: chainax.{name}\n{MODULE}" for name in modules()}
    return made | {"all_optimizers.md": table()}


MODULE = "    options:\n      heading_level: 2\n      show_root_heading: false\n"


def modules() -> list[str]:
    """The modules of `MODULES` that there are. None is imported."""
    return [name for name in MODULES if importlib.util.find_spec(f"chainax.{name}")]


def _page(page: Page, names: list[str]) -> Iterator[str]:
    yield f"# {page.title}\n\n{page.about}\n"
    kinds = {
        "Optimizers": ([name for name in names if is_chain(name)], chain_entry),
        "Links": ([name for name in names if is_link(name)], link_entry),
    }
    rest = [name for name in names if not is_chain(name) and not is_link(name)]
    for title, (chosen, entry) in kinds.items():
        if chosen and page is not AUTHORS:
            yield f"## {title}\n"
            yield from (entry(name) for name in chosen)
    if page is AUTHORS:
        rest = names
    elif rest and len(rest) < len(names):
        yield "## Functions\n"
    yield from (function_entry(name, "chainax.extend" if page is AUTHORS else "chainax") for name in rest)


def is_chain(name: str) -> bool:
    """Whether a name is that of a prebuilt optimizer."""
    return getattr(getattr(cx, name, None), "__module__", "") == "chainax.chains"


def is_link(name: str) -> bool:
    """Whether a name is that of a link."""
    item = getattr(cx, name, None)
    return inspect.isclass(item) and issubclass(item, Link)


# An optimizer

REQUIRED = {
    "learning_rate": 1e-3,
    "max_learning_rate": 1e-3,
    "schedule": 1.0,
    "total_steps": 10_000,
    "warmup_steps": 100,
    "powers": cx.by_path({"query|key": 0.5}),
    "statistics": "norm",
}
"""Values for arguments without a default, with which the pages show what is made."""


def example(name: str) -> tuple[Any, str]:
    """An optimizer with its defaults, and the code for it."""
    make = getattr(cx, name)
    needed = [p.name for p in inspect.signature(make).parameters.values() if p.default is p.empty]
    given = {argument: REQUIRED[argument] for argument in needed}
    shown = ", ".join(f"{argument}={value!r}" for argument, value in given.items())
    return make(**given), f"cx.{name}({shown})"


def chain_entry(name: str) -> str:
    """The section of a prebuilt optimizer: what it is, its arguments, and what `describe` prints."""
    tx, call = example(name)
    return "\n".join(
        [
            _heading(name),
            documentation(getattr(cx, name)),
            f'```text title="{call}.describe()"\n{tx.describe()}\n```\n',
            f"Arguments: {_arguments(getattr(cx, name))}.\n",
            f"Tested against {_tested(name)}.\n",
        ]
    )


def _heading(name: str) -> str:
    return f"### `{name}` {{ #chainax.{name} }}\n"


def _arguments(f: Any) -> str:
    shown = []
    for p in inspect.signature(f).parameters.values():
        default = "" if p.default is p.empty else f"={code(p.default)}"
        shown.append(f"`{p.name}{default}`")
    return ", ".join(shown)


def _tested(name: str) -> str:
    return "; ".join(f"{text} (`tests/{file}`)" for text, file in references(name))


def documentation(item: Any) -> str:
    """A docstring as Markdown, less the fields that classes append to it."""
    text = re.split(r"\n\n(?:Equation|Fields):", inspect.getdoc(item) or "")[0]
    return markdown(text) + "\n"


def markdown(text: str) -> str:
    """Text of a docstring: interpreter's sessions in fences, ``code`` in single backticks, papers as links."""
    blocks, fenced = [], False
    for block in text.split("\n\n"):
        session = block.lstrip().startswith(">>> ")
        blocks.append(f"```pycon\n{textwrap.dedent(block)}\n```" if session else prose(block))
        fenced = fenced or session
    return "\n\n".join(blocks)


def prose(text: str) -> str:
    """A paragraph."""
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    text = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"^(Args|Returns|Errors):\n((?: {4}.*\n?)+)", _definitions, text, flags=re.M)


def _definitions(match: re.Match[str]) -> str:
    entries = re.split(r"\n(?=\S)", textwrap.dedent(match[2]).strip())
    return f"{match[1]}:\n\n" + "\n".join("- " + re.sub(r"\s*\n\s*", " ", entry) for entry in entries)


# A link


def link_entry(name: str) -> str:
    """The section of a link: its equation, hyperparameters, state, users and references."""
    cls = getattr(cx, name)
    tx = _instance(name)
    equation = cls.equation if isinstance(cls.equation, str) else getattr(tx, "equation", "")
    parts = [_heading(name), documentation(cls)]
    if equation:
        parts.append(f'<div class="equations">\n{mathml(equation)}\n</div>\n')
    parts += [_fields(cls), _facts(name, tx)]
    return "\n".join(part for part in parts if part)


@functools.cache
def _instance(name: str) -> Any:
    """A link with its defaults."""
    cls = getattr(cx, name)
    wanted = [f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    inner = cx.chain(cx.scale_by_adam())
    held = {"tx": inner, "direction": inner, "magnitude": cx.chain(cx.scale_by_sign()), "every": 4}
    held |= {"table": cx.by_path({"embed": inner}, default=cx.freeze()), "transformation": _Identity()}
    given = {f.name: held.get(f.name, REQUIRED.get(f.name, 0.5)) for f in wanted}
    return cls(*given.values()) if name == "record" else cls(**given)


class _Identity(NamedTuple):
    """A transformation as Optax has them."""

    init: Any = lambda params: ()
    update: Any = lambda updates, state, params=None: (updates, state)


def _fields(cls: type) -> str:
    rows = []
    for field in dataclasses.fields(cls):
        if field.name == "storage":
            continue
        limits, doc = field.metadata.get("range"), field.metadata.get("doc", "")
        default = "" if field.default is dataclasses.MISSING else f"`{code(field.default)}`"
        symbol = inline(limits.symbol) if limits and limits.symbol else ""
        within = str(limits) if limits and math.isfinite(limits.low) else ""
        rows.append(f"| `{field.name}` | {symbol} | {prose(doc)} | {default} | {within} |".replace("\n", " "))
    head = "| field | symbol | meaning | default | range |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n" if rows else ""


def _facts(name: str, tx: Any) -> str:
    """What a link is for, keeps, reads, and who uses it, as a list."""
    role = tx.role if isinstance(tx.role, str) else "other"
    facts = [f"Role: `{role}`" + (f", {ROLES[role]}" if role != "other" else "")]
    slots = ", ".join(f"`{slot}`" for slot in tx.slots)
    if tx.inner:
        facts.append(f"State: {slots + ', and ' if slots else ''}that of the chain that it holds")
    else:
        size = cx.chain(tx).describe().rpartition("state: ")[2].rpartition(", ")[2].splitlines()[0]
        facts.append(
            f"Slots: {slots}; {size}" if slots else f"Slots: none; {size}" if size[0] != "0" else "Slots: none"
        )
    reads = ["the parameters"] * tx.reads_params + [f"`{argument}=`" for argument in tx.extra]
    if reads:
        facts.append(f"`update` and `step` need {', '.join(reads)}")
    users = [f"`{user}`" for user, links in users_of().items() if name in links]
    if users:
        facts.append(f"Used by {', '.join(users)}")
    if tested := _tested(name):
        facts.append(f"Tested against {tested}")
    elif users:
        facts.append("Tested in the optimizers that use it")
    return "\n".join(f"- {fact}." for fact in facts) + "\n"


@functools.cache
def users_of() -> dict[str, set[str]]:
    """The names of the links in each prebuilt optimizer, those of inner chains included."""

    def links(tx: Any) -> Iterator[str]:
        for link in tx.links.values():
            yield type(link).__name__
            for inner in link.inner.values():
                yield from links(inner)

    return {name: set(links(example(name)[0])) for name in cx.__all__ if is_chain(name)}


# Anything else


def function_entry(name: str, module: str) -> str:
    """The section of a function or a class, which mkdocstrings writes."""
    if name in TYPES:
        return f"### `{name}` {{ #{module}.{name} }}\n\n{TYPES[name]}\n"
    inherited = "    options:\n      inherited_members: true\n" if name == "chain" else ""
    return f"::: {module}.{name}\n{inherited}"


# The table of all optimizers


TABLE = """# All optimizers

The tests compare each with its reference on a tree of mixed shapes with random gradients, over 60 steps or more, at 20
random settings of its hyperparameters, or at 5 where the reference is slow. Those of PyTorch agree in float64 to 1e-9
and in float32 to 1e-5. Where paper and libraries differ, the docstring says whose form this is. The bytes are those of
the state for each number of a matrix of 1000 × 1000 in float32.

[Which optimizer?](optimizers.md) helps to choose.

| optimizer | effect | source | bytes | tested against |
|---|---|---|--:|---|
"""


def table() -> str:
    """A row an optimizer: its paper, its state and its references."""
    rows = []
    for name, (page, folder) in where().items():
        if not is_chain(name):
            continue
        text = " ".join((inspect.getdoc(getattr(cx, name)) or "").split("\n\n")[0].split())
        effect, _, source = text.partition(". ")
        size = example(name)[0].describe().rpartition("state: ")[2].splitlines()[0]
        size = re.search(r"([\d.e+]+) bytes", size)
        tested = "; ".join(reference for reference, _ in references(name))
        link = f"[`{name}`]({folder}/{page.file}.md#chainax.{name})"
        effect = effect.rstrip(".").replace("|", r"\|")
        rows.append(f"| {link} | {effect} | {prose(source).rstrip('.')} | {size[1] if size else ''} | {tested} |")
    return TABLE + "\n".join(rows) + "\n"
