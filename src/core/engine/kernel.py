"""A leaf with encoded slots as one Pallas kernel for a TPU, which decodes, transforms and encodes it tile by tile.

The kernel reads and writes each array once, and stores no intermediate values in main memory.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.extend.random import threefry2x32_p

from .blocks import Blocks, bounded
from .plan import LeafInputs, LeafOutputs
from .storage import Stored
from .tiles import LANES, Grid, LeafFunction

Ref: TypeAlias = Any
"""A block of an array within the kernel."""
SUBLANES = 8


def run(
    function: LeafFunction,
    formats: Mapping[tuple[str, str], tuple[Blocks, bool]],
    inputs: LeafInputs,
    grid: Grid,
    *,
    in_place: bool,
    interpret: bool = False,
) -> LeafOutputs:
    """What ``function`` returns, with the slots in ``formats`` encoded, in the inputs and in the outputs.

    ``function`` is elementwise, and takes and returns these slots in float32. With ``in_place`` the new parameter
    overwrites the old one; slots and the residual always do. If ``inputs.dropped``, all of these stay as they are.
    """

    def operand(name: str, slot: str, x: Stored) -> Operand:
        return _Codes(x, *formats[name, slot], grid) if (name, slot) in formats else _operand(x, grid)

    slots: Any = {name: {s: operand(name, s, x) for s, x in of.items()} for name, of in inputs.slots.items()}
    olds = jax.tree.map(lambda x: _operand(x, grid), inputs._replace(slots={}))._replace(slots=slots)
    ins, treedef = jax.tree.flatten(olds)
    core, like = jax.make_jaxpr(function, return_shape=True)(treedef.unflatten([x.in_tile for x in ins]))
    kept = {name: {s: slots[name][s] for s in of} for name, of in like.slots.items()}

    def out(x: jax.ShapeDtypeStruct, old: Operand | None) -> Operand:
        if old is not None and x.ndim and old.in_tile.dtype == x.dtype:
            return old
        return _operand(jax.ShapeDtypeStruct(inputs.u.shape if x.ndim else (), x.dtype), grid)

    p: Any = olds.p if in_place else None
    residual = olds.residual if like.residual is not None else None
    outs = jax.tree.map(out, like, LeafOutputs(p, kept, residual))
    outs, treedef = jax.tree.flatten(outs)
    operands = [*ins, *(_Scalar(x, grid) for x in core.consts)]

    def kernel(*refs: Ref) -> None:
        remaining = iter(refs)
        sources = [[*itertools.islice(remaining, len(x.arrays))] for x in operands]
        values = [x.read(own) for x, own in zip(operands, sources)]
        new = _evaluated(core.jaxpr, values[len(ins) :], values[: len(ins)], _Draws(grid))
        dropped = None if olds.dropped is None else values[ins.index(olds.dropped)] > 0
        for x, y in zip(outs, new):
            own = [*itertools.islice(remaining, len(x.arrays))]
            x.write(own, y)
            if dropped is not None and x in ins:
                x.restore(own, sources[ins.index(x)], dropped)

    of_out = [(x, array) for x in outs for array in x.arrays]
    places = {id(array): i for i, array in enumerate(a for x in operands for a in x.arrays)}
    made = pl.pallas_call(
        kernel,
        grid=(-(-grid.rows // grid.height), grid.columns // grid.width),
        in_specs=[spec for x in operands for spec in x.specs],
        out_specs=[spec for x in outs for spec in x.specs],
        out_shape=[_varying_like(inputs.u, array) for _, array in of_out],
        input_output_aliases={places[id(a)]: i for i, (_, a) in enumerate(of_out) if id(a) in places},
        interpret=interpret,
    )(*(array for x in operands for array in x.arrays))
    remaining = iter(made)
    return treedef.unflatten([x.result([*itertools.islice(remaining, len(x.arrays))]) for x in outs])


class Operand:
    """An array of the leaf, or of scalars: how the kernel gets, reads and writes it."""

    in_tile: jax.ShapeDtypeStruct
    """What the leaf function sees of it."""
    arrays: list[Any]
    """The arrays that are passed to the kernel."""
    specs: list[Any]

    def read(self, refs: Sequence[Ref]) -> Any:
        raise NotImplementedError

    def write(self, refs: Sequence[Ref], x: jax.Array) -> None:
        raise NotImplementedError

    def restore(self, refs: Sequence[Ref], olds: Sequence[Ref], dropped: jax.Array) -> None:
        """Replace what was written by what was read if the step is rejected."""

        @pl.when(dropped)
        def _() -> None:
            for new, old in zip(refs, olds):
                new[...] = old[...]

    def result(self, arrays: Sequence[jax.Array]) -> Any:
        """The kernel's arrays in the form in which the leaf function's caller has them."""
        raise NotImplementedError


def _operand(x: Any, grid: Grid) -> Operand:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return _Key(x, grid)
    return _Numbers(x, grid) if x.ndim else _Scalar(x, grid)


class _Numbers(Operand):
    """An array of the leaf's shape."""

    def __init__(self, x: Any, grid: Grid) -> None:
        self.x = x
        self.in_tile = jax.ShapeDtypeStruct((grid.height, grid.width), x.dtype)
        self.arrays = [_reshaped(x, (grid.rows, grid.columns))]
        self.specs = [pl.BlockSpec((grid.height, grid.width), lambda i, j: (i, j))]

    def read(self, refs):
        return refs[0][...]

    def write(self, refs, x):
        refs[0][...] = x

    def result(self, arrays):
        return arrays[0].reshape(self.x.shape)


class _Scalar(Operand):
    """A number that is the same for all tiles, in scalar memory."""

    def __init__(self, x: Any, grid: Grid) -> None:
        self.x = x
        self.in_tile = jax.ShapeDtypeStruct((), x.dtype)
        self.arrays = [_reshaped(x, (1,))]
        self.specs = [pl.BlockSpec(memory_space=pltpu.SMEM)]

    def read(self, refs):
        return refs[0][0]

    def write(self, refs, x):
        refs[0][0] = x

    def result(self, arrays):
        return arrays[0].reshape(())


class _Key(Operand):
    """A PRNG key, as two numbers."""

    def __init__(self, x: Any, grid: Grid) -> None:
        data = jax.random.key_data(x)
        self.in_tile = jax.ShapeDtypeStruct((), x.dtype)
        self.arrays = [functools.reduce(jnp.bitwise_xor, jnp.split(data, data.size // 2))]
        self.specs = [pl.BlockSpec(memory_space=pltpu.SMEM)]

    def read(self, refs):
        return refs[0][0], refs[0][1]


class _Codes(Operand):
    """A slot in codes. Its scales are transposed, so that they take no padding in memory."""

    def __init__(self, x: Any, form: Blocks, signed: bool, grid: Grid) -> None:
        self.x, self.form, self.signed, self.grid = x, form, signed, grid
        self.name = type(form).__name__
        self.in_tile = jax.ShapeDtypeStruct((grid.height, grid.width), jnp.float32)
        per_byte, block = form.per_byte, form.block
        self.per_tile = grid.width // block
        count = grid.columns // block
        # Scales of several tiles lie in one block, of as many rows as fit into a register.
        self.scale_rows = SUBLANES if count > SUBLANES and SUBLANES % self.per_tile == 0 else count
        self.arrays = [
            x[self.name].reshape(grid.rows, grid.columns // per_byte),
            x["scale"].reshape(grid.rows, count).T,
        ]
        self.specs = [
            pl.BlockSpec((grid.height, grid.width // per_byte), lambda i, j: (i, j)),
            pl.BlockSpec(
                (self.scale_rows, grid.height), lambda i, j: (lax.div(j * self.per_tile, np.int32(self.scale_rows)), i)
            ),
        ]

    def read(self, refs):
        form = self.form
        codes = refs[0][...].astype(jnp.int32)
        if form.per_byte == 2:
            codes = _unpacked(codes)
        return jnp.concatenate(
            [
                form.decode(codes[:, block], self.signed) * self._column(refs[1], k)
                for k, block in enumerate(self._blocks())
            ],
            1,
        )

    def write(self, refs, x):
        form, codes = self.form, []
        for k, place in enumerate(self._blocks()):
            block = bounded(x[:, place])
            scale = form.scale(block)
            codes.append(form.encode(block / scale, self.signed))
            row = jnp.transpose(jnp.broadcast_to(scale, (self.grid.height, LANES)))[:1]
            refs[1][...] = jnp.where(self._is_row(k), row, refs[1][...])
        all_codes = jnp.concatenate(codes, 1)
        refs[0][...] = _packed(all_codes) if form.per_byte == 2 else all_codes

    def result(self, arrays):
        codes, scale = arrays[0], arrays[1].T
        return {self.name: codes.reshape(self.x[self.name].shape), "scale": scale.reshape(self.x["scale"].shape)}

    def _blocks(self) -> list[slice]:
        block = self.form.block
        return [slice(k * block, (k + 1) * block) for k in range(self.per_tile)]

    def _is_row(self, k: int) -> jax.Array:
        """Where the scales of the tile's k-th blocks are, in a block of transposed scales."""
        row = lax.rem(pl.program_id(1) * self.per_tile, np.int32(self.scale_rows)) + k
        return lax.broadcasted_iota(jnp.int32, (self.scale_rows, self.grid.height), 0) == row

    def _column(self, ref: Ref, k: int) -> jax.Array:
        """The scales of the tile's k-th blocks, as a column."""
        row = jnp.sum(jnp.where(self._is_row(k), ref[...], 0.0), 0, keepdims=True)
        return jnp.transpose(jnp.broadcast_to(row, (SUBLANES, self.grid.height)))[:, :1]


def _varying_like(u: jax.Array, x: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of ``x``, varying over the same mesh axes as ``u`` within `jax.shard_map`."""
    aval: Any = jax.typeof(u)
    varying = {"manual_axis_type": aval.mat} if hasattr(aval, "mat") else {"vma": aval.vma}
    return jax.ShapeDtypeStruct(x.shape, x.dtype, **varying)


def _reshaped(x: Any, shape: tuple[int, ...]) -> Any:
    return jax.ShapeDtypeStruct(shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x.reshape(shape)


# The leaf function within the kernel


def _evaluated(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], draws: _Draws) -> list[Any]:
    """Evaluate a jaxpr whose PRNG keys are pairs of uint32, with random bits from ``draws``."""
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))
    for e in jaxpr.eqns:
        values = [x.val if isinstance(x, Literal) else known[x] for x in e.invars]
        inner = next((x for x in e.params.values() if isinstance(x, ClosedJaxpr)), None)
        if inner is not None:
            outs = _evaluated(inner.jaxpr, inner.consts, values, draws)
        elif e.primitive is lax.sign_p:  # Pallas's rule asks the default backend, which may be another one
            (x,) = values
            outs = [jnp.where(x > 0, jnp.ones_like(x), jnp.where(x < 0, -jnp.ones_like(x), x))]
        elif e.primitive.name == "random_bits":
            outs = [draws.bits(values[0])]
        else:
            made = e.primitive.bind(*values, **e.params)
            outs = made if e.primitive.multiple_results else [made]
        known.update(zip(e.outvars, outs))
    return [x.val if isinstance(x, Literal) else known[x] for x in jaxpr.outvars]


class _Draws:
    """Random bits for the numbers of a tile."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    @functools.cached_property
    def place(self) -> jax.Array:
        """The index of each number in the leaf."""
        height, width = self.grid.height, self.grid.width
        row, column = (lax.broadcasted_iota(jnp.int32, (height, width), axis) for axis in (0, 1))
        row, column = row + pl.program_id(0) * height, column + pl.program_id(1) * width
        return (row * self.grid.columns + column).astype(jnp.uint32)

    def bits(self, key: tuple[jax.Array, jax.Array]) -> jax.Array:
        """The hash of each number's place in the leaf. Salmon et al. 2011, "Parallel random numbers", Threefry-2x32."""
        first, second = (jnp.full_like(self.place, x) for x in key)
        return threefry2x32_p.bind(first, second, jnp.zeros_like(self.place), self.place)[0]


# Codes in pairs. A TPU cannot move numbers between lanes at will, but a product with a matrix of zeros and ones does.


def _unpacked(pairs: jax.Array) -> jax.Array:
    """The codes of bytes, twice as many along the last axis."""
    spread = [_pairing(first) for first in (True, False)]
    parts = [
        sum(
            jnp.dot(half.astype(jnp.float32).astype(jnp.bfloat16), m.T, preferred_element_type=jnp.float32)
            for half, m in zip((part >> 4, part & 15), spread)
        )
        for part in jnp.split(pairs, pairs.shape[1] // LANES, 1)
    ]
    return jnp.concatenate(parts, 1).astype(jnp.int32)


def _packed(codes: jax.Array) -> jax.Array:
    """The bytes of codes, half as many along the last axis."""
    pair = 16 * _pairing(True) + _pairing(False)
    numbers = codes.astype(jnp.int32).astype(jnp.float32).astype(jnp.bfloat16)
    parts = [
        jnp.dot(part, pair, preferred_element_type=jnp.float32)
        for part in jnp.split(numbers, codes.shape[1] // (2 * LANES), 1)
    ]
    return jnp.concatenate(parts, 1).astype(jnp.int32).astype(jnp.uint8)


def _pairing(first: bool) -> jax.Array:
    """A matrix that selects the first, or the second, of each pair of 256 numbers."""
    shape = 2 * LANES, LANES
    row, column = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    return (row == 2 * column + (0 if first else 1)).astype(jnp.float32).astype(jnp.bfloat16)
