"""Saving and loading states as named NumPy arrays, and adapting them to another chain or model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..engine import engine
from ..engine.processes import gathered
from ..engine.protocol import Links
from ..engine.state import State
from ..values.contents import code
from ..values.errors import PlainKeyError, did_you_mean
from ..values.tree import flatten, show
from ..values.types import Params
from .arrays import Array, ArrayLike, beside, misfit, named, odd_codes, odd_numbers, owned
from .carrying import Carrying
from .losses import warn_of_losses, warn_of_pending
from .parts import Part, Place, Scope, under_old_paths

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
    arrays = {name: np.asarray(gathered(name, x)) for name, x in named(state).items()}  # one at a time
    return {VERSION_KEY: np.array(VERSION, np.int32), **arrays}


def load_state_dict(  # noqa: D103
    links: Links,
    params: Params,
    arrays: Mapping[str, ArrayLike],
    *,
    strict: bool = True,
    old: Links | None = None,
    paths: Mapping[str, str] | None = None,
) -> tuple[State, Report]:
    arrays = _flat(arrays)
    version = _version(arrays)
    arrays.pop(VERSION_KEY, None)
    if paths is not None:
        check_paths(paths, params)
    edit = None if strict and old is None and not paths else Edit("load_state_dict", old, paths or {}, warns=False)
    refused = Report([], [], [], [])
    if old is not None:  # which reads and checks the arrays
        before = under_old_paths(params, {new: path for path, new in (paths or {}).items()})
        state, refused, _, _ = _load(old, before, arrays, None, trusted=False)
        loaded = {*refused.matched}
        arrays = {name: x for name, x in named(state).items() if name in loaded}
        renamed = {path: new for path, new in (paths or {}).items() if any(n.endswith(f"/{path}") for n in arrays)}
        edit = edit and edit._replace(paths=renamed)
    state, report, newer, _ = _load(links, params, arrays, edit, trusted=old is not None)
    report.unexpected.extend(refused.unexpected)
    report.mismatched.extend(refused.mismatched)
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


def adopt(  # noqa: D103
    links: Links, params: Params, state: State, *, old: Links | None = None, paths: Mapping[str, str] | None = None
) -> tuple[State, Report]:
    if old is not None:
        _check_old(old, state)
    if paths is not None:
        check_paths(paths, params)
    loaded = _load(links, params, named(state), Edit("adopt", old, paths or {}), trusted=True)
    return loaded.state, loaded.report


def add_param_group(links: Links, params: Params, state: State) -> State:  # noqa: D103
    loaded = _load(links, params, named(state), Edit("add_param_group"), trusted=True)
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


class Edit(NamedTuple):
    """What is known of the edits between a state's chain and the one that takes it."""

    call: str
    """The function that was called, for warnings."""
    old: Links | None = None
    paths: Mapping[str, str] = {}
    """The new paths of parameters, by their old ones."""
    warns: bool = True
    """Whether to warn of slots that are lost."""


def _check_old(old: Links, state: State) -> None:
    """Raise unless the links with an entry in the state are links of the old chain."""
    unknown = [name for name in state.links if name not in old]
    lacking = [name for name, link in old.items() if link.slots and name not in state.links]
    if unknown or lacking:
        parts = [f"holds {', '.join(unknown)}"] * bool(unknown) + [f"lacks {', '.join(lacking)}"] * bool(lacking)
        raise PlainKeyError(
            f"the state is not of the chain in old= ({' → '.join(old) or 'no links'}): it {' and '.join(parts)}. Pass "
            "the chain whose init and step made it"
        )


def check_paths(paths: Mapping[str, str], params: Params) -> None:
    """Raise unless each new path is that of a parameter, and each old one of none."""
    if not isinstance(paths, Mapping) or not all(isinstance(x, str) for pair in paths.items() for x in pair):
        raise TypeError(f"paths must be a dict {{'old/path': 'new/path'}}, got {code(paths)}")
    known = flatten(params).paths
    for old, new in paths.items():
        if new not in known:
            raise PlainKeyError(
                f"paths renames {old!r} to {new!r}, but no parameter has this path{did_you_mean(new, known)}; they are "
                f"like {', '.join(map(repr, known[:3]))}"
            )
        if old in known and old not in paths.values():
            raise PlainKeyError(f"paths renames {old!r} to {new!r}, but {old!r} is the path of a parameter still")
        if [*paths.values()].count(new) > 1:
            raise PlainKeyError(f"paths renames several parameters to {new!r}: give each its own path")


class _Loaded(NamedTuple):
    state: State
    report: Report
    newer: set[str]
    """The entries that may be missing from states of earlier versions."""
    lost: list[str]
    """The links that would lose their state for the whole tree."""


def _load(
    links: Links, params: Params, arrays: Mapping[str, ArrayLike], edit: Edit | None, *, trusted: bool
) -> _Loaded:
    """The state for these links and parameters, with the arrays that fit. Unless ``trusted``, numbers are checked.

    With ``edit``, arrays that have other names in this chain are found too, and a warning names those that are lost.
    """
    fresh = engine.init(links, params)
    news, treedef = beside(params, named(fresh)), jax.tree.structure(fresh)
    arrays = _unboxed(arrays, news)
    root = Scope(links, params, fresh, jax.tree.unflatten(treedef, list(news)))
    parts = [part for scope in root.within() for part in scope.parts()]
    counts = {f"{scope.prefix}step" for scope in root.within()}
    known = edit is not None and (edit.old is not None or bool(edit.paths))
    carrying = None
    if edit is not None and (known or any(x not in arrays or misfit(arrays[x], new) for x, new in news.items())):
        carrying = Carrying(root, news, arrays, edit.old, edit.paths)
        arrays = carrying.arrays
    _check_joined(parts, arrays)
    nonnegative = {name: part for part in parts for slot in part.link.nonnegative for name in part.names(slot)}
    report, loaded = Report([], [], [], []), {}
    for name, new in news.items():
        if name not in arrays:
            report.missing.append(name)
            continue
        problem = misfit(arrays[name], new)
        if problem and trusted and name in counts:
            raise ValueError(
                f"the count {name!r} of the state is {problem}: a state that jax.vmap has stacked is adopted within "
                "jax.vmap"
            )
        if not (problem or trusted):
            part = nonnegative.get(name)
            least = 0.0 if part or name in counts else -math.inf
            # An infinite mean square is valid: it stops only its coordinate. Other infinities come only from `init`.
            endless = part is not None and part.path is not None
            problem = odd_numbers(name, arrays[name], new, least, endless=endless)
        if problem:
            report.mismatched.append(f"{name} ({problem})")
        else:
            loaded[name] = owned(name, arrays[name], new)
    given = None if trusted else arrays
    lost = [part.link_name for part in parts if _settle(part, news, loaded, report, unchecked=given)]
    report.matched.extend(name for name in loaded if name in arrays)
    births = _births(parts, news, loaded, arrays, report)
    found = {*news, *report.matched}
    if carrying is None or edit is None:
        report.unexpected.extend(name for name in arrays if name not in found)
    else:
        found = carrying.used if edit.old is not None else found | carrying.used
        report.unexpected.extend(name for name in carrying.old_arrays if name not in found)
        if edit.warns:
            warn_of_losses(edit.call, carrying, parts, loaded, report.mismatched)
            warn_of_pending(edit.call, carrying, report.unexpected)
    state = jax.tree.unflatten(treedef, [loaded.get(name, new) for name, new in news.items()])
    newer = {name for part in parts for slot in part.link.absent for name in part.names(slot)}
    return _Loaded(_with_births(state, births), report, newer, list(dict.fromkeys(lost)))


# Parts


def _check_joined(parts: list[Part], arrays: Iterable[str]) -> None:
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
    part: Part,
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
        elif unchecked is not None and (problem := odd_codes(part, slot, unchecked, news)):
            drop(names, problem)
    lacking = [slot for slot in part.slots if not all(name in loaded for name in part.names(slot))]
    for slot in lacking:
        start, names = part.link.absent.get(slot), part.names(slot)
        copies = part.names(start) if isinstance(start, str) and start not in lacking else []
        if [(news[n].shape, news[n].dtype) for n in names] == [(news[n].shape, news[n].dtype) for n in copies]:
            loaded |= {name: jnp.copy(loaded[like]) for name, like in zip(names, copies)}
        elif slot not in part.link.absent:
            drop(jax.tree.leaves(part.slots), f"it goes with {slot!r}, which could not be loaded")
        elif isinstance(start, (int, float)) and len(lacking) < len(part.slots):
            loaded |= {name: jnp.full_like(news[name], start) for name in names}
    return part.path is None and len(loaded) < before


def _births(
    parts: list[Part],
    news: Mapping[str, Array],
    loaded: Mapping[str, Array],
    arrays: Mapping[str, ArrayLike],
    report: Report,
) -> dict[Place, dict[str, jax.Array]]:
    """The ``born`` of each chain's state. Loaded parts keep theirs; for parts that were not, it is the current step."""
    births: dict[Place, dict[str, jax.Array]] = {}
    links: dict[tuple[Place, str], list[Part]] = {}
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
                # The steps since then must be an int32, too.
                least = steps - np.iinfo(np.int32).max if steps < math.inf else -math.inf
                problem = misfit(arrays[stored], count) or odd_numbers(stored, arrays[stored], count, least)
                if not problem and 0 < steps < math.inf and np.asarray(arrays[stored]) > steps:
                    problem = "a step in the future"
                if problem:
                    report.mismatched.append(f"{stored} ({problem})")
                else:
                    report.matched.append(stored)
                    born[key] = owned(stored, arrays[stored], count)
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
