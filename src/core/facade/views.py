"""Slots of a chain that sees the parameters in another form, in the form of the outermost parameters and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..engine.protocol import ChainLike
from ..engine.state import State
from ..values.tree import dtype_of, flatten, is_trainable, slot_dtype
from ..values.types import Leaf, Params, PyTree
from .parts import Scope

Leaves = dict[str, Any]
"""Arrays by the paths of parameters."""


class View:
    """The parameters of a chain within others, beside the outermost ones.

    Where a link shows its chain other leaves (`pack`, `flatten`, `split_complex`), its `visit` converts them in both
    directions: it takes the parameters to the chain's, and the chain's trees to those of the parameters.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        lineage = [scope]
        while lineage[0].parent is not None:
            lineage.insert(0, lineage[0].parent)
        self._hops = [one for one in lineage if _reshapes(one)]
        flat = flatten(scope.params)
        self.members = {path: (path,) for path, p in flat.items() if is_trainable(p)}
        """For each leaf that the chain sees the outermost parameters of which it is made."""
        for hop in reversed(self._hops):
            known = _members(hop)
            self.members = {
                path: tuple(dict.fromkeys(outer for one in within for outer in known.get(one, ())))
                for path, within in self.members.items()
            }

    @property
    def reshapes(self) -> bool:
        """Whether the chain sees other leaves than the outermost parameters."""
        return bool(self._hops)

    def outward(self, leaves: Leaves) -> Leaves:
        """Leaves of trees like the chain's parameters, as those of the outermost ones."""
        for hop in reversed(self._hops):
            leaves = _outward(hop, leaves)
        return leaves

    def inward(self, leaves: Leaves) -> Leaves:
        """The inverse of `outward`. Where leaves are missing, there are zeros."""
        for hop in self._hops:
            leaves = _inward(hop, leaves)
        return leaves


def _reshapes(scope: Scope) -> bool:
    """Whether a chain sees leaves that the chain around it does not see."""
    if scope.parent is None:
        return False
    outer = {path: np.shape(p) for path, p in flatten(scope.parent.params).items() if is_trainable(p)}
    inner = {path: np.shape(p) for path, p in flatten(scope.params).items() if is_trainable(p)}
    return not inner.items() <= outer.items()


def _around(scope: Scope) -> tuple[Any, Scope, PyTree]:
    """The link that holds a chain, the scope of that link, and its entry of the state."""
    assert scope.parent is not None
    name = scope.place[-1][0]
    return scope.parent.links[name], scope.parent, scope.parent.state.links[name]


def _outward(scope: Scope, leaves: Leaves) -> Leaves:
    link, parent, entry = _around(scope)
    flat = flatten(scope.params)
    tree = flat.build([leaves.get(path) for path in flat.paths])

    def visit(tx: ChainLike, params: Params, state: State) -> dict[str, PyTree]:
        return {"": tree} if state is scope.state else {}

    found = link.visit(visit, parent.params, entry)
    return {path: x for path, x in flatten(found[""]).items() if x is not None}


def _inward(scope: Scope, leaves: Leaves) -> Leaves:
    link, parent, entry = _around(scope)
    flat = flatten(parent.params)
    filled = [leaves[path] if path in leaves else _zeros(p) for path, p in flat.items()]
    found: Leaves = {}

    def visit(tx: ChainLike, params: Params, state: State) -> dict[str, PyTree]:
        found.update(flatten(params).items() if state is scope.state else ())
        return {}

    link.visit(visit, flat.build(filled), entry)
    return found


def _members(scope: Scope) -> dict[str, tuple[str, ...]]:
    """For each leaf of a chain the leaves that the chain around it sees there: its number is written into them."""
    _, parent, _ = _around(scope)
    outer = flatten(parent.params)
    trained = {path: p for path, p in flatten(scope.params).items() if is_trainable(p)}
    paths = list(trained)
    with jax.ensure_compile_time_eval():
        zeros = parent._replace(params=outer.build([_zeros(p) for p in outer.leaves]))
        numbered = {path: _zeros(p) + i for i, (path, p) in enumerate(trained.items())}
        found = {path: _numbers(x) for path, x in _outward(scope._replace(parent=zeros), numbered).items()}
    members: dict[str, list[str]] = {path: [] for path in paths}
    for path, numbers in found.items():
        for i in numbers:
            members[paths[i]].append(path)
    return {path: tuple(outer) for path, outer in members.items()}


def _numbers(x: jax.Array) -> Iterator[int]:
    first = np.asarray(x).ravel()[:1]
    parts = (np.real(first), np.imag(first)) if np.iscomplexobj(first) else (first,)
    return iter(sorted({int(n) for part in parts for n in part}))


def _zeros(p: Leaf) -> Leaf:
    return jnp.zeros(np.shape(p), slot_dtype(dtype_of(p))) if is_trainable(p) else p
