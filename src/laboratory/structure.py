"""Which chains are settings of one order: those with the same types of links in the same places."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..core.facade.chain import chain
from ..core.facade.transformation import Transformation
from ..sweeping.grid import parts_of


def by_structure(chains: Iterable[Transformation]) -> dict[str, list[Transformation]]:
    """The settings of each order, by the names of its links: with those within links, or their types, where needed."""
    found: dict[Any, list[Transformation]] = {}
    for tx in chains:
        found.setdefault(_structure(tx), []).append(tx)
    firsts = [settings[0] for settings in found.values()]
    for types in (False, True):
        plain, full = [" → ".join(tx.links) for tx in firsts], [_named(tx, types) for tx in firsts]
        names = [a if plain.count(a) == 1 else b for a, b in zip(plain, full)]
        if len({*names}) == len(names):
            break
    names = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, 1)]
    return dict(zip(names, found.values()))


def _structure(x: Any) -> tuple[Any, ...]:
    """The types of a chain's links and of all links within them, by place."""
    inner = tuple((key, found) for key, part in (parts_of(x) or {}).items() if (found := _structure(part)))
    return (type(x), inner) if isinstance(x, Transformation) else inner


def _named(x: Any, types: bool) -> str:
    """The links of a chain, and in brackets those within them; with their types, if these are asked for."""
    parts = parts_of(x) or {}
    if isinstance(x, chain):
        shown = []
        for name, link in parts.items():
            inner = _named(link, types)
            kind = f": {type(link).__name__}" if types and type(link).__name__ != name else ""
            shown.append(f"{name}{kind}{f'({inner})' if inner else ''}")
        return " → ".join(shown)
    return ", ".join(filter(None, (_named(part, types) for part in parts.values())))
