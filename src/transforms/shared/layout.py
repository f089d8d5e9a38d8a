"""Parameters that are divided along more axes of their mesh than they come with."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ...core.engine import engine
from ...core.engine.placement import AnyMesh, axis_kinds, spec_of
from ...core.engine.protocol import ChainLike
from ...core.engine.state import State
from ...core.values.contents import code
from ...core.values.spec import TILE, axes_in, axes_of_kind, only, padded, spec, spread
from ...core.values.tables import Keyed, Shape, pick
from ...core.values.tree import Flat, dtype_of, is_trainable, names_of
from ...core.values.types import Leaf, Params, PyTree

SMALL = 2**16
"""Parameters of at most so many numbers share a collective."""

Specs = Keyed | spec | None


class Place(NamedTuple):
    """Where a parameter lies, as it comes and divided further."""

    home: P
    apart: P
    why: str
    """Why it is not divided along all axes; empty if it is."""

    @property
    def added(self) -> tuple[str, ...]:
        """The axes along which only ``apart`` divides it."""
        return tuple(name for name in axes_in(self.apart) if name not in axes_in(self.home))


class Division(NamedTuple):
    """An array as a stack of its shards along some mesh axes, which are its first axes."""

    axes: tuple[tuple[int, ...], ...]
    """For each axis of the array, the first axes of the stack that divide it, from major to minor."""
    sizes: tuple[int, ...]
    """The lengths of the first axes."""

    @classmethod
    def of(cls, place: Place, ndim: int, mesh: AnyMesh) -> Division:
        added = place.added
        entries = (names_of(entry) for entry in padded(place.apart, ndim))
        axes = tuple(tuple(added.index(name) for name in names if name in added) for names in entries)
        return cls(axes, tuple(mesh.shape[name] for name in added))

    @property
    def order(self) -> list[int]:
        """The axes of the stack, in the order in which those of the array contain them."""
        return [axis for i, factors in enumerate(self.axes, len(self.sizes)) for axis in (*factors, i)]

    def join(self, stack: jax.Array) -> jax.Array:
        """The array."""
        lengths = [
            n * math.prod(self.sizes[i] for i in factors)
            for n, factors in zip(stack.shape[len(self.sizes) :], self.axes)
        ]
        return stack.transpose(self.order).reshape(lengths)

    def split(self, x: jax.Array) -> jax.Array:
        """The inverse of `join`."""
        lengths: list[int] = []
        for n, factors in zip(x.shape, self.axes):
            sizes = [self.sizes[i] for i in factors]
            lengths += [*sizes, n // math.prod(sizes)]
        inverse = sorted(range(len(lengths)), key=self.order.__getitem__)
        return x.reshape(lengths).transpose(inverse)


class Layout(NamedTuple):
    """Where the trained leaves of a tree lie, as they come and divided further."""

    mesh: AnyMesh | None
    flat: Flat
    places: dict[int, Place]
    """By index."""

    @classmethod
    def of(
        cls,
        what: str,
        mesh: AnyMesh | None,
        flat: Flat,
        over: Sequence[str],
        specs: Specs,
        *,
        divide_sharded: bool = True,
    ) -> Layout:
        """The layout along the axes ``over``.

        ``specs`` says how leaves come along automatic axes, and ``divide_sharded`` whether an axis of theirs that is
        sharded may be divided further. ``what`` names the caller in errors.
        """
        if mesh is None:
            return cls(None, flat, {})
        lacking = [name for name in over if name not in mesh.axis_names]
        if lacking and mesh.size == 1:
            return cls(None, flat, {})
        if lacking:
            known = ", ".join(map(repr, mesh.axis_names))
            raise ValueError(
                f"`{what}.over` names the axis {lacking[0]!r}, but the mesh has {known}: give one of these"
            )
        if len({axis_kinds(mesh)[name] for name in over}) > 1:
            raise ValueError(
                f"`{what}.over` names explicit and automatic axes, {code(tuple(over))}: give axes of one kind"
            )
        trained = ((i, path, p) for i, (path, p) in enumerate(flat.items()) if is_trainable(p))
        return cls(mesh, flat, {i: _place(what, mesh, path, p, over, specs, divide_sharded) for i, path, p in trained})

    def apart(self, leaves: list[Leaf]) -> PyTree:
        """Leaves like the parameters, divided further."""
        out = list(leaves)
        for i, place in self.places.items():
            out[i] = None if out[i] is None else self._put(out[i], place.apart)
        return self.flat.build(out)

    def home(self, leaves: list[Leaf]) -> PyTree:
        """Leaves like the parameters, as these come. Small ones are gathered together."""
        together: dict[int, jax.Array] = {}
        for added, group in self.small(leaves) if self.mesh and len({*self.mesh.axis_types}) == 1 else ():
            together |= zip(group, self._gathered(added, group, leaves))
        out = [together.get(i, x) for i, x in enumerate(leaves)]
        for i, place in self.places.items():
            if i in together or out[i] is None:
                continue
            out[i] = self._put(out[i], place.apart)
            # One axis after the other: XLA's TPU compiler makes an all-reduce of a gather along several at once.
            left = list(self._mesh.axis_names)
            for name in reversed(place.added):
                left.remove(name)
                out[i] = self._put(out[i], only(place.apart, left))
        return self.flat.build(out)

    def kept(self, tx: ChainLike, params: Params, state: State) -> State:
        """The state of a chain of the divided parameters, of which XLA is told where it lies."""
        if self.mesh is None or not axes_of_kind(self.mesh, AxisType.Auto):
            return state  # its type says so
        return self._told(state, engine.abstract_state(tx.links, self.shapes(params)))

    def _told(self, x: PyTree, like: PyTree) -> PyTree:
        """A state of which XLA is told where each array lies that ``like``, a first state, has too."""
        if isinstance(x, State):
            return x._replace(links=self._told(x.links, like.links if isinstance(like, State) else {}))
        if isinstance(x, dict) and isinstance(like, dict):
            return {key: self._told(y, like[key]) if key in like else y for key, y in x.items()}
        if jax.tree.structure(x) != jax.tree.structure(like):
            return x  # of another chain: the engine says so
        return jax.tree.map(lambda x, s: self._put(x, s.sharding.spec), x, like)

    def shapes(self, params: Params) -> Params:
        """The shapes of the divided parameters, with shardings."""

        def shape(i: int, p: Leaf) -> Leaf:
            if self.mesh is None:
                return p
            if i not in self.places:
                return None
            sharding = NamedSharding(self.mesh, self.places[i].apart)
            return jax.ShapeDtypeStruct(jnp.shape(p), dtype_of(p), sharding=sharding)

        leaves = self.flat.line_up("The parameters", params)
        return self.flat.build([shape(i, p) for i, p in enumerate(leaves)])

    def small(self, leaves: list[Leaf]) -> Iterator[tuple[tuple[str, ...], list[int]]]:
        """Groups of small leaves that are divided along the same axes, with these axes."""
        groups: dict[tuple, list[int]] = {}
        for i, place in self.places.items():
            if leaves[i] is not None and place.added and jnp.size(leaves[i]) <= SMALL:
                groups.setdefault((place.added, dtype_of(leaves[i])), []).append(i)
        return ((added, group) for (added, _), group in groups.items())

    def _gathered(self, added: tuple[str, ...], group: list[int], leaves: list[Leaf]) -> list[jax.Array]:
        """These leaves as they come, by one collective along the axes that were ``added``."""
        mesh, places = self._mesh, [self.places[i] for i in group]
        divisions = [Division.of(self.places[i], jnp.ndim(leaves[i]), mesh) for i in group]
        sizes = divisions[0].sizes

        def gather(*shards: jax.Array) -> list[jax.Array]:
            rows = joined(shards)
            for name in reversed(added):
                rows = jax.lax.all_gather(rows, name)
            return [d.join(x) for d, x in zip(divisions, parts(rows, [(*sizes, *x.shape) for x in shards]))]

        specs = tuple(place.apart for place in places), [place.home for place in places]
        mapped = jax.shard_map(gather, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)
        return mapped(*(self._put(leaves[i], self.places[i].apart) for i in group))

    def summed(self, over: Sequence[str], leaves: list[Leaf]) -> list[Leaf]:
        """The sums of leaves over devices, divided further. Within `jax.shard_map` over these axes."""
        out = list(leaves)
        for added, group in self.small(leaves):
            whole = [i for i in group if not axes_in(self.places[i].home)]
            for i, x in zip(whole, self._scattered(over, added, whole, leaves) if whole else ()):
                out[i] = x
        for i, place in self.places.items():
            for name in over if out[i] is leaves[i] and out[i] is not None else ():
                axis = next((j for j, entry in enumerate(place.apart) if name in names_of(entry)), None)
                if axis is None:
                    out[i] = jax.lax.psum(out[i], name)
                else:
                    out[i] = self._reduced(out[i], name, axis, place.home)
        return out

    def _reduced(self, x: jax.Array, name: str, axis: int, home: P) -> jax.Array:
        """The sum over devices along a mesh axis, divided along an axis of the array."""
        n = self._mesh.shape[name]
        whole_tiles = axis < x.ndim - 1 or x.shape[axis] % (n * TILE[1]) == 0

        def reduced(x: jax.Array) -> jax.Array:
            if whole_tiles:
                return jax.lax.psum_scatter(x, name, scatter_dimension=axis, tiled=True)
            # XLA's TPU compiler would make an all-reduce of one whose results are no whole tiles.
            stack = jnp.moveaxis(x.reshape(*x.shape[:-1], n, x.shape[-1] // n), -2, 0)
            return jax.lax.psum_scatter(stack, name)

        return lowered_automatically(reduced, home)(x)

    def _scattered(
        self, over: Sequence[str], added: tuple[str, ...], group: list[int], leaves: list[Leaf]
    ) -> Iterator[jax.Array]:
        """The sums of these leaves over devices, divided along the axes ``added``, by one collective an axis."""
        divisions = [Division.of(self.places[i], leaves[i].ndim, self._mesh) for i in group]
        sizes = divisions[0].sizes
        stacks = [d.split(leaves[i]) for d, i in zip(divisions, group)]
        rows = jnp.concatenate([x.reshape(*sizes, -1) for x in stacks], -1)
        for name in added:  # in the order of the first axes of the stacks
            rows = lowered_automatically(functools.partial(jax.lax.psum_scatter, axis_name=name), P())(rows)
        if others := tuple(name for name in over if name not in added):
            rows = jax.lax.psum(rows, others)
        return parts(rows, [x.shape[len(sizes) :] for x in stacks])

    def _put(self, x: Leaf, where: P) -> jax.Array:
        mesh = self._mesh
        if not isinstance(x, Tracer):
            own = getattr(getattr(x, "sharding", None), "mesh", None)
            concrete = next((m for m in (mesh, own) if isinstance(m, Mesh)), None)
            if concrete is not None:
                return jax.device_put(x, NamedSharding(concrete, where))
            x = jnp.asarray(x)
        if getattr(jax.typeof(x), "memory_space", None) is jax.memory.Space.Host:
            return x  # it lies there as it will on the device
        if axes := axes_of_kind(mesh, AxisType.Explicit):
            x = jax.sharding.reshard(x, NamedSharding(mesh, only(where, axes)))
        if axes := axes_of_kind(mesh, AxisType.Auto):
            x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, only(where, axes)))
        return x

    @property
    def _mesh(self) -> AnyMesh:
        assert self.mesh is not None
        return self.mesh


def lowered_automatically(f: Callable[[jax.Array], jax.Array], spec: P) -> Callable[[jax.Array], jax.Array]:
    """A reduce-scatter within `jax.shard_map` whose result is sharded so along the remaining axes of the mesh.

    JAX cannot lower it where explicit ones remain (0.10 for sharded arrays, 0.12 for any).
    """
    mesh = jax.sharding.get_abstract_mesh()
    explicit = axes_of_kind(mesh, AxisType.Explicit)
    if not explicit:
        return f
    return jax.sharding.auto_axes(f, axes=explicit, out_sharding=NamedSharding(mesh, only(spec, explicit)))  # pyright: ignore[reportReturnType]


def joined(arrays: Iterable[jax.Array]) -> jax.Array:
    """Arrays one after the other, as a vector."""
    return jnp.concatenate([x.reshape(-1) for x in arrays])


def parts(rows: jax.Array, shapes: list[tuple[int, ...]]) -> Iterator[jax.Array]:
    """The inverse of `joined`, along the last axis of ``rows``: arrays of these shapes, first axes included."""
    lengths = [math.prod(shape[rows.ndim - 1 :]) for shape in shapes]
    ends = itertools.accumulate(lengths)
    return (rows[..., end - n : end].reshape(shape) for shape, n, end in zip(shapes, lengths, ends))


def _place(
    what: str, mesh: AnyMesh, path: str, p: Leaf, over: Sequence[str], specs: Specs, divide_sharded: bool
) -> Place:
    kinds, ndim, found = axis_kinds(mesh), jnp.ndim(p), spec_of(p)
    explicit, auto = (
        [name for name in mesh.axis_names if kinds[name] == kind] for kind in (AxisType.Explicit, AxisType.Auto)
    )
    stated = _stated(what, specs, mesh, path, jnp.shape(p))
    typed = axes_of_kind(mesh, AxisType.Explicit)
    known = typed if isinstance(p, Tracer) else [] if found is None else mesh.axis_names
    found = P() if found is None else found
    checked = [name for name in known if name in auto or specs is not None]
    if only(found, checked, ndim) != only(stated, checked, ndim):
        raise ValueError(
            f"the parameter {path!r} is sharded by {only(found, checked)}, but `{what}.specs` says "
            f"{only(stated, checked)}. Types do not carry the sharding along automatic axes: give "
            f"specs=by_path({{{path!r}: {only(found, mesh.axis_names)}}}, default=P())"
        )
    both = zip(only(found, explicit, ndim), only(stated, auto, ndim))
    home = only([names_of(a) + names_of(b) for a, b in both], mesh.axis_names)
    # JAX cannot divide an axis of an array along axes of several kinds.
    others = [name for name in mesh.axis_names if not divide_sharded or kinds[name] != kinds[over[0]]]
    free = [i for i, entry in enumerate(padded(home, ndim)) if not any(name in others for name in names_of(entry))]
    return Place(home, *spread(jnp.shape(p), home, over, mesh.shape, free))


def _stated(what: str, specs: Specs, mesh: AnyMesh, path: str, shape: Shape) -> P:
    """How a parameter is sharded according to ``specs``."""
    entry = pick(f"{what}.specs", specs, path, shape)[1] if isinstance(specs, Keyed) else specs
    stated = P() if entry is None else entry.partition
    if lacking := [name for name in axes_in(stated) if name not in mesh.axis_names]:
        known = ", ".join(map(repr, mesh.axis_names))
        raise ValueError(f"`{what}.specs` shards {path!r} along {lacking[0]!r}, but the mesh has {known}")
    if len(stated) > len(shape):
        raise ValueError(
            f"`{what}.specs` has {stated} for {path!r}, which has {len(shape)} axes: give it a pattern of its own"
        )
    return stated


def mesh_around(leaves: list[Leaf]) -> AnyMesh | None:
    """The mesh on which arrays lie, or else the one that is set; ``None`` if there is none."""
    for x in leaves:
        sharding = None if x is None or isinstance(x, Tracer) else getattr(x, "sharding", None)
        if isinstance(sharding, NamedSharding):
            return sharding.mesh
    around = [jax.sharding.get_abstract_mesh()]
    around += [jax.typeof(x).sharding.mesh for x in leaves if isinstance(x, Tracer)]
    return next((mesh for mesh in around if not mesh.empty and not mesh.are_all_axes_manual), None)


def platform(mesh: AnyMesh) -> str:
    """The platform of the devices of a mesh, empty if it is not known."""
    device = mesh.devices.flat[0] if isinstance(mesh, Mesh) else getattr(mesh, "abstract_device", None)
    return getattr(device, "platform", "")


def check_specs(where: str, x: object, limits: None = None) -> Specs:
    """A field for the shardings along automatic axes: a table of `PartitionSpec`s, or one for all parameters."""
    x = spec(x) if isinstance(x, P) else x
    for entry in (*x.entries, x.default) if isinstance(x, Keyed) else (x,):
        if not (entry is None or isinstance(entry, spec)):
            raise ValueError(f"`{where}` must be by_path({{pattern: PartitionSpec(...)}}, default=...), got {code(x)}")
    return x  # pyright: ignore[reportReturnType]
