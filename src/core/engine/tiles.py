"""A leaf with slots in blocks, computed tile by tile: in a CPU's cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from ..values.types import DType, PyTree
from .elementwise import is_elementwise, without_shape
from .plan import LeafInputs, LeafOutputs
from .storage import Blocks

LeafFunction: TypeAlias = Callable[[LeafInputs], LeafOutputs]

TILE = 1 << 14
"""Numbers in a tile: with all that belongs to them, they fit into a core's cache."""


class Tiles(NamedTuple):
    """How a leaf is cut into tiles, in row-major order.

    XLA's CPU compiler writes every widened slot to memory, since several kernels read it. In a loop over tiles they
    stay in the cache, which makes 16 bytes of traffic a parameter of 80, for 8-bit AdamW.
    """

    shape: tuple[int, ...]
    unit: int
    """Numbers: a multiple of the blocks of all slots."""
    rows: int
    """Units in a tile."""

    @classmethod
    def of(cls, function: LeafFunction, formats: tuple, inputs: LeafInputs) -> Tiles | None:
        """The tiles, if the leaf has several and its function is elementwise."""
        shape, forms = jnp.shape(inputs.u), {(name, slot): form for name, slot, form, _ in formats}
        slots = {(name, s): x for name, of in inputs.slots.items() for s, x in of.items()}
        coded = [forms[key] for key, x in slots.items() if isinstance(x, dict)]
        if not coded or not all(isinstance(form, Blocks) for form in coded):
            return None
        plain = [x for x in (*slots.values(), inputs.residual) if not (x is None or isinstance(x, dict))]
        if jnp.iscomplexobj(inputs.u) or any(x.shape not in ((), shape) for x in plain):
            return None
        unit = math.lcm(*(form.block for form in coded))
        rows = _rows_of_tile(math.prod(shape) // unit, max(1, TILE // unit))
        if math.prod(shape) % unit or math.prod(shape) <= rows * unit:
            return None
        tile = (*(1 for _ in shape[1:]), rows * unit)
        try:
            whole, one = _traced(function, inputs, shape), _traced(function, inputs, tile)
        except Exception:  # any exception means that the function depends on the leaf's shape, so it is not tiled
            return None
        # A shape that a leaf function computes with, as with a fan-in, is another number in a tile.
        alike = without_shape(whole, shape) == without_shape(one, tile)
        return cls(shape, unit, rows) if alike and is_elementwise(whole.jaxpr, shape) else None

    def map(self, function: LeafFunction, inputs: LeafInputs) -> LeafOutputs:
        """``function`` on every tile, in a loop that changes the parameter, its residual and its slots in place."""
        p, like = inputs.p, jax.eval_shape(function, inputs)
        in_place = p is not None and p.dtype == like.leaf.dtype
        count = math.prod(self.shape) // self.unit
        start = LeafOutputs(
            p if p is not None and in_place else jnp.zeros(self.shape, like.leaf.dtype),
            {name: {s: inputs.slots[name][s] for s in of} for name, of in like.slots.items()},
            inputs.residual if like.residual is not None else None,
        )
        # What is only read; scalars and keys are the same for all tiles.
        read = inputs._replace(
            p=None if in_place else p, slots={}, residual=inputs.residual if like.residual is None else None
        )
        sources = self._split(read)

        def tile(i: Any, rows: int, old: LeafOutputs) -> LeafOutputs:
            own = self._cut(sources, read, i, rows)
            keys = jax.tree.map(lambda key: jax.random.fold_in(key, i), (own.keys, own.rounding_key))
            # Slots of one number are the same for all tiles: each begins with the first one's.
            slots = jax.tree.map(lambda x, first: x if jnp.ndim(first) else first, old.slots, start.slots)
            residual = own.residual if old.residual is None else old.residual
            own = own._replace(slots=slots, residual=residual, keys=keys[0], rounding_key=keys[1])
            return function(own._replace(p=old.leaf) if in_place else own)

        def body(k: Any, carry: tuple[LeafOutputs, LeafOutputs]) -> tuple[LeafOutputs, LeafOutputs]:
            # The next tile is read when the last one was written: reading and writing the same array in
            # one iteration, XLA would copy it.
            outs, old = carry
            outs = self._put(outs, tile(k * self.rows, self.rows, old), k * self.rows, self.rows)
            return outs, self._cut(outs, start, (k + 1) * self.rows, self.rows)

        outs = self._split(start)
        outs, _ = jax.lax.fori_loop(0, count // self.rows, body, (outs, self._cut(outs, start, 0, self.rows)))
        if left := count % self.rows:
            old = self._cut(outs, start, count - left, left)
            outs = self._put(outs, tile(count - left, left, old), count - left, left)
        return jax.tree.map(lambda x, y: _bits_as(x, y.dtype).reshape(y.shape), outs, like)

    def _split(self, tree: PyTree) -> PyTree:
        """Every array with a first axis of units, bfloat16 as the integers of its bits; scalars stay.

        XLA's CPU compiler widens the whole of a bfloat16 array to write a part of it.
        """
        count = math.prod(self.shape) // self.unit

        def split(x: jax.Array) -> jax.Array:
            if not jnp.ndim(x):
                return x
            return _bits_as(x, jnp.uint16 if x.dtype == jnp.bfloat16 else x.dtype).reshape(count, -1)

        return jax.tree.map(split, tree)

    def _cut(self, tree: PyTree, like: PyTree, i: Any, rows: int) -> Any:
        """One tile of every array, with as many axes as the leaf has, in the dtypes of ``like``."""
        axes = (1,) * (len(self.shape) - 1)

        def cut(x: jax.Array, whole: jax.Array) -> jax.Array:
            if not jnp.ndim(x):
                return x
            return _bits_as(jax.lax.dynamic_slice_in_dim(x, i, rows), whole.dtype).reshape(*axes, -1)

        return jax.tree.map(cut, tree, like)

    def _put(self, tree: Any, tiles: Any, i: Any, rows: int) -> Any:
        def put(x: jax.Array, y: jax.Array) -> jax.Array:
            if not jnp.ndim(x):
                return y
            return jax.lax.dynamic_update_slice_in_dim(x, _bits_as(y, x.dtype).reshape(rows, -1), i, 0)

        return jax.tree.map(put, tree, tiles)


def _traced(function: LeafFunction, inputs: LeafInputs, shape: tuple[int, ...]) -> ClosedJaxpr:
    """A leaf function for another shape, with slots that are stored as they are."""

    def resized(x: Any) -> Any:
        if isinstance(x, dict):  # the arrays of a format
            return jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.ShapeDtypeStruct(shape, x.dtype) if jnp.ndim(x) else x

    slots = {name: {s: resized(x) for s, x in of.items()} for name, of in inputs.slots.items()}
    return jax.make_jaxpr(function)(jax.tree.map(resized, inputs._replace(slots={}))._replace(slots=slots))


def _bits_as(x: jax.Array, dtype: DType) -> jax.Array:
    """The same bits in another dtype of the same size."""
    return x if x.dtype == dtype else jax.lax.bitcast_convert_type(x, dtype)


def _rows_of_tile(count: int, most: int) -> int:
    """How many of ``count`` units make a tile: a divisor, if a large one is at hand.

    What is left over after the loop is read and written in one iteration, and XLA may copy whole arrays for it.
    """
    best = next(n for n in range(most, 0, -1) if count % n == 0)
    return best if 4 * best >= most else most
