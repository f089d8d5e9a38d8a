"""A tree as one real vector, for links that treat all parameters together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...core.engine.step_info import StepInfo
from ...core.values.tree import by_axes, compute_dtype, flatten, from_real, is_trainable, summed, to_real, widest

Vector = list[jax.Array]
"""Real arrays, one for each parameter that an optimizer acts on; complex ones have a last axis of 2 more."""


class Space:
    """The vectors that belong to a tree of parameters."""

    def __init__(self, params: Any) -> None:
        self.flat = flatten(params)
        self.trainable = [is_trainable(p) for p in self.flat.leaves]
        self.paths = [path for path, t in zip(self.flat.paths, self.trainable) if t]
        self.dtype = widest(jnp.result_type(p) for p in self.flat.leaves if is_trainable(p))

    def read(self, tree: Any, what: str = "The arrays") -> Vector:
        """A tree like the parameters as a vector, 0 where it has ``None``. Errors speak of ``what``."""
        leaves = [x for x, t in zip(self.flat.line_up(what, tree), self.trainable) if t]
        params = [jnp.asarray(p) for p, t in zip(self.flat.leaves, self.trainable) if t]
        pairs = ((jnp.zeros_like(p) if x is None else jnp.asarray(x), p) for x, p in zip(leaves, params))
        return [to_real(x, compute_dtype(p.dtype)) for x, p in pairs]

    def keep(self, vector: Vector) -> Any:
        """The arrays of a vector as a tree like the parameters, for the state."""
        arrays = iter(vector)
        return self.flat.build([next(arrays) if t else None for t in self.trainable])

    def write(self, vector: Vector, onto: Any) -> Any:
        """The vector in place of the leaves of ``onto``, in their dtypes. ``None`` and what is no parameter stay."""
        arrays = flatten(self.keep(vector)).leaves
        pairs = zip(arrays, self.flat.line_up("The arrays", onto))
        return self.flat.build([x if a is None or x is None else from_real(a, x.dtype) for a, x in pairs])

    def each(self, at: StepInfo, f: Callable[[StepInfo], Any]) -> list[Any]:
        """``f`` of the step as each parameter sees it: one that joined late counts from then."""
        common = f(at)
        steps = (at.of(path) for path in self.paths)
        return [common if own is at else f(own) for own in steps]

    def begun(self, at: StepInfo, olds: Vector, news: Vector) -> Vector:
        """``olds``, but ``news`` for parameters whose first step this is since they joined."""
        joins = self.each(at, lambda own: own is not at and own.count == 1)
        return [old if now is False else jnp.where(now, new, old) for now, old, new in zip(joins, olds, news)]

    def drop_holes(self) -> Any:
        """The parameters, with ``None`` for leaves that no optimizer acts on."""
        return self.keep([p for p, t in zip(self.flat.leaves, self.trainable) if t])

    def whole(self, drop_holes: Any) -> Any:
        """The inverse of `drop_holes`."""
        pairs = zip(self.flat.line_up("The arrays", drop_holes), self.flat.leaves)
        return self.flat.build([p if x is None else x for x, p in pairs])


def dot(a: Vector, b: Vector, dtype: Any) -> jax.Array:
    """aᵀb. A sum of products and no matrix product, which accelerators round to fewer bits."""
    return total([x * y for x, y in zip(a, b)], dtype)


def total(vector: Vector, dtype: Any) -> jax.Array:
    """The sum of all numbers, those on other devices too where `jax.shard_map` gives each a part."""
    zero = jnp.zeros((), dtype)
    sums = (
        summed(sum((jnp.sum(x).astype(dtype) for x in shards), zero), axes) for axes, shards in by_axes(vector).items()
    )
    return sum(sums, zero)


def add(a: Vector, factor: jax.Array, b: Vector) -> Vector:
    """a + factor·b."""
    return [x + factor.astype(x.dtype) * y for x, y in zip(a, b)]


def conj(tree: Any) -> Any:
    """The conjugate: JAX's gradient of a complex parameter is that of the direction of ascent."""
    return jax.tree.map(lambda x: jnp.conj(x) if is_trainable(x) else x, tree)
