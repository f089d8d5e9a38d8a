"""A leaf with encoded slots: its leaf function in the form that suits each device.

If the function is written plainly, XLA stores the widened slots, since several of its kernels read them. On CPUs a loop
over tiles keeps them in the cache, and one kernel keeps them on a TPU's chip. On GPUs it is less traffic to compute
everything twice, the first time for the scales alone.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from .blocks import Blocks
from .elementwise import fits_kernel, is_elementwise, without_shape
from .plan import LeafInputs, LeafOutputs, Plan, Slots
from .shards import Shards
from .storage import Format, Stored
from .tiles import Grid, Tiles

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr

FunctionOfArrays: TypeAlias = Callable[[list[jax.Array], LeafInputs], LeafOutputs]
"""A leaf function of the arrays of its plan, and of the leaf's inputs."""


class CodedLeaf(NamedTuple):
    """A leaf with encoded slots, whose function is elementwise."""

    function: FunctionOfArrays
    """Accepts each slot either as stored or in float32, and returns it in the same form. Closes over no tracers."""
    formats: dict[tuple[str, str], tuple[Blocks, bool]]
    """The formats of the encoded slots, by link and slot, and whether they are signed."""
    shape: tuple[int, ...]
    in_place: bool
    """Whether the result replaces the parameter."""
    fits_kernel: bool
    """Whether a kernel for TPUs can compute it."""

    @classmethod
    def of(
        cls, function: FunctionOfArrays, plan: Plan, arrays: list[jax.Array], inputs: LeafInputs
    ) -> CodedLeaf | None:
        """The leaf, if it has encoded slots and the function is elementwise."""
        shape = jnp.shape(inputs.u)
        slots = {(name, s): x for name, of in inputs.slots.items() for s, x in of.items()}
        coded = {
            (name, s): (form, signed)
            for name, s, form, signed in plan.formats
            if isinstance(slots.get((name, s)), dict)
        }
        if not coded or not all(_has_only_codes(form) for form, _ in coded.values()):
            return None
        plain = [x for x in (*slots.values(), inputs.residual) if not (x is None or isinstance(x, dict))]
        if jnp.iscomplexobj(inputs.u) or any(x.shape not in ((), shape) for x in plain):
            return None
        other = (*(1 for _ in shape[1:]), 1 + math.prod(shape))
        try:
            of_leaf, of_other = (_traced(function, arrays, inputs, size) for size in (shape, other))
        except Exception:  # any exception means that the function depends on the leaf's shape
            return None
        # The texts differ if the function computes with the leaf's shape, such as with a fan-in.
        if without_shape(of_leaf, shape) != without_shape(of_other, other) or not is_elementwise(of_leaf.jaxpr, shape):
            return None
        fits = fits_kernel(of_leaf.jaxpr) and all(itertools.starmap(_codes_fit_kernel, coded.values()))
        return cls(function, coded, shape, plan.apply, fits)

    def __call__(self, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
        """What the function returns, computed in the form that suits the device."""
        leaf = inputs.u if inputs.p is None else inputs.p
        shards = Shards.of(leaf)
        if shards is None:
            return self._on_device(arrays, inputs)
        specs = self._specs(shards, inputs)
        if specs is None:
            return self.plainly(arrays, inputs)
        like = jax.eval_shape(self.function, arrays, inputs)
        slots = {name: {s: specs.slots[name][s] for s in of} for name, of in like.slots.items()}
        spec: Any = shards.spec
        out_specs = LeafOutputs(spec, slots, None if like.residual is None else spec)
        local = self._replace(shape=shards.local(self.shape))

        def on_shard(arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
            keys, rounding_key = jax.tree.map(shards.own_key, (inputs.keys, inputs.rounding_key))
            return local._on_device(arrays, inputs._replace(keys=keys, rounding_key=rounding_key))

        return shards.map(on_shard, ([P()] * len(arrays), specs), out_specs)(arrays, inputs)

    def _specs(self, shards: Shards, inputs: LeafInputs) -> LeafInputs | None:
        """How the inputs are sharded; ``None`` if the border of a shard cuts a block."""

        def spec(x: Any) -> P:
            return shards.spec if x.ndim else P()

        slots: Any = {name: {s: spec(x) for s, x in of.items() if (name, s) not in self.formats}
                      for name, of in inputs.slots.items()}  # fmt: skip
        for (name, s), (form, _) in self.formats.items():
            blocks = shards.block_specs(self.shape, form.block, form.per_byte)
            if blocks is None:
                return None
            slots[name][s] = dict(zip((type(form).__name__, "scale"), blocks))
        return jax.tree.map(spec, inputs._replace(slots={}))._replace(slots=slots)

    def _on_device(self, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
        from .one_device import on_one_device  # here, since what it imports is slow to import

        blocks = [form.block for form, _ in self.formats.values()]
        tiles, grid = Tiles.of(self.shape, math.lcm(*blocks)), Grid.of(self.shape, blocks)

        def on_cpu(arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
            inputs = inputs._replace(dropped=None)  # a CPU does not take a step that is rejected
            if tiles is None:
                return self.function(arrays, inputs)
            # XLA would gather the tiles of a leaf that it divides along automatic axes of a mesh.
            return on_one_device(functools.partial(self.in_tiles, tiles), self.function, arrays, inputs, portable=True)

        def on_tpu(arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
            if grid is None or not self.fits_kernel or any(x.ndim for x in arrays):
                return self.plainly(arrays, inputs)
            return on_one_device(functools.partial(self.in_kernel, grid), self.plainly, arrays, inputs)

        return jax.lax.platform_dependent(arrays, inputs, cpu=on_cpu, tpu=on_tpu, default=self.in_two_passes)

    def plainly(self, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
        """Compute the leaf as any other."""
        return unless_dropped(self.in_place, inputs, self.function(arrays, inputs))

    def in_tiles(self, tiles: Tiles, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
        """Compute the leaf tile by tile."""
        return tiles.map(functools.partial(self.function, arrays), inputs)

    def in_kernel(self, grid: Grid, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
        """Compute the leaf in one kernel for a TPU."""
        from .kernel import run  # here, since only TPUs need Pallas

        return run(functools.partial(self.function, arrays), self.formats, inputs, grid, in_place=self.in_place)

    def in_two_passes(self, arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
        """First compute the scales; then compute everything again and encode with them."""
        first = self.function(arrays, self._widened(inputs)).slots
        scales = {key: self.formats[key][0].scale_of(x) for key, x in self._coded(first)}
        inputs, scales = jax.lax.optimization_barrier((inputs, scales))
        done = self.function(arrays, self._widened(inputs))
        slots = {name: {**of} for name, of in done.slots.items()}
        for (name, s), x in self._coded(done.slots):
            form, signed = self.formats[name, s]
            slots[name][s] = form.keep_scaled(x, scales[name, s], signed)
        return unless_dropped(self.in_place, inputs, done._replace(slots=slots))

    def _coded(self, slots: Slots) -> Iterator[tuple[tuple[str, str], Any]]:
        """Those of the slots that have a format, and their keys."""
        return (((name, s), x) for name, of in slots.items() for s, x in of.items() if (name, s) in self.formats)

    def _widened(self, inputs: LeafInputs) -> LeafInputs:
        """The inputs with the encoded slots in float32."""
        slots = {name: {**of} for name, of in inputs.slots.items()}
        for (name, s), x in self._coded(inputs.slots):
            form, signed = self.formats[name, s]
            slots[name][s] = form.widen(x, self.shape, signed)
        return inputs._replace(slots=slots)


def zero_if_dropped(inputs: LeafInputs) -> LeafInputs:
    """The inputs, with an update of zeros if the step is rejected, so that its derivatives are finite."""
    if inputs.dropped is None:
        return inputs
    dropped = inputs.dropped > 0
    u, grad = (None if x is None else jnp.where(dropped, jnp.zeros_like(x), x) for x in (inputs.u, inputs.grad))
    return inputs._replace(u=u, grad=grad)


def unless_dropped(in_place: bool, inputs: LeafInputs, done: LeafOutputs) -> LeafOutputs:
    """The outputs, or what they replace if the step is rejected."""
    if inputs.dropped is None:
        return done
    old = LeafOutputs(
        inputs.p if in_place and inputs.p is not None else done.leaf,
        {name: {s: inputs.slots[name][s] for s in of} for name, of in done.slots.items()},
        inputs.residual if done.residual is not None else None,
    )
    return jax.tree.map(functools.partial(jax.lax.select, inputs.dropped > 0), old, done)


def _has_only_codes(form: Format) -> bool:
    """Whether codes in blocks are all that a format stores."""
    return isinstance(form, Blocks) and type(form).keep is Blocks.keep and type(form).widen is Blocks.widen


@functools.lru_cache(maxsize=64)
def _codes_fit_kernel(form: Blocks, signed: bool) -> bool:
    """Whether a kernel for a TPU can encode and decode: elementwise, and without a table."""
    numbers = jax.ShapeDtypeStruct((8, form.block), jnp.float32)
    codes = jax.ShapeDtypeStruct(numbers.shape, jnp.int32)
    made = [jax.make_jaxpr(f, static_argnums=1)(x, signed) for f, x in ((form.encode, numbers), (form.decode, codes))]
    return all(is_elementwise(x.jaxpr, numbers.shape) and fits_kernel(x.jaxpr) and not x.consts for x in made)


def _traced(
    function: FunctionOfArrays, arrays: list[jax.Array], inputs: LeafInputs, shape: tuple[int, ...]
) -> ClosedJaxpr:
    """The jaxpr of a leaf function for another shape, with all slots in plain arrays."""

    def resized(x: Stored) -> Stored | jax.ShapeDtypeStruct:
        if isinstance(x, dict):  # the arrays of a format
            return jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.ShapeDtypeStruct(shape, x.dtype) if jnp.ndim(x) else x

    slots = {name: {s: resized(x) for s, x in of.items()} for name, of in inputs.slots.items()}
    return jax.make_jaxpr(function)(arrays, jax.tree.map(resized, inputs._replace(slots={}))._replace(slots=slots))
