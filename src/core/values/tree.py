"""Parameter trees as lists of leaves with paths, and reductions over their leaves."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import (
    GetAttrKey,
    keystr,
    tree_flatten_with_path,
    tree_leaves,
    tree_structure,
    tree_unflatten,
)

from .numerics import is_zero, sqrt
from .types import DType, Leaf, PyTree, Scalar, TreeDef


@dataclasses.dataclass(frozen=True)
class Flat:
    """A flattened tree. ``None`` counts as a leaf, so that trees with and without it have one structure."""

    leaves: list[Leaf]
    paths: list[str]
    treedef: TreeDef

    def line_up(self, what: str, other: PyTree) -> list[Leaf]:
        """The leaves of ``other``, which must have this tree's structure. ``None`` may stand in place of any leaf."""
        try:
            return self.treedef.flatten_up_to(other)
        except (ValueError, TypeError, KeyError):
            raise TypeError(
                f"{what} do not have the tree of the parameters: {_first_difference(self, other)}"
            ) from None

    def items(self) -> Iterator[tuple[str, Leaf]]:
        return zip(self.paths, self.leaves, strict=True)

    def build(self, leaves: list[Leaf]) -> PyTree:
        return tree_unflatten(self.treedef, leaves)


def flatten(tree: PyTree) -> Flat:
    """Flatten a tree. Paths look like ``"encoder/layer_0/kernel"``."""
    keyed, treedef = tree_flatten_with_path(tree, is_leaf=_is_none)
    siblings = Counter(path[:-1] for path, _ in keyed)
    paths = [path[:-1] if _is_box(path) and siblings[path[:-1]] == 1 else path for path, _ in keyed]
    names = [keystr(path, simple=True, separator="/") for path in paths]
    return Flat([leaf for _, leaf in keyed], names, treedef)


def _is_box(path: tuple) -> bool:
    """Whether the last key is that of a box. flax.nnx boxes leaves in some trees and not in others."""
    return len(path) > 1 and path[-1] == BOXED


BOXED = GetAttrKey("value")
"""The key of what is in a box, which has no other."""


def is_trainable(leaf: Leaf) -> bool:
    """Whether an optimizer acts on this leaf: whether it is floating-point or complex."""
    if isinstance(leaf, (bool, int)):
        return False
    dtype = getattr(leaf, "dtype", np.dtype(type(leaf)) if isinstance(leaf, (float, complex)) else None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


@functools.cache
def compute_dtype(dtype: DType) -> np.dtype:
    """The real dtype of arithmetic on arrays of ``dtype``: float32 or better."""
    return jnp.dtype(jnp.float64 if jnp.finfo(dtype).dtype == jnp.float64 else jnp.float32)


@functools.cache
def slot_dtype(dtype: DType) -> np.dtype:
    """The dtype of slots for parameters of ``dtype``: float32 or better, and complex for complex parameters."""
    return jnp.dtype(dtype) if jnp.issubdtype(dtype, jnp.complexfloating) else compute_dtype(dtype)


def dtype_of(x: Leaf) -> np.dtype:
    """The dtype of ``x`` as a JAX array."""
    return jax.dtypes.canonicalize_dtype(x.dtype) if hasattr(x, "dtype") else jnp.result_type(x)


def widened(tree: PyTree) -> PyTree:
    """The tree with its trainable leaves in float32 or better, as whole-tree links receive it."""
    return jax.tree.map(lambda x: jnp.asarray(x, slot_dtype(dtype_of(x))) if is_trainable(x) else x, tree)


def to_real(x: jax.Array, dtype: DType) -> jax.Array:
    """Convert ``x`` to the real ``dtype``. Complex numbers become pairs of reals along a new last axis."""
    if jnp.iscomplexobj(x):
        return jnp.stack([x.real, x.imag], axis=-1).astype(dtype)
    return lax.convert_element_type(x, dtype)


def from_real(x: jax.Array, dtype: DType) -> jax.Array:
    """The inverse of `to_real`: round to ``dtype``. If it is complex, pairs of reals become complex numbers."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return lax.complex(x[..., 0], x[..., 1]).astype(dtype)
    return lax.convert_element_type(x, dtype)


def global_norm(tree: PyTree) -> jax.Array:
    """The Euclidean norm of all floating-point and complex leaves of a tree, accumulated in float32 or better.

    >>> import chainax as cx
    >>> cx.global_norm({"a": jax.numpy.array([3.0]), "b": jax.numpy.array(4.0)}).item()
    5.0
    """
    return sqrt(_total(lax.square, [x for x in tree_leaves(tree) if is_trainable(x)]))


def all_finite(leaves: list[Leaf]) -> jax.Array:
    """Whether all numbers in these arrays are finite."""
    # 0·x is NaN where x is not finite. XLA's CPU compiler would store an array of flags; the sum needs no memory.
    return jnp.isfinite(_total(_zero_if_finite, leaves))


def max_abs(leaves: list[Leaf]) -> jax.Array:
    """The largest magnitude in these arrays, and 0 if they are empty."""
    leaves = [jnp.asarray(x) for x in leaves]
    dtype = widest(x.dtype for x in leaves)
    largest = jnp.zeros((), dtype)
    for axes, shards in by_axes(leaves).items():
        each = (jnp.max(jnp.abs(to_real(x, compute_dtype(x.dtype))), initial=0).astype(dtype) for x in shards)
        here = functools.reduce(jnp.maximum, each)
        largest = jnp.maximum(largest, lax.pmax(here, axes) if axes else here)
    return largest


Elementwise = Callable[[jax.Array], jax.Array]


def _zero_if_finite(x: jax.Array) -> jax.Array:
    return 0.0 * x


def widest(dtypes: Iterable[DType]) -> np.dtype:
    """float64 if it is the compute dtype of any of the dtypes, else float32."""
    return jnp.dtype(jnp.float64 if any(compute_dtype(d) == jnp.float64 for d in dtypes) else jnp.float32)


def replicated(x: jax.Array) -> jax.Array:
    """The array in full on each device, if it is sharded along explicit axes of a mesh."""
    sharding = jax.typeof(x).sharding
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, P())) if any(sharding.spec) else x


def not_divided(x: jax.Array) -> jax.Array:
    """The array, which XLA would else divide as it likes along automatic axes of the mesh at hand."""
    mesh = jax.typeof(x).sharding.mesh
    return lax.with_sharding_constraint(x, NamedSharding(mesh, P())) if mesh.auto_axes else x


def sharded_like(x: jax.Array, like: Leaf) -> jax.Array:
    """The array with the sharding of another one of its shape, along explicit axes of a mesh."""
    sharding = jax.typeof(like).sharding
    return jax.sharding.reshard(x, sharding) if any(sharding.spec) else x


def slot_like(
    p: jax.Array, fill: Scalar = 0.0, *, axes: Sequence[int | None] | None = None, shape: Sequence[int] | None = None
) -> jax.Array:
    """A slot with the shape and sharding of ``p``, in float32 or better.

    If ``p`` is complex, both parts are ``fill``: complex parameters are treated as pairs of reals.

    A slot of another shape states in ``axes`` which axis of ``p`` each of its axes follows, or ``None``. It is then
    real, sharded as these axes are, and of their lengths unless ``shape`` gives others: ``axes=(0,)`` for a number a
    row, ``axes=(0, None), shape=(m, m)`` for the products of the rows, ``axes=(None, 0, 1), shape=(5, m, n)`` for five
    earlier updates. An axis stays in one piece if its length is not divisible, or if an earlier axis of the slot
    follows the same one.
    """
    if axes is not None:
        lengths = tuple(p.shape[i] for i in axes if i is not None) if shape is None else tuple(shape)
        if len(lengths) != len(axes):
            raise ValueError(f"slot_like got axes={tuple(axes)} and shape={shape}: give a length for each axis")
        return following(jnp.full(lengths, fill, compute_dtype(p.dtype)), p, axes)
    dtype = slot_dtype(p.dtype)
    zeros = jnp.zeros_like(p, dtype=dtype)
    if is_zero(fill):
        return zeros
    real = jnp.asarray(fill, compute_dtype(p.dtype))
    return zeros + (jax.lax.complex(real, real) if jnp.issubdtype(dtype, jnp.complexfloating) else real)


def following(x: jax.Array, like: Leaf, axes: Sequence[int | None]) -> jax.Array:
    """The array with each axis sharded as the given axis of another array, along explicit axes of a mesh."""
    typed = jax.typeof(like).sharding
    if not any(typed.spec):
        return x
    sharding = typed if isinstance(like, Tracer) else like.sharding  # which has the devices
    spec: list[Names] = []
    for n, i in zip(x.shape, axes):
        names = None if i is None or i >= len(sharding.spec) else sharding.spec[i]
        spec.append(None if names in spec or n % shards(names, sharding.mesh.shape) else names)
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, P(*spec)))


Names = str | tuple[str, ...] | None
"""The mesh axes along which one axis of an array is sharded."""


def names_of(entry: Names) -> tuple[str, ...]:
    """The mesh axes in one entry of a `PartitionSpec`."""
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


Sizes = Mapping[str, int]
"""The sizes of the axes of a mesh."""


def shards(entry: Names, mesh: Sizes) -> int:
    """The number of shards along an axis of an array."""
    return math.prod(mesh[name] for name in names_of(entry))


def drawn_like(draw: Callable[..., jax.Array], key: jax.Array, x: jax.Array, dtype: DType) -> jax.Array:
    """``draw(key, x.shape, dtype)``, a function of `jax.random`, with the sharding of ``x`` along explicit axes.

    Without it, each device would draw the numbers of all others too.
    """
    sharding = jax.typeof(x).sharding
    return draw(key, x.shape, dtype, **({"out_sharding": sharding} if any(sharding.spec) else {}))


def shard_axes(x: Leaf) -> tuple[str, ...]:
    """The mesh axes along which the array varies under `jax.shard_map`, according to its type."""
    aval = jax.typeof(x)
    return tuple(sorted(aval.mat.varying if hasattr(aval, "mat") else getattr(aval, "vma", ())))


def untyped_axes() -> tuple[str, ...]:
    """The mesh axes of a `jax.shard_map` with ``check_vma=False``, where types do not say which arrays vary."""
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return () if not manual or shard_axes(lax.axis_index(manual)) else tuple(manual)


def by_axes(leaves: Iterable[Leaf]) -> dict[tuple[str, ...], list[Leaf]]:
    """The leaves, grouped by the mesh axes along which they vary."""
    found: dict[tuple[str, ...], list[Leaf]] = {}
    for x in leaves:
        found.setdefault(shard_axes(x), []).append(x)
    return found


def summed(total: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Add up a sum over shards across the devices along these mesh axes."""
    return lax.psum(total, axes) if axes else total


def leaf_sum(x: jax.Array) -> jax.Array:
    """The sum over a leaf, of which `jax.shard_map` may have given each device a part."""
    return summed(jnp.sum(x), shard_axes(x))


def leaf_size(x: jax.Array) -> int:
    """The size of a leaf, of which `jax.shard_map` may have given each device a part."""
    return x.size * math.prod(lax.axis_size(axis) for axis in shard_axes(x))


def _total(f: Elementwise, leaves: list[Leaf]) -> jax.Array:
    """The sum of the elementwise ``f`` over all leaves, in float32 or better."""
    leaves = [jnp.asarray(x) for x in leaves]
    zero = jnp.zeros((), widest(x.dtype for x in leaves))
    totals = (
        summed(functools.reduce(functools.partial(_plus, f), shards, zero), axes)
        for axes, shards in by_axes(leaves).items()
    )
    return functools.reduce(lax.add, totals) if leaves else zero


@functools.partial(jax.jit, static_argnums=0)  # traced once for all leaves of a shape
def _plus(f: Elementwise, total: jax.Array, x: jax.Array) -> jax.Array:
    dtype = compute_dtype(x.dtype)

    def plain(x: jax.Array) -> jax.Array:
        wide = f(to_real(x, dtype))
        return lax.reduce_sum(wide, range(wide.ndim))

    def on_cpu(x: jax.Array) -> jax.Array:
        # XLA's CPU compiler merges this conversion with that in the leaf functions and stores the result. It also
        # rewrites sums over more than 32 elements as several kernels that store their summands.
        # The barrier and rows of at most 32 avoid both, so short leaves are summed without a temporary. If the type
        # has a sharding, reshaping to rows would gather the leaf.
        rows = next((n for n in range(32, 0, -1) if x.size and x.size % n == 0 and x.size <= 32 * n), None)
        short = rows and all(axis is None for axis in jax.typeof(x).sharding.spec)
        return plain(lax.optimization_barrier(x.reshape(rows, -1) if short else x))

    more = lax.platform_dependent(x, cpu=on_cpu, default=plain)
    return lax.add(total, lax.convert_element_type(more, total.dtype))


def _is_none(x: object) -> bool:
    return x is None


def _first_difference(expected: Flat, other: PyTree) -> str:
    """The first path at which two trees differ, and what each of them has there."""
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


def _containers(treedef: TreeDef) -> str:
    text = str(treedef).removeprefix("PyTreeDef")
    return text if len(text) < 200 else f"{text[:200]}..."


def show(leaf: Leaf) -> str:
    """``"float32[2, 3]"`` for an array, and the type's name for any other object."""
    if leaf is None:
        return "None"
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return type(leaf).__name__
