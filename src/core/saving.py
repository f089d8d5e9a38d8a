"""State in and out as named NumPy arrays, and state that follows a chain or a model as they change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from . import engine
from .state import State
from .tree import flatten, show
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
    return {name: np.asarray(x) for name, x in _named(state).items()}


def load_state_dict(  # noqa: D103
    tx: Transformation, params: Any, arrays: Mapping[str, Any], *, strict: bool = True
) -> tuple[State, Report]:
    fresh = engine.init(tx.links, params)
    names, places = _named(fresh), jax.tree.leaves(fresh)
    report, loaded = Report([], [], [], []), {}
    for name, new in names.items():
        if name not in arrays:
            report.missing.append(name)
        elif np.shape(given := arrays[name]) != new.shape:
            report.mismatched.append(f"{name} ({show(given)} for {show(new)})")
        else:
            report.matched.append(name)
            given = jnp.asarray(given, new.dtype)
            loaded[name] = given if isinstance(new, Tracer) else jax.device_put(given, new.sharding)
    born = {n: x for n, x in arrays.items() if n.startswith("born/") and _slots_of(n, names)}
    report.matched.extend(born)
    report.unexpected.extend(n for n in arrays if n not in names and n not in born)
    if strict and (report.missing or report.unexpected or report.mismatched):
        raise PlainKeyError(
            f"the arrays do not match this chain and these parameters (strict=False loads what does): {report}"
        )
    state = jax.tree.unflatten(jax.tree.structure(fresh), [loaded.get(n, x) for n, x in zip(names, places)])
    return state._replace(born=_births(tx, fresh, loaded, born)), report


def _births(tx: Transformation, fresh: State, loaded: Mapping[str, Any], born: Mapping[str, Any]) -> dict[str, Any]:
    """When the slots of each link began, by ``link/path``, for those that did not begin with the run.

    Slots of which none came over begin now. Where some did, they carry on together.
    """
    births = {name.removeprefix("born/"): jnp.asarray(x, jnp.int32) for name, x in born.items()}
    for name, link in tx.links.items():
        if link.treewise or not link.slots or "step" not in loaded:
            continue
        slots = fresh.links[name]
        for path, x in flatten(slots[link.slots[0]]).items():
            key = f"{name}/{path}"
            if x is not None and not any(f"{name}/{slot}/{path}" in loaded for slot in link.slots):
                births[key] = loaded["step"]
    return births


def adopt(tx: Transformation, params: Any, state: State) -> tuple[State, Report]:  # noqa: D103
    return load_state_dict(tx, params, _named(state), strict=False)


def add_param_group(tx: Transformation, params: Any, state: State) -> State:  # noqa: D103
    return adopt(tx, params, state)[0]


def _named(state: State) -> dict[str, Any]:
    """The arrays of the state by name, in the order of its leaves."""
    named: dict[str, Any] = {}
    for name, x in flatten(state).items():
        if x is None:
            continue
        name = name.removeprefix("links/")
        if name in named:
            raise ValueError(f"two arrays of the state have the name {name!r}: rename one of the parameters")
        named[name] = x
    return named


def _slots_of(birth: str, names: Mapping[str, Any]) -> bool:
    """Whether the link and path of a ``born/link/path`` have slots here."""
    _, link, path = birth.split("/", 2)
    return any(n.startswith(f"{link}/") and n.split("/", 2)[2:] == [path] for n in names)
