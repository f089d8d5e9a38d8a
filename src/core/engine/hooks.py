"""Calls of a link's hooks: the link's name in their errors and profiles, and checks of what they return."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ..values.contents import is_array
from ..values.errors import did_you_mean
from ..values.traceable import NEEDS_VALUE
from ..values.tree import flatten, show
from ..values.types import DType, Leaf, PyTree, Scalars
from .protocol import LeafwiseLike, LinkLike

NO_PARAMS = "update was called without parameters: a link that uses them declares reads_params = True"
"""A note on errors of a link."""

NO_KEY = "the key is None: a rounding that uses it declares random = True"
"""A note on errors of a rounding."""


@contextlib.contextmanager
def blamed(name: str, none: str = "", keys: Iterable[str] = ()) -> Iterator[None]:
    """Name a link in the profile of what runs here, and in a note on exceptions.

    ``none`` is a note on errors that are due to a ``None``, and ``keys`` are those of the global state.
    """
    try:
        with jax.named_scope(name):
            yield
    except Exception as e:
        note = f"raised in link {name!r} of the chain"
        if note not in getattr(e, "__notes__", ()):
            e.add_note(note)
            if isinstance(e, NEEDS_VALUE):
                e.add_note("its hooks are traced: choose what depends on an array by jnp.where")
            if none and "NoneType" in str(e):
                e.add_note(none)
            if keys and type(e) is KeyError:
                e.add_note(f"its global state has {', '.join(keys)}{did_you_mean(str(e.args[0]), keys)}")
        raise


class LeafSlots(SimpleNamespace):
    """The slots of one leaf, as attributes for `Leafwise.leaf`."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python looks these up itself
            raise AttributeError(name)
        remedy = {"grad": "reads_grads = True", "key": "random = True"}.get(name)
        if remedy is None:
            known = [slot for slot in vars(self) if slot not in ("grad", "key")]
            remedy = f"slots = {(*known, name)!r}"
            name = f"{name!r}{did_you_mean(name, known)}; the link has {', '.join(known) or 'none'}"
        raise AttributeError(f"there is no slot {name}: declare {remedy} in its class")


def check_result(
    name: str, link: LeafwiseLike, u: jax.Array, slots: dict[str, jax.Array], result: PyTree
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The update and the slots that a leaf function returned."""
    if not link.leaf_slots:
        if type(result) is tuple:
            raise TypeError(
                f"The leaf of link {name!r} returned a tuple, but the link has no slots: return the update alone, or "
                "declare slots in its class"
            )
        new_u, new = result, {}
    elif isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
        new_u, new = result
    else:
        raise TypeError(f"The leaf of link {name!r} must return the update and a dict of its slots {link.leaf_slots}")
    if getattr(new_u, "shape", None) != u.shape or new_u.dtype != u.dtype:
        raise TypeError(f"Link {name!r} turned an update of {show(u)} into {show(new_u)}: its leaf must keep both")
    if set(new) != set(link.leaf_slots):
        raise TypeError(f"Link {name!r} declares the slots {link.leaf_slots} but its leaf returned {tuple(new)}")
    for s, x in new.items():
        if not _is_number(x) or jnp.shape(x) != jnp.shape(slots[s]) or jnp.iscomplexobj(x):
            raise TypeError(f"Link {name!r} turned its slot {s!r} of {show(slots[s])} into {show(x)}")
    return new_u, new


def check_precise(name: str, theta: jax.Array, u: jax.Array) -> None:
    """Raise unless `Rounding.precise` returned an array to which the update can be added."""
    if getattr(theta, "shape", None) != u.shape or theta.dtype != u.dtype:
        raise TypeError(f"The rounding of link {name!r} made {show(theta)} from a parameter, expected {show(u)}")


def check_rounded(
    name: str, result: PyTree, p: Leaf, residual: jax.Array | None, dtype: DType
) -> tuple[jax.Array, jax.Array | None]:
    """The parameter and the residual that `Rounding.rounded` returned."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise TypeError(f"The rounding of link {name!r} must return the parameter and its residual, which may be None")
    like = jax.ShapeDtypeStruct(jnp.shape(p), dtype)
    for what, new, old in zip(("parameter", "residual"), result, (like, residual)):
        if show(new) != show(old):
            raise TypeError(f"The rounding of link {name!r} returned {show(new)} as the {what}, expected {show(old)}")
    return result


def check_first_slots(name: str, link: LinkLike, slots: object) -> dict[str, jax.Array] | None:
    """What `init_leaf` returned."""
    if slots is None:
        return None
    if not isinstance(slots, dict) or slots.keys() != {*link.slots}:
        made = tuple(slots) if isinstance(slots, dict) else show(slots)
        raise TypeError(f"Link {name!r} declares the slots {link.slots} but its init_leaf makes {made}")
    for s, x in slots.items():
        if not is_array(x):
            raise TypeError(f"The init_leaf of link {name!r} must make an array of slot {s!r}, got {show(x)}")
    return slots


def check_scalars(name: str, scalars: Scalars) -> Scalars:
    """What `scalars` or `factor` returned."""
    for path, x in flatten(scalars).items():
        if not (x is None or _is_number(x) or isinstance(x, str)):
            where = f" at {path!r}" if path else ""
            raise TypeError(f"The scalars of link {name!r} must be arrays and numbers, got {show(x)}{where}")
    return scalars


def check_verdict(name: str, accepted: Leaf) -> jax.Array:
    """What `accepts` returned."""
    if not _is_number(accepted) or jnp.shape(accepted) or jnp.result_type(accepted) != jnp.bool_:
        remedy = ": reduce it by jnp.all" if _is_number(accepted) and jnp.shape(accepted) else ""
        raise TypeError(f"The accepts of link {name!r} must return a boolean scalar, got {show(accepted)}{remedy}")
    return accepted


def check_first_global_state(name: str, link: LinkLike, first: object) -> dict[str, jax.Array]:
    """What `init_global_state` returned."""
    if not isinstance(first, dict):
        raise TypeError(f"The init_global_state of link {name!r} must return a dict of scalars, got {show(first)}")
    if twice := [key for key in first if key in link.slots]:
        raise TypeError(f"Link {name!r} has {twice[0]!r} among its slots and in its global state: rename one of them")
    return first


def check_global_state(name: str, new: object, old: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What `update_global_state` returned."""
    if not isinstance(new, dict) or new.keys() != old.keys():
        made = ", ".join(map(str, new)) or "nothing" if isinstance(new, dict) else show(new)
        raise TypeError(
            f"The update_global_state of link {name!r} must return {', '.join(old)}, as its init_global_state does, "
            f"got {made}"
        )
    for key, x in new.items():
        if not _is_number(x) or jnp.shape(x) != jnp.shape(old[key]):
            raise TypeError(f"Link {name!r} turned {key!r} of its global state, {show(old[key])}, into {show(x)}")
        _check_inexact(f"{key!r} of its global state", name, x, old[key])
    return new


def check_entry(name: str, new: PyTree, old: PyTree) -> None:
    """Raise if the next entry of the state of a whole-tree link would be truncated."""
    if any(map(truncates, jax.tree.leaves(new), jax.tree.leaves(old))):
        for (path, x), y in zip(flatten(new).items(), flatten(old).leaves):
            if y is not None:
                _check_inexact(f"{path!r} of its state", name, x, y)


def truncates(new: Leaf, old: Leaf) -> bool:
    """Whether a number is stored as an integer that need not be one."""
    return jnp.issubdtype(jnp.result_type(old), jnp.integer) and jnp.issubdtype(jnp.result_type(new), jnp.inexact)


def _check_inexact(what: str, name: str, new: Leaf, old: Leaf) -> None:
    if truncates(new, old):
        raise TypeError(
            f"Link {name!r} turned {what}, {show(old)}, into {show(new)}, which would be truncated: begin with a "
            "floating-point number, or round the new one and convert it by astype"
        )


def _is_number(x: object) -> bool:
    """Whether ``x`` is an array or a number."""
    return is_array(x) or isinstance(x, (numbers.Number, np.generic))
