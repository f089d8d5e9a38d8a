"""The leaves that move, and the tree that they are leaves of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax

from ..values.tree import Flat, compute_dtype, dtype_of
from ..values.types import DType, Leaf, PyTree
from .checks import as_parameter, check_leaf
from .runs import zero_where


class MovingLeaf(NamedTuple):
    """A leaf that moves, on its way through the chain."""

    place: int
    """Its place among all leaves of the tree."""
    path: str
    param: Leaf
    """As it is stored; ``None`` if no parameters were passed."""
    grad: Leaf
    """The update as it came into the chain, or out of its `Link.per_example` link."""
    update: Leaf
    """As the links so far have made it; the parameter, once it is applied."""
    out: DType
    """The dtype in which the leaf leaves the chain."""
    dtype: DType
    """The real dtype of the arithmetic."""

    @classmethod
    def of(cls, place: int, path: str, u: Leaf, p: Leaf) -> MovingLeaf:
        out = dtype_of(u if p is None else p)
        return cls(place, path, p, u, u, out, compute_dtype(out))

    def zero_where(self, rejected: jax.Array) -> MovingLeaf:
        """The leaf, with an update of zeros where the step is rejected."""
        return self._replace(grad=zero_where(rejected, self.grad), update=zero_where(rejected, self.update))


class Tree(NamedTuple):
    """The whole tree, of which the walk takes the leaves that move. Whole-tree links see the others as they came."""

    flat: Flat
    updates: list[Leaf]
    """Of all leaves."""
    params: list[Leaf] | None
    """Of all leaves, if parameters were passed."""
    moving: list[MovingLeaf]

    @classmethod
    def of(cls, flat: Flat, updates: list[Leaf], params: list[Leaf] | None, per_example: bool) -> Tree:
        """Find the leaves that move: floating-point and complex ones with an update.

        Errors: ``TypeError`` where an update does not fit its parameter.
        """
        ps = [None] * len(updates) if params is None else params
        moving = [
            MovingLeaf.of(i, path, as_parameter(u, p), p)
            for i, (path, u, p) in enumerate(zip(flat.paths, updates, ps))
            if check_leaf(path, u, p, params is not None, per_example)
        ]
        return cls(flat, updates, params, moving)

    def replaced(self, still: list[Leaf], moved: Iterable[tuple[MovingLeaf, Leaf]]) -> PyTree:
        """A tree of ``still``, but for the leaves that have moved."""
        filled = list(still)
        for leaf, x in moved:
            filled[leaf.place] = x
        return self.flat.build(filled)
