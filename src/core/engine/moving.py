"""The leaves with an update, and the tree that contains them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..values.conditions import zero_where
from ..values.tree import Flat, compute_dtype, dtype_of
from ..values.types import DType, Leaf, PyTree
from .checks import as_parameter, check_leaf


class MovingLeaf(NamedTuple):
    """A leaf with an update, on its way through the chain."""

    place: int
    """The index among all leaves of the tree."""
    path: str
    param: Leaf
    """The parameter as stored; ``None`` if no parameters were passed."""
    grad: Leaf
    """The input of the chain, or the output of its `Link.per_example` link."""
    update: Leaf
    """The output of the links so far. Once the update is applied, the new parameter."""
    out: DType
    """The dtype of the chain's output."""
    dtype: DType
    """The real dtype of the arithmetic."""

    @classmethod
    def of(cls, place: int, path: str, u: Leaf, p: Leaf) -> MovingLeaf:
        out = dtype_of(u if p is None else p)
        return cls(place, path, p, u, u, out, compute_dtype(out))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return jnp.shape(self.update if self.param is None else self.param)

    def zero_where(self, dropped: jax.Array | None) -> MovingLeaf:
        """The leaf, with an update of zeros where the result of the step is dropped."""
        return self._replace(grad=zero_where(dropped, self.grad), update=zero_where(dropped, self.update))


class Tree(NamedTuple):
    """The entire tree. The walk transforms the leaves with an update; whole-tree links also see the others."""

    flat: Flat
    updates: list[Leaf]
    """The updates of all leaves."""
    params: list[Leaf] | None
    """The parameters of all leaves, if they were passed."""
    moving: list[MovingLeaf]
    """The leaves with an update."""

    @classmethod
    def of(cls, flat: Flat, updates: list[Leaf], params: list[Leaf] | None, per_example: bool) -> Tree:
        """Find the floating-point and complex leaves with an update.

        Errors: ``TypeError`` if an update does not fit its parameter.
        """
        ps = [None] * len(updates) if params is None else params
        moving = [
            MovingLeaf.of(i, path, as_parameter(u, p), p)
            for i, (path, u, p) in enumerate(zip(flat.paths, updates, ps))
            if check_leaf(path, u, p, params is not None, per_example)
        ]
        return cls(flat, updates, params, moving)

    def replaced(self, originals: list[Leaf], moved: Iterable[tuple[MovingLeaf, Leaf]]) -> PyTree:
        """The tree of ``originals``, with these leaves replaced."""
        leaves = list(originals)
        for leaf, x in moved:
            leaves[leaf.place] = x
        return self.flat.build(leaves)
