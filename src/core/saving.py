"""State in and out as named NumPy arrays, and state that follows a chain or a model as they change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten_with_path, tree_unflatten

from .state import State
from .tree import flatten, is_trainable, path_name, show
from .value import PlainKeyError

if TYPE_CHECKING:
    from .transformation import Transformation


class Report(NamedTuple):
    """What became of the entries when a state was loaded, by name."""

    matched: list[str]
    """Taken over."""
    missing: list[str]
    """Not in the source: these start as `init` makes them."""
    unexpected: list[str]
    """In the source, but of no link or parameter here: left out."""
    mismatched: list[str]
    """In both, with different shapes: these start as `init` makes them."""

    def __str__(self) -> str:
        parts = [f"{len(names)} {kind}" for kind, names in zip(self._fields, self)]
        details = [f"{kind}: {', '.join(names)}" for kind, names in zip(self._fields[1:], self[1:]) if names]
        return "\n".join([", ".join(parts), *details])


def state_dict(state: State) -> dict[str, np.ndarray]:
    """See `Transformation.state_dict`; so with the next three."""
    named = _named(state)
    if len(dict(named)) != len(named):
        twice = sorted({name for name, _ in named if [n for n, _ in named].count(name) > 1})
        raise ValueError(f"two arrays of the state have the name {twice[0]!r}: rename one of the parameters")
    return {name: np.asarray(x) for name, x in named}


def load_state_dict(  # noqa: D103
    tx: Transformation, params: Any, arrays: Mapping[str, Any], *, strict: bool = True
) -> tuple[State, Report]:
    fresh = tx.init(params)
    arrays = dict(arrays)
    born = {n.removeprefix("born/"): arrays.pop(n) for n in list(arrays) if n.startswith("born/")}
    paths = set(flatten(params).paths)
    fresh = fresh._replace(born={p: jnp.asarray(x, jnp.int32) for p, x in born.items() if p in paths})
    keyed, treedef = tree_flatten_with_path(fresh)
    report, leaves = Report([], [], [f"born/{p}" for p in born if p not in paths], []), []
    for path, new in keyed:
        name = path_name(path).removeprefix("links/")
        given = born.get(name.removeprefix("born/")) if name.startswith("born/") else arrays.pop(name, None)
        if given is None:
            report.missing.append(name)
        elif np.shape(given) != new.shape:
            report.mismatched.append(f"{name} ({show(given)} for {show(new)})")
        else:
            report.matched.append(name)
            new = jax.device_put(jnp.asarray(given, new.dtype), new.sharding)
        leaves.append(new)
    report.unexpected.extend(arrays)
    if strict and (report.missing or report.unexpected or report.mismatched):
        raise PlainKeyError(
            f"the arrays do not match this chain and these parameters (strict=False loads what does): {report}"
        )
    return tree_unflatten(treedef, leaves), report


def adopt(tx: Transformation, params: Any, state: State) -> tuple[State, Report]:  # noqa: D103
    return load_state_dict(tx, params, dict(_named(state)), strict=False)


def add_param_group(tx: Transformation, params: Any, state: State) -> State:  # noqa: D103
    old = {path for entry in state.links.values() for path in _paths(entry)}
    arrays = dict(_named(state))
    new = {path for path, p in flatten(params).items() if is_trainable(p)} - old
    arrays.update({f"born/{path}": state.step for path in new if old})  # without slots nothing tells old from new
    return load_state_dict(tx, params, arrays, strict=False)[0]


def _paths(entry: Any) -> set[str]:
    if not isinstance(entry, dict):
        return set()
    return {path for slot in entry.values() for path, x in flatten(slot).items() if x is not None}


def _named(state: State) -> list[tuple[str, jax.Array]]:
    keyed, _ = tree_flatten_with_path(state)
    return [(path_name(path).removeprefix("links/"), x) for path, x in keyed]
