"""Trees of flax without the boxes that it puts round arrays, and flax's models as trees.

Functions that read a state take it, and the parameters, as training loops of flax hold them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
from jax.tree_util import default_registry

from .tree import BOXED, flatten
from .types import Extra, Params, PyTree

T = TypeVar("T")


def unboxed(tree: T) -> T:
    """The tree with the contents of boxes, such as the variables of flax.nnx, in their places."""

    def opened(x: PyTree) -> PyTree:
        return unboxed(*jax.tree.leaves(x, is_leaf=lambda inside: inside is not x)) if _is_box(x) else x

    return jax.tree.map(opened, tree, is_leaf=_is_box)


def reboxed(new: PyTree, like: T) -> T:
    """A tree of the form of ``unboxed(like)`` in the boxes of ``like``."""
    return flatten(like).build(flatten(new).leaves)


class Trained(NamedTuple):
    """The parameters as the tree that a state is for."""

    params: Params
    """Without boxes."""
    boxed: Params
    """In the boxes that they came in."""
    put_back: Callable[[PyTree], Params]
    """A function that gives a tree like ``params`` the form in which they came."""

    def arguments(self, extra: Extra) -> Extra:
        """Extra arguments without boxes. Functions of the parameters get them in the form in which they came."""

        def opened(x: Any) -> Any:
            return (lambda params: unboxed(x(self.put_back(params)))) if callable(x) else unboxed(x)

        return {name: opened(x) for name, x in extra.items()}


def as_trained(params: Params, state: PyTree) -> Trained:
    """The ``params`` as the tree that the ``state``, which is unboxed, is for.

    They may be boxed. They may also be a model of flax.nnx, or its whole state, of which the optimizer trains some
    variables: those are the parameters, and the others are put back as they are.
    """
    nnx: Any = sys.modules.get("flax.nnx")  # without it there is nothing of it here
    if nnx is None or not isinstance(params, (nnx.Pytree, nnx.State)):
        return Trained(unboxed(params), params, lambda new: reboxed(new, params))
    parts = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, nnx.State))
    # The path of a slot goes on after that of its parameter if the slot has several arrays.
    known = {start for x in parts if isinstance(x, nnx.State) for path in flatten(x).paths for start in _starts(path)}
    graphdef, whole = (None, params) if isinstance(params, nnx.State) else nnx.split(params)
    flat = dict(nnx.to_flat_state(whole))
    own = {path: x for path, x in flat.items() if "/".join(map(str, path)) in known}
    if not own:
        return Trained(unboxed(params), params, lambda new: reboxed(new, params))

    def put_back(new: PyTree) -> Params:
        both = {path: unboxed(x) for path, x in flat.items()} | dict(nnx.to_flat_state(new))
        moved = reboxed(nnx.from_flat_state(both), whole)
        return moved if graphdef is None else nnx.merge(graphdef, moved)

    boxed = nnx.from_flat_state(own)
    return Trained(unboxed(boxed), boxed, put_back)


def _starts(path: str) -> list[str]:
    keys = path.split("/")
    return ["/".join(keys[:n]) for n in range(1, len(keys) + 1)]


def _is_box(x: object) -> bool:
    found = default_registry.flatten_one_level_with_keys(x)
    if found is None or isinstance(x, tuple):  # a named tuple may be part of what a user's link keeps
        return False
    keys = [key for key, _ in found[0]]
    return keys == [BOXED]
