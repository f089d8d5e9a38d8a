"""What the engine checks, and the errors that say where and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from .hyper import by_path, pick
from .tree import dtype_of, flatten, is_trainable, shard_axes, show, widened
from .value import PlainKeyError
from .warning import warn

if TYPE_CHECKING:
    from .link import Leafwise


REMEDY = "Carry it over with adopt(params, state), or begin anew with init(params)"
"""For a state of another chain."""


def check_arguments(
    links: dict[str, Any], updates: Any, state: Any, params: Any, extra: dict[str, Any], *, apply: bool
) -> None:
    """Raise unless these links can work with these arguments."""
    accepted = {argument: name for name, link in links.items() for argument in link.extra}
    for argument in extra:
        if argument not in accepted:
            takes = f"accepts {', '.join(accepted)}" if accepted else "accepts none"
            raise TypeError(f"Unknown extra argument {argument!r}: this chain {takes}")
    for argument, name in accepted.items():
        if argument not in extra:
            raise TypeError(f"Link {name!r} reads {argument!r}: call update(grads, state, params, {argument}=...)")
    for name, link in links.items():
        if link.role == "apply" and not apply:
            raise TypeError(f"Link {name!r} rounds the parameters itself: call step(params, state, grads), not update")
    if params is None and updates is not None:
        for name, link in links.items():
            if link.reads_params:
                raise TypeError(f"Link {name!r} reads the parameters: call update(grads, state, params).")
    check_state(state)
    missing = [n for n, link in links.items() if n not in state.links and (link.slots or _keeps_state(link, params))]
    unknown = [n for n in state.links if n not in links]
    if missing or unknown:
        parts = [f"it lacks {', '.join(missing)}"] * bool(missing) + [f"it holds {', '.join(unknown)}"] * bool(unknown)
        raise PlainKeyError(
            f"The state is not of this chain ({' → '.join(links) or 'no links'}): {' and '.join(parts)}. {REMEDY}"
        )
    for name, entry in state.links.items():
        _check_entry(name, links[name], entry)


def _check_entry(name: str, link: Any, entry: Any) -> None:
    """Raise unless a link's entry has its slots, and what it remembers."""
    if link.treewise or (isinstance(entry, dict) and entry.keys() == {*link.slots}):
        return
    expected = [*link.slots, *jax.eval_shape(link.init_memory)]
    if not isinstance(entry, dict) or entry.keys() != {*expected}:
        found = ", ".join(entry) if isinstance(entry, dict) else show(entry)
        raise PlainKeyError(
            f"The state is not of this chain: link {name!r} keeps {', '.join(expected) or 'nothing'}, the state has "
            f"{found} under its name. {REMEDY}"
        )


def check_state(state: Any) -> None:
    """Raise unless this is the state of some chain."""
    if not hasattr(state, "links") or not hasattr(state, "step"):
        raise TypeError(f"The state must be what init(params) or the last update returned, got {show(state)}")


def check_leaf(path: str, u: Any, p: Any, has_params: bool, examples: bool = False) -> bool:
    """Whether the leaf moves; raises if update and parameter do not fit each other.

    With ``examples`` the update has a first axis more.
    """
    if has_params and p is None and u is not None:
        raise TypeError(f"The update at {path!r} is {show(u)}, where the parameters have None")
    if p is not None and not is_trainable(p):
        return False
    if u is None or getattr(u, "dtype", None) == jax.dtypes.float0:
        return False
    if not is_trainable(u):
        if p is None:
            return False
        raise TypeError(f"The update at {path!r} is {show(u)}, where the parameter is {show(p)}")
    shape = jnp.shape(u)
    if examples and not shape:
        raise TypeError(f"The update at {path!r} is a scalar, where a first axis of examples is expected")
    if p is not None and shape[examples:] != jnp.shape(p):
        more = " after the axis of examples" if examples else ""
        raise TypeError(f"The update at {path!r} has shape {list(shape)}, the parameter {list(jnp.shape(p))}{more}")
    if p is not None and jnp.iscomplexobj(u) and not jnp.iscomplexobj(p):
        raise TypeError(f"The update at {path!r} is complex, the parameter is not")
    if p is not None and (axes := [axis for axis in shard_axes(u) if axis not in shard_axes(p)]):
        raise TypeError(
            f"The update at {path!r} differs from device to device along {axes[0]!r}, the parameter does not: "
            f"average the gradients first, jax.lax.pmean(grads, {axes[0]!r})"
        )
    return True


def unshardable(name: str, path: str, axes: tuple[str, ...]) -> str:
    """What a link is told that would take a shard for the whole of a parameter."""
    along = " and ".join(map(repr, axes))
    return (
        f"Link {name!r} computes with several numbers of {path!r} at once, and jax.shard_map gives each device only a "
        f"part of them, along {along}: call step outside of shard_map, where JAX shards it by itself, or "
        f"gather the parameter and its gradient first (jax.lax.all_gather)"
    )


def as_parameter(u: Any, p: Any) -> Any:
    """The update; one of real numbers for a complex parameter made complex."""
    return jnp.asarray(u, dtype_of(p)) if jnp.iscomplexobj(p) and not jnp.iscomplexobj(u) else u


def check_result(name: str, link: Leafwise, u: Any, slots: dict[str, Any], result: Any) -> tuple[Any, dict]:
    """What a leaf function returned, taken apart."""
    if not link.slots:
        new_u, new = result, {}
    elif isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
        new_u, new = result
    else:
        raise TypeError(f"The leaf of link {name!r} must return the update and a dict of its slots {link.slots}")
    if getattr(new_u, "shape", None) != u.shape or new_u.dtype != u.dtype:
        raise TypeError(f"Link {name!r} turned an update of {show(u)} into {show(new_u)}: its leaf must keep both")
    if set(new) != set(link.slots):
        raise TypeError(f"Link {name!r} declares the slots {link.slots} but its leaf returned {tuple(new)}")
    for s, x in new.items():
        if jnp.shape(x) != jnp.shape(slots[s]):
            raise TypeError(f"Link {name!r} turned its slot {s!r} of {show(slots[s])} into {show(x)}")
    return new_u, new


def warn_of_unmatched(links: dict[str, Any], params: Any) -> None:
    """Warn of patterns that decide for no parameter: most often a mistyped weight-decay mask."""
    flat = flatten(params)
    for name, link in links.items():
        for field in link._leaves:
            table = getattr(link, field)
            if not isinstance(table, by_path):
                continue
            chosen = {pick(f"{name}.{field}", table, path)[0] for path, p in flat.items() if is_trainable(p)}
            for i, pattern in enumerate(table.patterns):
                if chosen and i not in chosen:
                    warn(
                        f"`{name}.{field}`: the pattern {pattern!r} decides for no parameter; the paths are like "
                        f"{', '.join(map(repr, flat.paths[:3]))}"
                    )


def _keeps_state(link: Any, params: Any) -> bool:
    """Whether a link has a state beside its slots, as far as can be known."""
    if not link.treewise:
        return bool(link.init_memory())
    if params is None:
        return False
    like = params if link.moves_params else widened(params)
    return bool(jax.tree.leaves(jax.eval_shape(link.init_tree, like)))
