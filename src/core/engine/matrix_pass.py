"""The pass of a `Matrixwise` link, in which the matrices of one shape are one array.

So XLA compiles them once. On TPUs and GPUs they are computed as a batch, on CPUs one after the other, which is faster
there, and those of a few leaves at a time.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ..values.matrices import Block, Form
from ..values.numerics import mul
from ..values.spec import axes_of_kind
from ..values.tree import (
    Names,
    from_real,
    names_of,
    shard_axes,
    shards,
    show,
    slot_dtype,
    to_real,
    untyped_axes,
)
from ..values.types import Scalars
from ..values.warning import warn
from .checks import unshardable, warn_of_untyped
from .frozen import Frozen, freeze
from .hooks import LeafSlots, blamed
from .leaf import narrowed_slot
from .matrices import first_of_block, form_of
from .moving import MovingLeaf
from .offload import fetched, returned
from .plan import Plan
from .protocol import MatrixwiseLike
from .storage import Stored, widened

Slots: TypeAlias = dict[str, jax.Array]
"""Slots of a matrix, or of a stack of them, by name."""


class Inputs(NamedTuple):
    """What a leaf brings into the pass. A pytree."""

    update: jax.Array
    slots: Slots
    key: jax.Array | None


class Member(NamedTuple):
    """The matrices of one shape in one leaf."""

    place: int
    """The index of the leaf."""
    which: int
    """The index of the block within the leaf."""
    block: Block
    turned: bool
    stack: jax.Array
    slots: Slots


Stack: TypeAlias = tuple[jax.Array, Slots]
"""Updates and their slots: of one matrix, of a stack, or of a leaf."""
F = TypeVar("F", bound=Callable)


class MatrixPass:
    """One pass of all leaves through one link."""

    def __init__(self, name: str, leaves: list[MovingLeaf], plans: list[tuple[Plan, list[jax.Array]]]) -> None:
        self.name = name
        self.leaves = leaves
        self.groups: dict[tuple, tuple[Frozen, list[jax.Array]]] = {}
        """The link with its scalars, as constants and arrays, for each group of leaves that share them."""
        self.group_of: list[tuple] = []
        for plan, arrays in plans:
            links, scalars = plan.frozen.thaw(arrays)
            frozen, own = freeze((links[-1], scalars[-1]))
            key = frozen, *map(id, own)
            self.groups.setdefault(key, (frozen, own))
            self.group_of.append(key)
        self.links: list[Any] = [self._thaw(i)[0] for i in self.group_of]
        self.formats = [_formats(name, plan) for plan, _ in plans]
        self.forms = [form_of(name, link, leaf.path, leaf.update) for link, leaf in zip(self.links, leaves)]
        self._check_shards()

    def __call__(
        self,
        slots: dict[str, list[Stored]],
        key: Callable[[MovingLeaf], jax.Array] | None,
        dither: jax.Array,
        dropped: jax.Array | None,
        encoded: set[int],
    ) -> list[MovingLeaf]:
        """The leaves with their next updates. Replaces entries of ``slots``, lists over all leaves of the tree.

        ``dropped`` says whether the step is rejected; leaves in ``encoded`` then keep their slots themselves.
        """
        stored = [{s: of[leaf.place] for s, of in slots.items()} for leaf in self.leaves]
        inputs = [
            Inputs(leaf.update, self._widened(i, fetched(old)), None if key is None else key(leaf))
            for i, (leaf, old) in enumerate(zip(self.leaves, stored))
        ]
        arrays = [arrays for _, arrays in self.groups.values()]
        outputs = self._on_mesh(self._computed, inputs, arrays)
        moved = []
        for i, ((u, new), old) in enumerate(zip(outputs, stored)):
            kept = {s: self._narrowed(i, s, x, old[s], dither) for s, x in new.items()}
            if dropped is not None and self.leaves[i].place in encoded:
                kept = jax.tree.map(functools.partial(jax.lax.select, dropped), fetched(old), kept)
            for s, x in returned(kept, old).items():
                slots[s][self.leaves[i].place] = x
            moved.append(self.leaves[i]._replace(update=u))
        return moved

    def _check_shards(self) -> None:
        for leaf in self.leaves:
            if axes := shard_axes(leaf.update):
                raise TypeError(unshardable(self.name, leaf.path, axes))
        if untyped_axes():
            warn_of_untyped(self.name)

    def _thaw(self, group: tuple) -> tuple[Any, Scalars]:
        frozen, arrays = self.groups[group]
        return frozen.thaw(arrays)

    # Slots as they are stored

    def _widened(self, i: int, slots: dict[str, Stored]) -> Slots:
        link, u, formats = self.links[i], self.leaves[i].update, self.formats[i]
        wide = {}
        for s, x in slots.items():
            if s in link.factors:
                wide[s] = x
                continue
            real = jax.eval_shape(functools.partial(to_real, dtype=self.leaves[i].dtype), u)
            wide[s] = from_real(widened(x, real.shape, real.dtype, *formats.get(s, ())), slot_dtype(u.dtype))
        return wide

    def _narrowed(self, i: int, slot: str, x: jax.Array, old: Stored, dither: jax.Array | None) -> Stored:
        if slot in self.links[i].factors:
            return x
        return narrowed_slot(to_real(x, self.leaves[i].dtype), self.formats[i].get(slot, ()), old, dither)

    # Arithmetic

    def _on_mesh(
        self, computed: Callable[..., list[Stack]], inputs: list[Inputs], arrays: list[list[jax.Array]]
    ) -> list[Stack]:
        """``computed(inputs, arrays)``, along automatic axes, since what is one array here may be sharded unequally."""
        meshes = [jax.typeof(x.update).sharding.mesh for x in inputs]
        mesh = next((mesh for mesh in meshes if axes_of_kind(mesh, AxisType.Explicit)), None)
        if mesh is None:
            return computed(inputs, arrays)
        explicit = axes_of_kind(mesh, AxisType.Explicit)
        like = [(x.update, x.slots) for x in inputs]
        where = jax.tree.map(lambda x: NamedSharding(mesh, jax.typeof(x).sharding.spec), like)
        automatic: Any = jax.sharding.auto_axes(computed, axes=explicit, out_sharding=where)
        return automatic(inputs, arrays)

    def _computed(self, inputs: list[Inputs], arrays: list[list[jax.Array]]) -> list[Stack]:
        arrays_of = dict(zip(self.groups, arrays))
        buckets: dict[tuple, list[Member]] = {}
        results: list[list[Any]] = [[None] * len(form.blocks) for form in self.forms]
        for i, (form, x, link, group) in enumerate(zip(self.forms, inputs, self.links, self.group_of)):
            for member in self._members(i, form, x, link) if x.update.size else ():
                shape = member.stack.shape[1:], member.stack.dtype, member.turned and bool(link.over)
                buckets.setdefault((group, *shape), []).append(member)
        for (group, *_), members in buckets.items():
            done = self._bucket(self.groups[group][0], arrays_of[group], members)
            for member, made in zip(members, done):
                results[member.place][member.which] = made
        return [self._joined(i, x, of) for i, (x, of) in enumerate(zip(inputs, results))]

    def _members(self, i: int, form: Form, x: Inputs, link: MatrixwiseLike) -> list[Member]:
        """The matrices of a leaf, block by block."""
        first = [
            jax.eval_shape(functools.partial(first_of_block, self.name, link, block, slot_dtype(x.update.dtype)))
            for block in (form.blocks if link.factors else ())
        ]
        stacks, slots = form.stacks(x.update), {}
        for s, y in x.slots.items():
            slots[s] = form.entries(y, [like[s].shape for like in first]) if s in link.factors else form.stacks(y)
        members = []
        for k, (block, stack) in enumerate(zip(form.blocks, stacks)):
            own = {s: of[k] for s, of in slots.items()}
            if x.key is not None:
                own["key"] = jax.random.split(jax.random.fold_in(x.key, k), block.number)
            turned = link.either_way and block.m > block.n
            if turned:
                stack = stack.mT
                own = {s: y.mT if s in link.matrix_slots else y for s, y in own.items()}
            members.append(Member(i, k, block, turned, stack, own))
        return members

    def _joined(self, i: int, x: Inputs, of: list[Stack]) -> Stack:
        """A leaf from the results for its blocks."""
        if not x.update.size:
            return x.update, x.slots
        form, factors = self.forms[i], self.links[i].factors
        slots = {s: (form.slot if s in factors else form.leaf)([new[s] for _, new in of]) for s in x.slots}
        return form.leaf([u for u, _ in of]), slots

    def _bucket(self, frozen: Frozen, arrays: list[jax.Array], members: list[Member]) -> list[Stack]:
        """The link's results for the matrices of one shape, in their leaves' own orientation."""
        link, _ = frozen.thaw(arrays)
        function = jax.jit(functools.partial(self._matrix, frozen))  # traced once for all of them

        def one_by_one(arrays: list[jax.Array], stack: Stack) -> Stack:
            if len(stack[0]) > 1:
                return jax.lax.map(functools.partial(function, arrays), stack)
            return jax.tree.map(lambda x: x[None], function(arrays, jax.tree.map(lambda x: x[0], stack)))

        def as_batch(arrays: list[jax.Array], stack: Stack) -> Stack:
            if len(stack[0]) == 1:
                return one_by_one(arrays, stack)
            return jax.vmap(function, (None, 0))(arrays, stack)

        share = self._sharing(link.over)
        if share is None and not link.decomposes:
            computed = by_platform(functools.partial(_as_one, as_batch), functools.partial(_in_parts, one_by_one))
        else:
            each = one_by_one if link.decomposes else by_platform(as_batch, one_by_one)
            computed = functools.partial(_as_one, each if share is None else functools.partial(share, each))
        done = computed(arrays, [(x.stack, x.slots) for x in members])
        return [self._restored(link, x, *made) for x, made in zip(members, done)]

    def _matrix(self, frozen: Frozen, arrays: list[jax.Array], stack: Stack) -> Stack:
        """One matrix through the link."""
        (link, scalars), (M, slots) = frozen.thaw(arrays), stack
        with blamed(self.name):
            result = link.matrix(M, LeafSlots(**slots), scalars)
        kept = {s: slots[s] for s in (*link.matrix_slots, *link.factors)}
        if not kept and isinstance(result, tuple):
            raise TypeError(
                f"The matrix of link {self.name!r} returned a tuple, but has no slots: return the update alone, or "
                "name them in matrix_slots or factors"
            )
        new, made = result if kept and isinstance(result, tuple) and len(result) == 2 else (result, {})
        if not isinstance(made, dict) or made.keys() != kept.keys():
            names = ", ".join(kept)
            raise TypeError(f"The matrix of link {self.name!r} must return the update and a dict of {names}")
        for what, x, old in ("an update", new, M), *((f"its slot {s!r}", made[s], kept[s]) for s in kept):
            if show(x) != show(old):
                raise TypeError(f"Link {self.name!r} turned {what} of {show(old)} into {show(x)}")
        return jnp.asarray(new), made

    def _restored(self, link: MatrixwiseLike, x: Member, u: jax.Array, slots: Slots) -> Stack:
        """Results in the orientation of the leaf, in their size."""
        if x.turned:
            u, slots = u.mT, {s: y.mT for s, y in slots.items()}
        with blamed(self.name):
            factor = link.size(x.block.m, x.block.n)
        return u if isinstance(factor, float) and factor == 1 else mul(factor, u), slots

    def _sharing(self, over: Names) -> Share | None:
        """How the matrices of a stack are divided among the devices, if they are."""
        names, mesh = names_of(over), jax.sharding.get_abstract_mesh()
        if not names:
            return None
        if divided := [name for name in names if name in mesh.manual_axes]:
            warn(
                f"Link {self.name!r} shares nothing over {divided[0]!r} within jax.shard_map over it: call step outside"
            )
            return None
        if mesh.empty:
            if jax.device_count() > 1:
                warn(f"Link {self.name!r} shares nothing over {over!r}: call step under jax.set_mesh(mesh)")
            return None
        if lacking := [name for name in names if name not in mesh.axis_names]:
            known = ", ".join(map(repr, mesh.axis_names))
            raise ValueError(f"`{self.name}.over` names the axis {lacking[0]!r}, but the mesh has {known}")
        return functools.partial(_shared, mesh, names)


PART = 8
"""The number of stacks in each loop, on CPUs."""
Share: TypeAlias = Callable[[Callable[[list[jax.Array], Stack], Stack], list[jax.Array], Stack], Stack]
"""Applies a function to a stack of matrices, ``share(function, arrays, stack)``."""


def _as_one(function: Callable[..., Stack], arrays: list[jax.Array], stacks: list[Stack]) -> list[Stack]:
    """``function`` of stacks that are joined to one."""
    done, results, end = function(arrays, jax.tree.map(lambda *xs: jnp.concatenate(xs), *stacks)), [], 0
    for stack, _ in stacks:
        part = slice(end, end := end + len(stack))
        results.append(jax.tree.map(operator.itemgetter(part), done))
    return results


def _in_parts(function: Callable[..., Stack], arrays: list[jax.Array], stacks: list[Stack]) -> list[Stack]:
    """`_as_one` of a few stacks at a time: slices at the same place of different arrays are compiled once."""
    parts = (stacks[i : i + PART] for i in range(0, len(stacks), PART))
    return [result for part in parts for result in _as_one(function, arrays, part)]


def _shared(
    mesh: AbstractMesh, names: tuple[str, ...], function: Callable[..., Stack], arrays: list[jax.Array], stack: Stack
) -> Stack:
    """Deal the matrices of a stack to the devices along these axes of the mesh, and bring them back.

    Two all-to-alls for sharded parameters. The last devices get copies of the first matrix if there are too few.
    """
    number, dealt = len(stack[0]), P(names)
    more = -number % shards(names, mesh.shape)

    def placed(x: jax.Array) -> jax.Array:
        spec = P(None, *[P.UNCONSTRAINED] * (x.ndim - 1))
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    def ready(x: jax.Array) -> jax.Array:
        x = jnp.concatenate([x, jnp.broadcast_to(x[:1], (more, *x.shape[1:]))]) if more else x
        return placed(x)  # without it, XLA makes an all-to-all for each matrix of a replicated parameter

    specs = {"in_specs": (P(), dealt), "out_specs": dealt, "axis_names": {*names}}
    each = jax.shard_map(function, mesh=mesh, check_vma=False, **specs)
    return jax.tree.map(lambda x: placed(x)[:number], each(arrays, jax.tree.map(ready, stack)))


def by_platform(default: F, on_cpu: F) -> F:
    """One function for CPUs, and one for other devices."""

    def chosen(*args: Any) -> Any:
        return jax.lax.platform_dependent(*args, cpu=on_cpu, default=default)

    return chosen  # pyright: ignore[reportReturnType]


def _formats(name: str, plan: Plan) -> dict[str, tuple]:
    """The format of each slot of a link, and whether it is signed."""
    return {slot: tuple(form) for link, slot, *form in plan.formats if link == name}
