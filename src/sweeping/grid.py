"""Grids of chains: every combination of some fields or links."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.facade.chain import chain
from ..core.facade.transformation import Transformation
from ..core.values.contents import code
from ..core.values.errors import unknown_field
from ..core.values.tables import Keyed
from ..core.values.value import Value
from .ranges import Distribution, listed


def grid(tx: Transformation, over: Mapping[str, Iterable[Any]]) -> list[Any]:
    """One chain for every combination of the values. The last key varies fastest.

    A key is the path of what is replaced, as `sweep` names its columns: a field (``"scale_by_adam.b2"``), a field
    of a value in it (``"scale_by_lr.learning_rate.init_value"``), or a link (``"scale_by_adam"``).
    Grids are lists: sweep over two of them with ``cx.grid(...) + cx.grid(...)``.

    Errors: ``KeyError`` for an unknown link and ``TypeError`` for an unknown field; ``ValueError`` for
    values that are not a list or empty, for a range, for a key inside another, and for values that the field rejects.

    >>> import chainax as cx
    >>> cx.grid(cx.sgd(0.1, momentum=0.9), {"scale_by_lr.learning_rate": [0.1, 0.2], "trace.momentum": [0.9]})
    [chain(trace(0.9), scale_by_lr(0.1)), chain(trace(0.9), scale_by_lr(0.2))]
    """
    values = checked("grid", tx, over)
    for key, drawn in values.items():
        if isinstance(drawn, Distribution):
            raise ValueError(
                f"`grid.over[{key!r}]` is a range: draw from it by cx.sample(tx, over, n), got {code(drawn)}"
            )
    return [replaced(tx, dict(zip(values, point))) for point in itertools.product(*values.values())]


def checked(call: str, tx: Any, over: Any) -> dict[str, Any]:
    """A table of lists and ranges, for the function ``call``. Raise unless it is one for this chain."""
    if not isinstance(tx, Transformation):
        raise TypeError(f"`{call}.tx` must be a chain or a link, got {code(tx)}")
    if not isinstance(over, Mapping) or not over or not all(isinstance(key, str) for key in over):
        raise ValueError(f'`{call}.over` must be a table {{"link.field": [values]}}, got {over!r}')
    kind = "a list of values" if call == "grid" else "a range or a list of values"
    values = {}
    for key, choices in over.items():
        values[key] = choices if isinstance(choices, Distribution) else listed(choices)
        if not values[key]:
            raise ValueError(f"`{call}.over[{key!r}]` must be {kind}, at least one, got {code(choices)}")
        if within := [other for other in over if other.startswith(f"{key}.")]:
            raise ValueError(f"`{call}.over`: {within[0]!r} lies within {key!r}: replace one or the other")
    return values


def replaced(tx: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a chain with other values at some paths, such as ``"scale_by_adam.b2"``."""
    return _replaced("", tx, {names_in(key): new for key, new in changes.items()})


def names_in(key: str) -> tuple[str, ...]:
    """The names in a path. Dots within quotes, such as those of a pattern, are part of a name."""
    return tuple(re.findall(r"""(?:^|\.)((?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^.])*)""", key))


def _replaced(where: str, x: Any, changes: dict[tuple[str, ...], Any]) -> Any:
    """A copy of a value with changes at some paths in it."""
    if () in changes:
        return changes[()]
    heads: dict[str, dict[tuple[str, ...], Any]] = {}
    for (head, *path), new in changes.items():
        heads.setdefault(head, {})[tuple(path)] = new
    if isinstance(x, chain):
        for name, inner in heads.items():
            x = x.replace(name, _replaced(f"{where}.{name}".lstrip("."), x[name], inner))
        return x
    known = parts_of(x)
    if known is None:
        raise TypeError(f"`{where}` is {code(x)}, which has no field {next(iter(heads))!r}")
    for name in heads:
        if name not in known:
            raise TypeError(unknown_field(type(x).__name__, name, known))
    parts = {n: _replaced(f"{where}.{n}".lstrip("."), known[n], inner) for n, inner in heads.items()}
    if isinstance(x, Keyed):
        *entries, default = {**known, **parts}.values()
        return x.filled(entries, default)
    return x.replace(**parts) if isinstance(x, Value) else tuple({**known, **parts}.values())


def parts_of(x: Any) -> dict[str, Any] | None:
    """The links, entries or fields of a value by name; ``None`` for anything that is not a value."""
    if isinstance(x, chain):
        return dict(x.links)
    if isinstance(x, Keyed):
        return {**{repr(key): entry for key, entry in x.table.items()}, "default": x.default}
    if type(x) is tuple:
        return {str(i): part for i, part in enumerate(x)}
    if isinstance(x, Value) and dataclasses.is_dataclass(x):
        return {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
    return None
