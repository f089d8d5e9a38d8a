"""The differences of two chains, as text."""

from __future__ import annotations

from collections.abc import Iterator

from ..engine.protocol import LinkLike, Links
from ..values.contents import code, same
from .edits import chains_within


def differences(ours: Links, theirs: Links, where: str = "") -> Iterator[str]:
    """The differences of ``theirs``, a line each. ``where`` precedes the names of links in their paths."""
    holder = where.removesuffix("/")
    of = f" of {holder}" if holder else ""
    for name, link in ours.items():
        if name not in theirs:
            yield f"{_shown(name, link)} is removed{of and f' from {holder}'}"
    names = list(theirs)
    for i, (name, link) in enumerate(theirs.items()):
        if name not in ours:
            yield f"{_shown(name, link)} is added {f'after {where}{names[i - 1]}' if i else f'at the front{of}'}"
    common = [n for n in theirs if n in ours]
    for i in _moved([n for n in ours if n in theirs], common):
        yield f"{where}{common[i]} is moved {f'after {where}{common[i - 1]}' if i else f'to the front{of}'}"
    for name in (n for n in ours if n in theirs):
        yield from _changes(where + name, ours[name], theirs[name])


def _changes(path: str, a: LinkLike, b: LinkLike) -> Iterator[str]:
    """The differences of two links with one name, field by field."""
    if type(a) is not type(b):
        yield f"{path}: {a!r} → {b!r}"
        return
    for field in (*a._static, *a._leaves):
        x, y = getattr(a, field), getattr(b, field)
        if same(x, y):
            continue
        ours, theirs = ([held for held in chains_within(link) if held.field == field] for link in (a, b))
        lines = []
        if [held.key for held in ours] == [held.key for held in theirs]:
            for old, new in zip(ours, theirs):
                lines += differences(old.tx.links, new.tx.links, f"{path}/{old.segment}")
        before, after = code(x), code(y)
        yield from lines or [f"{path}.{field}: {before} → {'another ' if before == after else ''}{after}"]


def _moved(ours: list[str], theirs: list[str]) -> list[int]:
    """The fewest moves that turn one order into the other: the new places of all but a longest common subsequence."""
    best: list[list[str]] = [[] for _ in range(len(theirs) + 1)]
    for name in ours:
        before = list(best)
        for j, other in enumerate(theirs):
            best[j + 1] = before[j] + [name] if name == other else max(before[j + 1], best[j], key=len)
    return [i for i, n in enumerate(theirs) if n not in best[-1]]


def _shown(name: str, link: LinkLike) -> str:
    return repr(link) if name == type(link).__name__ else f"{name}={link!r}"
