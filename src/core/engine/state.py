"""The state of a chain: one step counter, and named arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, SequenceKey, tree_flatten_with_path

from ..values.tree import show
from ..values.types import PyTree

SHOWN = 8
"""The number of entries of a container that are printed."""


class State(NamedTuple):
    """The state of a chain between steps.

    ``links[link][slot]`` is a tree like the parameters, with ``None`` for leaves without a slot. Links
    without state are absent. The entry of a `Treewise` link may be any tree. Arrays print as their
    dtype and shape, and large containers as their first entries.

    >>> import chainax as cx
    >>> cx.sgd(0.1, momentum=0.9).init({"kernel": jax.numpy.ones((2, 3)), "bias": None})
    State(step=int32[], links={'trace': {'trace': {'bias': None, 'kernel': float32[2, 3]}}}, born={})
    """

    step: jax.Array
    """The number of updates so far, an int32 scalar."""
    links: dict[str, PyTree]
    born: dict[str, jax.Array]
    """The first step of slots added during the run: ``link/`` for an inserted link, ``link/path`` for an added
    parameter. Empty if there are none. Negative for slots from a chain that had taken more steps."""

    def __repr__(self) -> str:
        return _shown(self)


def _shown(x: PyTree) -> str:
    """A tree without the contents of its arrays, which may be large or deleted."""
    children, _ = tree_flatten_with_path(x, is_leaf=lambda y: y is not x)
    if x is None or (children and not children[0][0]):
        return show(x) if hasattr(x, "dtype") else repr(x)
    entries = [_named(path[0]) + _shown(child) for path, child in children[:SHOWN]]
    if len(children) > SHOWN:
        entries.append(f"... and {len(children) - SHOWN} more")
    start, end = {dict: "{}", list: "[]", tuple: "()"}.get(type(x), (f"{type(x).__name__}(", ")"))
    return start + ", ".join(entries) + end


def _named(key: Any) -> str:
    if isinstance(key, DictKey):
        return f"{key.key!r}: "
    return "" if isinstance(key, SequenceKey) else f"{str(key).lstrip('.')}="


def next_count(count: jax.Array) -> jax.Array:
    """The count plus one, which stays at the largest int32 instead of wrapping around."""
    count = jnp.asarray(count, jnp.int32)
    return jax.lax.select(jax.lax.eq(count, np.int32(np.iinfo(np.int32).max)), count, jax.lax.add(count, np.int32(1)))
