"""Trees of parameters as the engine sees them: leaves with paths, lined up with each other."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path, tree_leaves, tree_structure, tree_unflatten

from .numerics import sqrt


@dataclasses.dataclass(frozen=True)
class Flat:
    """A tree taken apart. ``None`` counts as a leaf, so that trees with holes line up."""

    leaves: list[Any]
    paths: list[str]
    treedef: Any

    def line_up(self, what: str, other: Any) -> list[Any]:
        """The leaves of ``other``, which must have this tree's structure; holes (``None``) may differ."""
        try:
            return self.treedef.flatten_up_to(other)
        except (ValueError, TypeError, KeyError):
            raise TypeError(
                f"{what} do not have the tree of the parameters: {_first_difference(self, other)}"
            ) from None

    def items(self) -> Iterator[tuple[str, Any]]:
        return zip(self.paths, self.leaves, strict=True)

    def build(self, leaves: list[Any]) -> Any:
        return tree_unflatten(self.treedef, leaves)


def flatten(tree: Any) -> Flat:
    """Take a tree apart. Paths are like ``"encoder/layer_0/kernel"``."""
    keyed, treedef = tree_flatten_with_path(tree, is_leaf=_is_hole)
    siblings = Counter(path[:-1] for path, _ in keyed)
    paths = [path[:-1] if _is_box(path) and siblings[path[:-1]] == 1 else path for path, _ in keyed]
    names = [keystr(path, simple=True, separator="/") for path in paths]
    return Flat([leaf for _, leaf in keyed], names, treedef)


def _is_box(path: tuple) -> bool:
    """Whether the leaf is the one content of a box: flax.nnx boxes leaves in some trees and not in others."""
    return len(path) > 1 and path[-1] == GetAttrKey("value")


def is_trainable(leaf: Any) -> bool:
    """Whether an optimizer acts on this leaf: floating-point or complex numbers, and nothing else."""
    if isinstance(leaf, (bool, int)):
        return False
    dtype = getattr(leaf, "dtype", np.dtype(type(leaf)) if isinstance(leaf, (float, complex)) else None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


@functools.cache
def compute_dtype(dtype: Any) -> Any:
    """The real dtype in which arithmetic on arrays of ``dtype`` is done: float32 or better."""
    return jnp.dtype(jnp.float64 if jnp.finfo(dtype).dtype == jnp.float64 else jnp.float32)


@functools.cache
def slot_dtype(dtype: Any) -> Any:
    """The dtype of a slot for a parameter of ``dtype``: float32 or better, complex if it is complex."""
    return jnp.dtype(dtype) if jnp.issubdtype(dtype, jnp.complexfloating) else compute_dtype(dtype)


def dtype_of(x: Any) -> Any:
    """The dtype that ``x`` has as a JAX array."""
    return jax.dtypes.canonicalize_dtype(x.dtype) if hasattr(x, "dtype") else jnp.result_type(x)


def widened(tree: Any) -> Any:
    """The floating-point leaves of a tree in float32 or better, as whole-tree links get them."""
    return jax.tree.map(lambda x: jnp.asarray(x, slot_dtype(dtype_of(x))) if is_trainable(x) else x, tree)


def to_real(x: jax.Array, dtype: Any) -> jax.Array:
    """Widen ``x`` to the real ``dtype``; complex numbers become pairs of reals along a new last axis."""
    if jnp.iscomplexobj(x):
        return jnp.stack([x.real, x.imag], axis=-1).astype(dtype)
    return lax.convert_element_type(x, dtype)


def from_real(x: jax.Array, dtype: Any) -> jax.Array:
    """The inverse of `to_real`: round to ``dtype``, pairs of reals becoming complex numbers."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return lax.complex(x[..., 0], x[..., 1]).astype(dtype)
    return lax.convert_element_type(x, dtype)


def cond(holds: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """``lax.cond``; outside of ``jit`` only the branch that is taken runs, and is not traced anew at every call."""
    if isinstance(holds, Tracer):
        return lax.cond(holds, yes, no)
    return yes() if holds else no()


def global_norm(tree: Any) -> jax.Array:
    """The Euclidean norm of all floating-point and complex numbers in a tree, accumulated in float32 or better.

    >>> import chainax as cx
    >>> cx.global_norm({"a": jax.numpy.array([3.0]), "b": jax.numpy.array(4.0)}).item()
    5.0
    """
    return sqrt(_total(lax.square, [x for x in tree_leaves(tree) if is_trainable(x)]))


def all_finite(leaves: list[Any]) -> jax.Array:
    """Whether no number of these arrays is infinite or NaN."""
    # 0·x is NaN where x is not finite: a sum needs no memory, where XLA's CPU compiler would store flags.
    return jnp.isfinite(_total(_nothing, leaves))


def max_abs(leaves: list[Any]) -> jax.Array:
    """The largest magnitude in these arrays, and 0 if there is none."""
    leaves = [jnp.asarray(x) for x in leaves]
    dtype = widest(x.dtype for x in leaves)
    largest = jnp.zeros((), dtype)
    for axes, shards in by_axes(leaves).items():
        each = (jnp.max(jnp.abs(to_real(x, compute_dtype(x.dtype))), initial=0).astype(dtype) for x in shards)
        here = functools.reduce(jnp.maximum, each)
        largest = jnp.maximum(largest, lax.pmax(here, axes) if axes else here)
    return largest


def _nothing(x: jax.Array) -> jax.Array:
    return 0.0 * x


def widest(dtypes: Iterable[Any]) -> Any:
    """float64 if any of the dtypes is computed in it, else float32."""
    return jnp.dtype(jnp.float64 if any(compute_dtype(d) == jnp.float64 for d in dtypes) else jnp.float32)


def shard_axes(x: Any) -> tuple[str, ...]:
    """The mesh axes along which each device has its own part of the array, as its type says under `jax.shard_map`."""
    aval = jax.typeof(x)
    return tuple(sorted(aval.mat.varying if hasattr(aval, "mat") else getattr(aval, "vma", ())))


def by_axes(leaves: Iterable[Any]) -> dict[tuple[str, ...], list[Any]]:
    """The leaves by the axes along which they are shards."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for x in leaves:
        found.setdefault(shard_axes(x), []).append(x)
    return found


def summed(total: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """A sum over the numbers of shards, added up over the devices that have the others."""
    return lax.psum(total, axes) if axes else total


def _total(f: Any, leaves: list[Any]) -> jax.Array:
    """The sum of ``f`` over all numbers of all leaves, in float32 or better."""
    leaves = [jnp.asarray(x) for x in leaves]
    zero = jnp.zeros((), widest(x.dtype for x in leaves))
    totals = (
        summed(functools.reduce(functools.partial(_plus, f), shards, zero), axes)
        for axes, shards in by_axes(leaves).items()
    )
    return functools.reduce(lax.add, totals) if leaves else zero


@functools.partial(jax.jit, static_argnums=0)  # traced once for all leaves of a shape
def _plus(f: Any, total: jax.Array, x: jax.Array) -> jax.Array:
    dtype = compute_dtype(x.dtype)

    def plain(x: jax.Array) -> jax.Array:
        wide = f(to_real(x, dtype))
        return lax.reduce_sum(wide, range(wide.ndim))

    def on_cpu(x: jax.Array) -> jax.Array:
        # XLA's CPU compiler merges this widening with that of the leaf functions and stores the result,
        # and rewrites sums over more than 32 elements into several kernels that store what they add.
        # Behind a barrier, and in rows of at most 32, short leaves are summed without a temporary. Where the type
        # shows a sharding, rows would have to be gathered.
        rows = next((n for n in range(32, 0, -1) if x.size and x.size % n == 0 and x.size <= 32 * n), None)
        short = rows and all(axis is None for axis in jax.typeof(x).sharding.spec)
        return plain(lax.optimization_barrier(x.reshape(rows, -1) if short else x))

    more = lax.platform_dependent(x, cpu=on_cpu, default=plain)
    return lax.add(total, lax.convert_element_type(more, total.dtype))


def _is_hole(x: Any) -> bool:
    return x is None


def _first_difference(expected: Flat, other: Any) -> str:
    """Where two trees part, and what stands on both sides."""
    ours, theirs = dict(expected.items()), dict(flatten(other).items())
    for path in expected.paths:
        if path not in theirs:
            under = [p for p in theirs if p.startswith(f"{path}/")]
            found = f"a subtree ({under[0]!r}, ...)" if path and under else "nothing"
            return f"at {path!r} the parameters have {show(ours[path])}, the other tree has {found}"
    for path in theirs:
        if path not in ours:
            return f"at {path!r} the parameters have nothing, the other tree has {show(theirs[path])}"
    return f"the containers differ: {_containers(expected.treedef)} against {_containers(tree_structure(other))}"


def _containers(treedef: Any) -> str:
    text = str(treedef).removeprefix("PyTreeDef")
    return text if len(text) < 200 else f"{text[:200]}..."


def show(leaf: Any) -> str:
    """``"float32[2, 3]"``; for what is no array, its type."""
    if leaf is None:
        return "None"
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return type(leaf).__name__
