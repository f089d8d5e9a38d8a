"""Wrappers whose chains see the parameters in another form."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ...core.engine import engine
from ...core.engine.protocol import Visit
from ...core.engine.storage import cast, formats_of
from ...core.facade.link import Leafwise, transform
from ...core.values import tree
from ...core.values.errors import PlainKeyError
from ...core.values.tables import Shape, table_choices
from ...core.values.tree import Flat, compute_dtype, dtype_of, is_trainable, show, slot_dtype
from ...core.values.types import DType, Leaf, Params, PyTree
from ...core.values.value import child, static
from ...core.values.warning import warn
from ..shared.vector import conj
from ..shared.wrappers import Entry, Wrapper, check_tables, fill_holes, forwarded_arguments, init_inner, links_at


class Reshaped(Wrapper):
    """A wrapper whose chain sees the parameters in another form."""

    joins = "joined_"
    knows_shards = False  # a vector of sharded and unsharded leaves has no type
    moves_params = False  # the chain's own parameters are copies
    widens = True

    def groups(self, flat: Flat) -> list[list[int]]:
        """The indices of the leaves that the chain sees as one."""
        return []

    def to_view(self, leaves: list[Leaf], flat: Flat, groups: list[list[int]]) -> PyTree:
        """The leaves of a tree like ``flat``, as the chain sees them."""
        raise NotImplementedError

    def from_view(self, view: PyTree, flat: Flat, groups: list[list[int]]) -> PyTree:
        """The inverse of `to_view`, with ``None`` for leaves that are not in the view."""
        raise NotImplementedError

    def init_tree(self, params):
        flat = tree.flatten(params)
        groups = self.groups(flat)
        return {"tx": init_inner(self.tx, self.to_view(flat.leaves, flat, groups)), **self.members(flat, groups)}

    def members(self, flat: Flat, groups: list[list[int]]) -> dict[str, jax.Array]:
        """An entry of the state whose key identifies these groups of leaves: see `joins`."""
        members = [[(flat.paths[i], jnp.shape(flat.leaves[i])) for i in group] for group in groups]
        checksum = f"{zlib.crc32(repr(members).encode()):08x}"
        return {self.joins + checksum: jnp.int32(sum(map(len, groups)))} if groups else {}

    def update_tree(self, updates, state, params, at):
        flat = tree.flatten(updates if params is None else params)
        groups = self.groups(flat)
        us = flat.line_up("The updates", updates)
        mine = None if params is None else self.to_view(flat.leaves, flat, groups)
        extra = {
            name: self.carried(name, x, flat, groups)
            for name, x in forwarded_arguments(self.tx, at.extra, None).items()
        }
        new, inner = self.tx.update(self.to_view(us, flat, groups), state["tx"], mine, **extra)
        return fill_holes(self.from_view(new, flat, groups), updates), {**state, "tx": inner}

    def carried(self, name: str, x: Any, flat: Flat, groups: list[list[int]]) -> Any:
        """An extra argument as the chain sees it: functions of the parameters, and trees like them."""
        if callable(x):
            result, like = "value" if name == "value_fn" else "", flat.build(flat.leaves)
            return lambda view: self.carried(
                result, x(fill_holes(self.from_view(view, flat, groups), like)), flat, groups
            )
        xs = tree.flatten(x)
        pairs = zip(xs.leaves, flat.leaves)
        alike = xs.treedef == flat.treedef and all(y is None or jnp.shape(y) == jnp.shape(p) for y, p in pairs)
        return self.to_view(xs.leaves, flat, groups) if alike and name != "value" else x

    def visit(self, visit: Visit, params: Params, entry: Entry) -> dict[str, PyTree]:
        flat = tree.flatten(params)
        groups = self.groups(flat)
        found = visit(self.tx, self.to_view(flat.leaves, flat, groups), entry["tx"])
        return {name: self.from_view(view, flat, groups) for name, view in found.items()}


@transform
class flatten(Reshaped):
    """Pass all parameters of a dtype to a chain as one vector: fewer and larger operations, and norms over all leaves.

    The chain sees ``{"float32": vector}``, so tables by path can only match dtypes, and those by shape are refused. The
    copies do not pay off for large leaves, and they gather sharded ones. The state cannot be adapted when parameters
    are added or removed.
    """

    tx: Any = child("the chain")

    equation = "u ← tx(u), all of u as one vector"

    def check(self) -> None:
        super().check()
        check_tables(self.tx, "flatten", "one vector")

    def groups(self, flat):
        found: dict[str, list[int]] = {}
        for i, x in enumerate(flat.leaves):
            if is_trainable(x):
                found.setdefault(_dtype(flat, i).name, []).append(i)
        return list(found.values())

    def to_view(self, leaves, flat, groups):
        return {_dtype(flat, group[0]).name: _joined(self, leaves, flat, group) for group in groups}

    def from_view(self, view, flat, groups):
        leaves = [None] * len(flat.leaves)
        for group in groups:
            _separate(view[_dtype(flat, group[0]).name], leaves, flat, group)
        return flat.build(leaves)


@transform
class pack(Reshaped):
    """Pass small leaves to a chain in packs: many leaves of one shape as one vector, in the place of the first.

    For CPUs: a thousand biases and scales then need only fifty sets of slots and kernels. Elsewhere it costs more than
    it saves, since each step copies gradients, parameters and updates into packs and out of them, and ``init`` warns:
    AdamW on 200 leaves of 1024 moves 40 bytes a parameter in 212 kernels on an H100 and 297 in 866 on a TPU v5e,
    without packs 28 in 18 and 28 in 400. `flatten` would copy large leaves too, and takes long to compile.

    Leaves that a table such as `by_path` in the chain distinguishes never share a pack. Scalars are not packed, nor are
    leaves about which a table would decide otherwise as vectors, as `by_ndim` does about matrices, and leaves whose
    slots `store` keeps in blocks, such as `int8`: a block holds numbers of one leaf, and those of small leaves stay in
    float32. Whole-tree links also see packs instead of leaves, so put `scale_by_galore` outside. The state cannot be
    adapted when parameters are added or removed.

    Errors: ``TypeError`` from ``init`` if a link computes with several numbers of a leaf, as for its norm, and
    from ``update`` if a packed leaf has no update; ``KeyError`` if a state of other packs is loaded. Warns
    (`ChainWarning`) from ``init`` if there are packs and the parameters are not on a CPU, or, under ``jit``, if JAX's
    default backend is not one.

    >>> import chainax as cx
    >>> tx = cx.pack(cx.adamw(1e-3))
    >>> state = tx.init({"a": jnp.ones(3), "b": jnp.ones(3), "c": jnp.ones((5, 5))})
    >>> jax.tree.map(jnp.shape, state.links["pack"]["tx"].links["scale_by_adam"]["mu"])
    {'a': (6,), 'b': None, 'c': (5, 5)}
    """

    tx: Any = child("the chain")
    max_leaves: int = static("the largest number of leaves in a pack", default=20)
    max_size: int = static("the size of the largest leaf that is packed", default=16384)

    equation = "u ← tx(u), small leaves of u in packs"

    def check(self) -> None:
        super().check()
        for field, least in ("max_leaves", 2), ("max_size", 1):
            largest = getattr(self, field)
            if not isinstance(largest, int) or largest < least:
                raise ValueError(f"`pack.{field}` must be a whole number, at least {least}, got {largest!r}")

    def init_tree(self, params):
        flat = tree.flatten(params)
        packed = [alike for alike in self._alike(flat) if len(alike) > 1]
        for alike in packed:
            self._check_links(flat, alike)
        if packed and (platform := _platform(flat.leaves)) != "cpu":
            warn(
                f"`pack` is for CPUs. On this {platform!r} each step copies small leaves into packs and out of them: "
                "for AdamW 1.4 to 10 times the memory traffic of a step without packs, and more kernels. Leave it out "
                "there: tx = cx.pack(tx) if jax.default_backend() == 'cpu' else tx"
            )
        return super().init_tree(params)

    def groups(self, flat):
        packs = (
            alike[i : i + self.max_leaves] for alike in self._alike(flat) for i in range(0, len(alike), self.max_leaves)
        )
        return [group for group in packs if len(group) > 1]

    def to_view(self, leaves, flat, groups):
        leaves = list(leaves)
        for group in groups:
            vector = _joined(self, leaves, flat, group)
            for i in group:
                leaves[i] = None
            leaves[group[0]] = vector
        return flat.build(leaves)

    def from_view(self, view, flat, groups):
        leaves = flat.line_up("The leaves", view)
        for group in groups:
            _separate(leaves[group[0]], leaves, flat, group)
        return flat.build(leaves)

    def _alike(self, flat: Flat) -> list[list[int]]:
        """The small leaves, grouped by shape, dtype and their entries in the chain's tables."""
        found: dict[Any, list[int]] = {}
        for i, (path, x) in enumerate(flat.items()):
            if not is_trainable(x) or not jnp.ndim(x) or not 0 < jnp.size(x) <= self.max_size:
                continue
            choices, formats = self._choices(path, jnp.shape(x))
            if all(isinstance(form, cast) for _, _, form, _ in formats) and self._same_in_pack(path, x):
                found.setdefault((jnp.shape(x), _dtype(flat, i), choices, formats), []).append(i)
        return list(found.values())

    def _choices(self, path: str, shape: Shape) -> tuple[tuple, tuple]:
        """What tables in the chain decide about a leaf: its hyperparameters, and the formats of its slots."""
        links = list(links_at(self.tx, path, shape))
        formats = formats_of(((name, link) for name, link in links if isinstance(link, Leafwise)), path, shape)
        return (tuple(links), table_choices(links, path, shape)), formats

    def _same_in_pack(self, path: str, x: Leaf) -> bool:
        """Whether tables that read shapes decide the same about a leaf and about a pack of leaves."""
        try:
            return self._choices(path, jnp.shape(x)) == self._choices(path, (2 * jnp.size(x),))
        except PlainKeyError:  # no entry for vectors
            return False

    def _check_links(self, flat: Flat, alike: list[int]) -> None:
        first, leaf = alike[0], flat.leaves[alike[0]]
        shapes = jnp.shape(leaf), (min(len(alike), self.max_leaves) * jnp.size(leaf),)
        probes = [jax.ShapeDtypeStruct(shape, compute_dtype(_dtype(flat, first))) for shape in shapes]
        lone = [flat.build([x if i == first else None for i in range(len(flat.leaves))]) for x in probes]
        for name, link in links_at(self.tx, flat.paths[first], jnp.shape(leaf)):
            if isinstance(link, Leafwise) and not engine.leaf_is_elementwise(name, link, *lone):
                raise TypeError(
                    f"Link 'pack': {name!r} computes with several numbers of {flat.paths[first]!r}, as for a norm, or "
                    "with its shape, but would see a pack of leaves: put the link outside, or exclude the parameter "
                    "by a smaller max_size"
                )


@transform
class split_complex(Reshaped):
    """Pass each complex parameter to a chain as two real ones, ``real`` and ``imag``.

    `Leafwise` links do not need this: they always see complex numbers as pairs of reals.
    """

    tx: Any = child("the chain")

    equation = "u ← tx(Re u) + i·tx(Im u)"
    knows_shards = True

    def to_view(self, leaves, flat, groups):
        return flat.build(
            [_real_imag(x, dtype_of(like)) if _is_complex(like) else x for x, like in zip(leaves, flat.leaves)]
        )

    def from_view(self, view, flat, groups):
        pairs = zip(flat.line_up("The leaves", view), flat.leaves)
        return flat.build([_complex(**x) if _is_complex(like) else x for x, like in pairs])

    def carried(self, name, x, flat, groups):
        # JAX's gradient of a complex parameter is the conjugate of the gradient of its parts.
        return super().carried(name, conj(x) if name == "grad" else x, flat, groups)


def _platform(leaves: list[Leaf]) -> str:
    """The platform of the first array that lies on a device, or JAX's default if all are tracers."""
    for x in leaves:
        if isinstance(x, jax.Array) and not isinstance(x, Tracer):
            return next(iter(x.sharding.device_set)).platform
    return jax.default_backend()


def _dtype(flat: Flat, i: int) -> DType:
    """The dtype in which the chain sees the leaf."""
    return slot_dtype(dtype_of(flat.leaves[i]))


def _joined(link: flatten | pack, leaves: list[Leaf], flat: Flat, group: list[int]) -> jax.Array:
    """A group of leaves as one vector."""
    name, parts = type(link).__name__, []
    for i in group:
        x, like = leaves[i], flat.leaves[i]
        if x is None:
            what = "pack" if isinstance(link, pack) else "vector"
            raise TypeError(
                f"Link {name!r} has no update at {flat.paths[i]!r}, {show(like)}, and a {what} cannot have holes: "
                f"exclude the parameter by partition(by_path({{pattern: freeze()}}, default={name}(...)))"
            )
        parts.append(jnp.ravel(tree.replicated(jnp.asarray(x, _dtype(flat, i)))))
    return jnp.concatenate(parts)


def _separate(vector: jax.Array | None, leaves: list[Leaf], flat: Flat, group: list[int]) -> None:
    """Replace the leaves of a group by the parts of a vector."""
    if vector is None:
        return
    start = 0
    for i in group:
        shape, size = jnp.shape(flat.leaves[i]), jnp.size(flat.leaves[i])
        leaves[i] = tree.sharded_like(vector[start : start + size].reshape(shape), flat.leaves[i])
        start += size


def _is_complex(x: Leaf) -> bool:
    return is_trainable(x) and jnp.iscomplexobj(x)


def _real_imag(x: Leaf, dtype: DType) -> dict[str, Leaf]:
    if x is None:
        return {"real": None, "imag": None}
    x = jnp.asarray(x, dtype)
    return {"real": x.real, "imag": x.imag}


def _complex(real: Leaf, imag: Leaf) -> Leaf:
    return None if real is None else jax.lax.complex(real, imag)
