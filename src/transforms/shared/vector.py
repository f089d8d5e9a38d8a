"""A tree as one real vector, for links that treat all parameters together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from ...core.engine.step_info import StepInfo
from ...core.values.tree import by_axes, compute_dtype, flatten, from_real, is_trainable, summed, to_real, widest
from ...core.values.types import DType, Params, PyTree

T = TypeVar("T")

Vector = list[jax.Array]
"""Real arrays, one for each trained parameter. Those of complex parameters have an additional last axis of 2."""


class Space:
    """Conversion between trees like the parameters and vectors."""

    def __init__(self, params: Params) -> None:
        self.flat = flatten(params)
        self.trainable = [is_trainable(p) for p in self.flat.leaves]
        self.paths = [path for path, t in zip(self.flat.paths, self.trainable) if t]
        self.dtype = widest(jnp.result_type(p) for p in self.flat.leaves if is_trainable(p))

    def read(self, tree: PyTree, what: str = "The arrays") -> Vector:
        """A tree like the parameters as a vector, 0 where it has ``None``. ``what`` names the tree in errors."""
        leaves = [x for x, t in zip(self.flat.line_up(what, tree), self.trainable) if t]
        params = [jnp.asarray(p) for p, t in zip(self.flat.leaves, self.trainable) if t]
        pairs = ((jnp.zeros_like(p) if x is None else jnp.asarray(x), p) for x, p in zip(leaves, params))
        return [to_real(x, compute_dtype(p.dtype)) for x, p in pairs]

    def keep(self, vector: Vector) -> PyTree:
        """The arrays of a vector as a tree like the parameters, for the state."""
        arrays = iter(vector)
        return self.flat.build([next(arrays) if t else None for t in self.trainable])

    def write(self, vector: Vector, onto: PyTree) -> PyTree:
        """``onto`` with the vector in place of its leaves, in their dtypes. ``None`` and untrained leaves remain."""
        arrays = flatten(self.keep(vector)).leaves
        pairs = zip(arrays, self.flat.line_up("The arrays", onto))
        return self.flat.build([x if a is None or x is None else from_real(a, x.dtype) for a, x in pairs])

    def each(self, at: StepInfo, f: Callable[[StepInfo], T]) -> list[T]:
        """``f`` of the step as each parameter sees it. Parameters that joined late count their own steps."""
        common = f(at)
        steps = (at.of(path) for path in self.paths)
        return [common if own is at else f(own) for own in steps]

    def begun(self, at: StepInfo, olds: Vector, news: Vector) -> Vector:
        """``olds``, but ``news`` for parameters that joined late and take their first step."""
        joins = self.each(at, lambda own: own is not at and own.count == 1)
        return [old if now is False else jnp.where(now, new, old) for now, old, new in zip(joins, olds, news)]

    def drop_holes(self) -> Params:
        """The parameters, with ``None`` for leaves that are not trained."""
        return self.keep([p for p, t in zip(self.flat.leaves, self.trainable) if t])

    def fill_holes(self, trained: Params) -> Params:
        """The inverse of `drop_holes`."""
        pairs = zip(self.flat.line_up("The arrays", trained), self.flat.leaves)
        return self.flat.build([p if x is None else x for x, p in pairs])


def dot(a: Vector, b: Vector, dtype: DType) -> jax.Array:
    """aᵀb, as a sum of products: accelerators round matrix products to fewer bits."""
    return total([x * y for x, y in zip(a, b)], dtype)


def total(vector: Vector, dtype: DType) -> jax.Array:
    """The sum of all numbers, including those on other devices under `jax.shard_map`."""
    zero = jnp.zeros((), dtype)
    sums = (
        summed(sum((jnp.sum(x).astype(dtype) for x in shards), zero), axes) for axes, shards in by_axes(vector).items()
    )
    return sum(sums, zero)


def add(a: Vector, factor: jax.Array, b: Vector) -> Vector:
    """a + factor·b."""
    return [x + factor.astype(x.dtype) * y for x, y in zip(a, b)]


def conj(tree: PyTree) -> PyTree:
    """The conjugate. JAX's gradient of a complex parameter is the conjugate of the direction of ascent."""
    return jax.tree.map(lambda x: jnp.conj(x) if is_trainable(x) else x, tree)
