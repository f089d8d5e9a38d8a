"""State in and out as named NumPy arrays, and state that follows a chain or a model as they change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from . import engine
from .state import State
from .telemetry import within
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
    names, (places, treedef) = _named(fresh), jax.tree.flatten(fresh)
    _check_joined(names, arrays)
    report, loaded = Report([], [], [], []), {}
    for name, new in names.items():
        if name not in arrays:
            report.missing.append(name)
        elif np.shape(given := arrays[name]) != new.shape:
            report.mismatched.append(f"{name} ({show(given)} for {show(new)})")
        else:
            given = jnp.asarray(_typed(given, new.dtype), new.dtype)
            loaded[name] = given if isinstance(new, Tracer) else jax.device_put(given, new.sharding)
    entries = list(_entries(tx, params, fresh, jax.tree.unflatten(treedef, list(names))))
    for coded in (slot for entry in entries for slot in entry.slots if any(n not in loaded for n in slot)):
        for name in coded:  # codes mean nothing without their scales
            if loaded.pop(name, None) is not None:
                report.mismatched.append(f"{name} (the other arrays of its slot do not fit)")
    report.matched.extend(loaded)
    births = _births(entries, loaded, arrays, report)
    report.unexpected.extend(n for n in arrays if n not in names and n not in report.matched)
    if strict and (report.missing or report.unexpected or report.mismatched):
        raise PlainKeyError(
            f"the arrays do not match this chain and these parameters (strict=False loads what does): {report}"
        )
    state = jax.tree.unflatten(treedef, [loaded.get(n, x) for n, x in zip(names, places)])
    return _with_births(state, births), report


def _typed(given: Any, dtype: Any) -> Any:
    """An array out of a file of NumPy's, which gives bfloat16 and its like back as bytes without a type."""
    nameless = getattr(given, "dtype", np.dtype(float)).kind == "V"
    return np.asarray(given).view(dtype) if nameless and given.dtype.itemsize == dtype.itemsize else given


JOINED = "joined_"
"""How an entry of the state begins whose name tells which parameters share slots: the arrays do not."""


def _check_joined(names: Iterable[str], arrays: Iterable[str]) -> None:
    given = {name.rpartition(f"/{JOINED}")[0]: name for name in arrays if f"/{JOINED}" in name}
    for name in names:
        link, joined, _ = name.rpartition(f"/{JOINED}")
        if joined and given.get(link, name) != name:
            raise PlainKeyError(
                f"{link!r} joins the slots of several parameters, and those that were stored are of others, from whom "
                "they cannot be parted: begin with tx.init(params)"
            )


Place = tuple[tuple[str, str], ...]
"""Where an inner chain's state is: a link, and the key in its entry; then those within."""


class _Entry(NamedTuple):
    """What begins at one time: a link's slots for one parameter, or the state of a whole-tree link."""

    place: Place
    prefix: str
    key: str  # in `State.born`
    slots: list[list[str]]  # the names of their arrays


def _entries(
    tx: Transformation, params: Any, state: State, names: State, place: Place = (), prefix: str = ""
) -> Iterator[_Entry]:
    """What the links of a chain keep, and those of the chains within; ``names`` is a state of names."""
    flat = flatten(params)
    for name, link in tx.links.items():
        if name not in state.links or link.role == "apply":
            continue
        if link.treewise:
            if leaves := jax.tree.leaves(names.links[name]):
                yield _Entry(place, prefix, f"{name}/", [[n] for n in leaves])
            for key, inner, its, own in within(name, link, state, params):
                there = f"{prefix}{'links/' if prefix else ''}{name}/{key}/"
                yield from _entries(inner, its, own, names.links[name][key], (*place, (name, key)), there)
            continue
        slots = [flat.line_up(f"The slots {slot!r}", names.links[name][slot]) for slot in link.slots]
        for path, *own in zip(flat.paths, *slots):
            if any(x is not None for x in own):
                yield _Entry(place, prefix, f"{name}/{path}", [jax.tree.leaves(x) for x in own])


def _births(
    entries: list[_Entry], loaded: Mapping[str, Any], arrays: Mapping[str, Any], report: Report
) -> dict[Place, dict[str, jax.Array]]:
    """The ``born`` of every chain's state. What came over in part carries on; that of which nothing did begins now."""
    births: dict[Place, dict[str, jax.Array]] = {}
    for entry in entries:
        carried = any(name in loaded for slot in entry.slots for name in slot)
        birth, step = f"{entry.prefix}born/{entry.key}", f"{entry.prefix}step"
        if carried and birth in arrays:
            births.setdefault(entry.place, {})[entry.key] = jnp.asarray(arrays[birth], jnp.int32)
            report.matched.append(birth)
        elif not carried and step in loaded:
            # A buffer of its own, since a step that donates its state gives each buffer away once.
            births.setdefault(entry.place, {})[entry.key] = jnp.copy(loaded[step])
    return births


def _with_births(state: State, births: Mapping[Place, dict[str, jax.Array]]) -> State:
    """The state with its ``born``, and those of the states within."""
    links = dict(state.links)
    for name, key in {place[0]: None for place in births if place}:
        inner = {place[1:]: found for place, found in births.items() if place[:1] == ((name, key),)}
        links[name] = {**links[name], key: _with_births(links[name][key], inner)}
    return state._replace(links=links, born=births.get((), {}))


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
