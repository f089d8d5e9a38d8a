"""Saving and loading states as named NumPy arrays, and adapting them to another chain or model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..engine import engine
from ..engine.processes import gathered, placed
from ..engine.protocol import LinkLike, Links
from ..engine.state import State
from ..values.errors import PlainKeyError
from ..values.tree import flatten, show
from ..values.types import DType, Params, PyTree
from .telemetry import within

Array: TypeAlias = jax.Array | np.ndarray
ArrayLike: TypeAlias = Any
"""An array, or a number, which some file formats return for a scalar."""

VERSION = 1
"""The version of the format that `state_dict` writes. It is incremented when a link of the library gets a new entry."""

VERSION_KEY = "chainax"
"""The key of the version, which version 0 did not write."""


class Report(NamedTuple):
    """The names of the entries of a loaded state, by what happened to them."""

    matched: list[str]
    """Loaded."""
    missing: list[str]
    """Not in the source: initialized as by `init`, or as a copy of another slot if the link declares one."""
    unexpected: list[str]
    """In the source, but of no link or parameter here: ignored."""
    mismatched: list[str]
    """In both, but with another shape or invalid numbers: initialized as by `init`."""

    def __str__(self) -> str:
        parts = [f"{len(names)} {kind}" for kind, names in zip(self._fields, self)]
        details = [f"{kind}: {_listed(names)}" for kind, names in zip(self._fields[1:], self[1:]) if names]
        return "\n".join([", ".join(parts), *details])


def _listed(names: list[str], most: int = 20) -> str:
    shown = [name if len(name) <= 200 else f"{name[:200]}..." for name in names[:most]]
    return ", ".join(shown) + (f", and {len(names) - most} more" if len(names) > most else "")


def state_dict(state: State) -> dict[str, np.ndarray]:
    """See `Transformation.state_dict`; the methods of the same names document the next three functions."""
    arrays = {name: np.asarray(gathered(name, x)) for name, x in _named(state).items()}  # one at a time
    return {VERSION_KEY: np.array(VERSION, np.int32), **arrays}


def load_state_dict(  # noqa: D103
    links: Links, params: Params, arrays: Mapping[str, ArrayLike], *, strict: bool = True
) -> tuple[State, Report]:
    arrays = _flat(arrays)
    version = _version(arrays)
    arrays.pop(VERSION_KEY, None)
    state, report, newer, _ = _load(links, params, arrays, trusted=False)
    missing = [name for name in report.missing if version == VERSION or name not in newer]
    if strict and (missing or report.unexpected or report.mismatched):
        raise PlainKeyError(
            f"the arrays do not match this chain and these parameters (strict=False loads what does): {report}"
        )
    return state, report


def _flat(arrays: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
    """The arrays by name. Accepts nested dicts too, as flax and Orbax restore a state."""
    if not isinstance(arrays.get("links"), Mapping):
        return dict(arrays)
    return {name.removeprefix("links/"): x for name, x in flatten(dict(arrays)).items() if x is not None}


def _unboxed(arrays: Mapping[str, ArrayLike], names: Iterable[str]) -> dict[str, ArrayLike]:
    """The arrays under the given names where possible: flax.nnx boxes arrays, and Orbax restores boxes as dicts."""
    boxes = {f"{name}/value": name for name in names if name not in arrays}
    return {boxes.get(name, name): x for name, x in arrays.items()}


def adopt(links: Links, params: Params, state: State) -> tuple[State, Report]:  # noqa: D103
    loaded = _load(links, params, _named(state), trusted=True)
    return loaded.state, loaded.report


def add_param_group(links: Links, params: Params, state: State) -> State:  # noqa: D103
    loaded = _load(links, params, _named(state), trusted=True)
    if loaded.lost:
        raise PlainKeyError(
            f"what {', '.join(map(repr, loaded.lost))} keeps of the whole tree does not fit the new parameters: start "
            "from tx.init(params), give the new parameters their own chain with partition, or let the link start "
            "over with tx.adopt(params, state)"
        )
    return loaded.state


def _version(arrays: Mapping[str, ArrayLike]) -> int:
    version = np.asarray(arrays.get(VERSION_KEY, 0))
    if version.shape or version.dtype.kind not in "iu" or not 0 <= version <= VERSION:
        got = version.item() if not version.shape and version.dtype.kind in "iuf" else show(version)
        raise ValueError(
            f"the state has version {got}, but this chainax reads versions up to {VERSION}: upgrade chainax"
        )
    return int(version)


class _Loaded(NamedTuple):
    state: State
    report: Report
    newer: set[str]
    """The entries that may be missing from states of earlier versions."""
    lost: list[str]
    """The links that would lose their state for the whole tree."""


def _load(links: Links, params: Params, arrays: Mapping[str, ArrayLike], *, trusted: bool) -> _Loaded:
    """The state for these links and parameters, with the arrays that fit. Unless ``trusted``, numbers are checked."""
    fresh = engine.init(links, params)
    news, treedef = _beside(params, _named(fresh)), jax.tree.structure(fresh)
    arrays = _unboxed(arrays, news)
    parts = list(_parts(links, params, fresh, jax.tree.unflatten(treedef, list(news))))
    _check_joined(parts, arrays)
    nonnegative = {name: part for part in parts for slot in part.link.nonnegative for name in part.names(slot)}
    report, loaded = Report([], [], [], []), {}
    for name, new in news.items():
        if name not in arrays:
            report.missing.append(name)
            continue
        problem = _misfit(arrays[name], new)
        if not (problem or trusted):
            part = nonnegative.get(name)
            least = 0.0 if part or name == "step" or name.endswith("/step") else -math.inf
            # An infinite mean square is valid: it stops only its coordinate. Other infinities come only from `init`.
            endless = part is not None and part.path is not None
            problem = _odd_numbers(name, arrays[name], new, least, endless=endless)
        if problem:
            report.mismatched.append(f"{name} ({problem})")
        else:
            loaded[name] = _owned(name, arrays[name], new)
    given = None if trusted else arrays
    lost = [part.link_name for part in parts if _settle(part, news, loaded, report, unchecked=given)]
    report.matched.extend(name for name in loaded if name in arrays)
    births = _births(parts, news, loaded, arrays, report)
    known = {*news, *report.matched}
    report.unexpected.extend(name for name in arrays if name not in known)
    state = jax.tree.unflatten(treedef, [loaded.get(name, new) for name, new in news.items()])
    newer = {name for part in parts for slot in part.link.absent for name in part.names(slot)}
    return _Loaded(_with_births(state, births), report, newer, list(dict.fromkeys(lost)))


# Entries that are loaded together

Place = tuple[tuple[str, str], ...]
"""The position of an inner chain's state: a link, and the key in its entry, for each level of nesting."""


class _Part(NamedTuple):
    """Arrays of a link that are initialized together: the slots for one parameter, or the state for the whole tree."""

    place: Place
    prefix: str
    """The prefix of the names in this chain's state."""
    link_name: str
    link: LinkLike
    path: str | None
    """The parameter's path; ``None`` for the whole tree."""
    shape: tuple[int, ...]
    """The parameter's shape, with an additional last axis of 2 for complex ones."""
    slots: dict[str, PyTree]
    """For each slot the names of its arrays, in the structure of the slot."""

    def names(self, slot: str) -> list[str]:
        return jax.tree.leaves(self.slots.get(slot))


def _parts(
    links: Links, params: Params, state: State, names: State, place: Place = (), prefix: str = ""
) -> Iterator[_Part]:
    """The parts of a chain's state and its inner chains' states. ``names`` has the name of each array of ``state``."""
    flat = flatten(params)
    for name, link in links.items():
        if name not in state.links:
            continue
        entry = names.links[name]
        kept = entry if isinstance(entry, dict) else {"": entry}
        others = {key: x for key, x in kept.items() if key not in link.slots}
        for key, inner, inner_params, inner_state in within(name, link, state, params):
            inner_prefix = f"{prefix}{'links/' if prefix else ''}{name}/{key}/"
            inner_place = (*place, (name, key))
            yield from _parts(inner, inner_params, inner_state, others.pop(key), inner_place, inner_prefix)
        columns = [flat.line_up(f"The slots {slot!r}", entry[slot]) for slot in link.slots]
        for path, p, *own in zip(flat.paths, flat.leaves, *columns):
            if any(x is not None for x in own):
                shape = np.shape(p) + (2,) * jnp.iscomplexobj(p)
                yield _Part(place, prefix, name, link, path, shape, dict(zip(link.slots, own)))
        if jax.tree.leaves(others):
            yield _Part(place, prefix, name, link, None, (), others)


def _check_joined(parts: list[_Part], arrays: Iterable[str]) -> None:
    """Raise if stored slots that parameters share belong to a different set of parameters."""
    arrays = list(arrays)
    for part in parts:
        for key in part.slots if part.link.joins else ():
            own = part.slots[key]
            head = own.removesuffix(key) + part.link.joins
            stored = [name for name in arrays if name.startswith(head) and "/" not in name.removeprefix(head)]
            if stored and own not in stored:
                raise PlainKeyError(
                    f"{part.link_name!r} stores the slots of several parameters as one array, and the stored array "
                    "belongs to a different set of parameters: start from tx.init(params)"
                )


def _settle(
    part: _Part,
    news: Mapping[str, Array],
    loaded: dict[str, Array],
    report: Report,
    *,
    unchecked: Mapping[str, ArrayLike] | None,
) -> bool:
    """Load all slots of a part or none: with means but no mean squares, the steps would have another length.

    ``unchecked`` has the arrays that were loaded, if their codes must be checked.
    Returns whether loaded arrays for the whole tree were dropped.
    """
    before = len(loaded)

    def drop(names: Iterable[str], why: str) -> None:
        report.mismatched.extend(f"{name} ({why})" for name in names if loaded.pop(name, None) is not None)

    for slot in part.slots:
        names = part.names(slot)
        if not all(name in loaded for name in names):  # codes are meaningless without their scales
            drop(names, "the other arrays of its slot do not fit")
        elif unchecked is not None and (problem := _odd_codes(part, slot, unchecked, news)):
            drop(names, problem)
    lacking = [slot for slot in part.slots if not all(name in loaded for name in part.names(slot))]
    for slot in lacking:
        source, names = part.link.absent.get(slot), part.names(slot)
        copies = part.names(source) if source and source not in lacking else []
        if [(news[n].shape, news[n].dtype) for n in names] == [(news[n].shape, news[n].dtype) for n in copies]:
            loaded |= {name: jnp.copy(loaded[like]) for name, like in zip(names, copies)}
        elif slot not in part.link.absent:
            drop(jax.tree.leaves(part.slots), f"it goes with {slot!r}, which could not be loaded")
    return part.path is None and len(loaded) < before


def _births(
    parts: list[_Part],
    news: Mapping[str, Array],
    loaded: Mapping[str, Array],
    arrays: Mapping[str, ArrayLike],
    report: Report,
) -> dict[Place, dict[str, jax.Array]]:
    """The ``born`` of each chain's state. Loaded parts keep theirs; for parts that were not, it is the current step."""
    births: dict[Place, dict[str, jax.Array]] = {}
    links: dict[tuple[Place, str], list[_Part]] = {}
    for part in parts:
        if part.link.final_rounding is None and (part.link.treewise or part.path is not None):
            links.setdefault((part.place, part.link_name), []).append(part)
    for (place, link), own in links.items():
        prefix, born = own[0].prefix, births.setdefault(place, {})
        count = news[f"{prefix}step"]
        step: Any = loaded.get(f"{prefix}step")
        steps = math.inf if isinstance(step, Tracer) else 0 if step is None else int(step)
        carried = {part.path for part in own if any(name in loaded for name in jax.tree.leaves(part.slots))}
        # If nothing was loaded there is one birth for the entire link, otherwise one for each parameter.
        paths = [part.path for part in own if part.path] if carried else []
        for path in ("", *paths):
            key = f"{link}/{path}"
            if (path in carried if path else carried) and (stored := f"{prefix}born/{key}") in arrays:
                problem = _misfit(arrays[stored], count) or _odd_numbers(stored, arrays[stored], count, 0.0)
                if not problem and 0 < steps < math.inf and np.asarray(arrays[stored]) > steps:
                    problem = "a step in the future"
                if problem:
                    report.mismatched.append(f"{stored} ({problem})")
                else:
                    report.matched.append(stored)
                    born[key] = _owned(stored, arrays[stored], count)
            elif step is not None and steps > 0 and path not in carried and (path or not carried):
                born[key] = jnp.copy(step)  # each buffer of a state can be donated only once
    return births


def _with_births(state: State, births: Mapping[Place, dict[str, jax.Array]]) -> State:
    """The state with its ``born``, and with those of the inner chains' states."""
    links = dict(state.links)
    for name, key in {place[0]: None for place in births if place}:
        inner = {place[1:]: found for place, found in births.items() if place[:1] == ((name, key),)}
        links[name] = {**links[name], key: _with_births(links[name][key], inner)}
    return state._replace(links=links, born=births.get((), {}))


# Arrays


def _misfit(x: ArrayLike, like: Array) -> str:
    """Why an array cannot be converted to the shape and dtype of another; ``""`` if it can."""
    dtype = np.dtype(x.dtype) if hasattr(x, "dtype") else np.asarray(x).dtype
    kinds = "iufc" if jnp.iscomplexobj(like) else "iuf"
    numbers = dtype.kind in kinds or jnp.issubdtype(dtype, jnp.floating) or _is_nameless(dtype, like)
    return "" if numbers and np.shape(x) == like.shape else f"{dtype}{list(np.shape(x))} for {show(like)}"


def _odd_numbers(name: str, stored: ArrayLike, like: Array, least: float, *, endless: bool = False) -> str:
    """The invalid numbers of an array, which no step can have stored; ``""`` if all are valid.

    Numbers must not be below ``least``. They must be finite, or equal to those of ``like``, the array's first value,
    or +∞ with ``endless``.
    """
    if isinstance(stored, Tracer) or isinstance(like, Tracer):
        return ""
    x = _typed(name, stored, like)
    with np.errstate(all="ignore"):
        loaded = x.astype(like.dtype)
    if not jnp.issubdtype(like.dtype, jnp.inexact):
        if not np.array_equal(loaded, x):
            return f"numbers that {like.dtype} cannot hold"
    else:
        odd = ~(np.isfinite(loaded) | (endless & (x == math.inf)))  # alike in all processes: all gather or none
        if odd.any() and (odd & (x != np.asarray(gathered(name, like)))).any():
            return "numbers that are not finite"
    parts = (np.real(loaded), np.imag(loaded)) if np.iscomplexobj(loaded) else (loaded,)
    return f"numbers below {least:g}" if least > -math.inf and any(np.any(x < least) for x in parts) else ""


def _odd_codes(part: _Part, slot: str, arrays: Mapping[str, ArrayLike], news: Mapping[str, Array]) -> str:
    """The invalid numbers of a slot that is stored as codes and scales; ``""`` if all are valid."""
    codes = part.slots[slot]
    formats = getattr(part.link, "formats", None)
    if not isinstance(codes, dict) or part.path is None or formats is None:
        return ""
    form, signed = formats.of(slot, part.path), slot not in part.link.nonnegative
    if any(isinstance(arrays[name], Tracer) for name in codes.values()):
        return ""
    kept = {key: jnp.array(_typed(name, arrays[name], news[name]), news[name].dtype) for key, name in codes.items()}
    if np.any(np.asarray(kept.get("scale", 0.0)) < 0):
        return "scales below 0"
    if form is None:
        return ""
    like = np.zeros(part.shape, np.float32)
    return _odd_numbers(slot, form.widen(kept, part.shape, signed), like, -math.inf if signed else 0.0)


def _is_nameless(dtype: DType, like: Array) -> bool:
    """Whether this is the dtype of bytes that NumPy's files return for bfloat16 and similar types."""
    return dtype == np.dtype(f"V{like.dtype.itemsize}")


def _typed(name: str, stored: ArrayLike, like: Array) -> np.ndarray:
    x = np.asarray(gathered(name, stored))
    return x.view(like.dtype) if _is_nameless(x.dtype, like) else x


def _owned(name: str, stored: ArrayLike, like: Array) -> jax.Array:
    """A copy of the array in the dtype and sharding of another.

    Without the copy, JAX might use the memory of a NumPy array, or of the file that it maps.
    """
    if isinstance(stored, Tracer) or not isinstance(like, jax.Array) or isinstance(like, Tracer):
        return jnp.array(stored if isinstance(stored, jax.Array) else _typed(name, stored, like), like.dtype)
    is_local = like.sharding.is_fully_addressable
    if isinstance(stored, jax.Array) and stored.is_fully_addressable == is_local:
        return jax.device_put(stored, like.sharding, may_alias=False).astype(like.dtype)
    return placed(_typed(name, stored, like), like.dtype, like.sharding)


def _beside(params: Params, named: dict[str, Any]) -> dict[str, Any]:
    """The arrays, with those that `init` left on the default device on the parameters' one device, if they have one."""
    put = [p for p in jax.tree.leaves(params) if isinstance(p, jax.Array) and not isinstance(p, Tracer) and p.committed]
    own = put[0].devices() if put else ()
    if len(own) != 1:
        return named
    return {name: x if isinstance(x, Tracer) or x.committed else jax.device_put(x, *own) for name, x in named.items()}


def _named(state: State) -> dict[str, Array]:
    """The arrays of the state by name, in the order of its leaves."""
    named: dict[str, Array] = {}
    for name, x in flatten(state).items():
        if x is None:
            continue
        name = name.removeprefix("links/")
        if name in named:
            raise ValueError(f"two arrays of the state have the name {name!r}: rename one of the parameters")
        named[name] = x
    return named
