"""The columns of a sweep's table that tell its chains apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.facade.chain import chain
from ..core.values.contents import code, is_array, is_key, same, shortest
from ..core.values.tables import Keyed
from .grid import names_in, parts_of

_ABSENT: Any = object()  # stands for a field of a link that the chain does not have


def settings_of(names: list[str], chains: Sequence[Any]) -> dict[str, np.ndarray]:
    """The columns that tell the chains apart. Fills in empty names, in place."""
    if len({type(tx) for tx in chains}) > 1:
        chains = [chain(tx) for tx in chains]
    columns = _differing("", chains)
    last = Counter(map(_last, columns))
    labels = [_last(where) if last[_last(where)] == 1 else where for where in columns]
    texts = [_texts(label, values) for label, values in zip(labels, columns.values())]
    for i, name in enumerate(names):
        names[i] = name or ", ".join(text[i] for text in texts if text[i]) or code(chains[i])
    return {"name": np.array(names), **{where: _column(values) for where, values in columns.items()}}


def _differing(where: str, values: Sequence[Any]) -> dict[str, list[Any]]:
    """The values, if they differ, by path. If they are of one kind, the fields in them that differ."""
    present = [x for x in values if x is not _ABSENT]
    if all(same(x, present[0]) for x in present):
        return {}
    inner = [{} if x is _ABSENT else parts_of(x) for x in values]
    if None in inner or any(_kind(x) != _kind(present[0]) for x in present):
        return {where: list(values)}
    columns: dict[str, list[Any]] = {}
    orders = [_ABSENT if x is _ABSENT else " → ".join(parts or ()) for x, parts in zip(values, inner)]
    if isinstance(present[0], chain) and len({order for order in orders if order is not _ABSENT}) > 1:
        columns[f"{where}.links".lstrip(".")] = orders
    for key in dict.fromkeys(key for parts in inner for key in parts or ()):
        columns |= _differing(f"{where}.{key}".lstrip("."), [(parts or {}).get(key, _ABSENT) for parts in inner])
    return columns


def _kind(x: Any) -> tuple[object, ...]:
    return type(x), x.keys if isinstance(x, Keyed) else len(x) if isinstance(x, tuple) else None


def _last(where: str) -> str:
    """The name of a field without those of its links. An entry of a table keeps its field's name."""
    names = names_in(where)
    first = max((i for i, name in enumerate(names) if name.isidentifier() and name != "default"), default=0)
    return ".".join(names[first:])


def _is_number(x: Any) -> bool:
    return (isinstance(x, (int, float)) and not isinstance(x, bool)) or (is_array(x) and not is_key(x))


def _column(values: list[Any]) -> np.ndarray:
    """Numbers as numbers, with NaN for absent ones; anything else as text, empty if absent."""
    present = [x for x in values if x is not _ABSENT]
    if len(present) == len(values) and isinstance(values[0], int) and len(set(map(type, values))) == 1:
        return np.array(values)
    if all(map(_is_number, present)):
        return np.array([math.nan if x is _ABSENT else float(x) for x in values])
    return np.array(["" if x is _ABSENT else x if isinstance(x, str) else code(shortest(x)) for x in values])


def _texts(label: str, values: list[Any]) -> list[str]:
    """The values as a reader sees them, such as ``b2=0.95``, with as few digits as distinguish them."""
    column = _column(values)
    shown = column.tolist()
    if column.dtype == float:
        distinct = len(set(column[~np.isnan(column)].tolist()))
        digits = next(d for d in range(3, 18) if len({f"{x:.{d}g}" for x in shown if x == x}) >= distinct)
        shown = [f"{x:.{digits}g}" if x == x else "" for x in shown]
    plain = _last(label) == "links"
    return ["" if x is _ABSENT else str(text) if plain else f"{label}={text}" for x, text in zip(values, shown)]
