"""Formats with 8-bit or 4-bit codes and a scale for each block of consecutive numbers."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ..values.value import static, value
from .codes import (
    dynamic_code,
    dynamic_map,
    dynamic_number,
    float8_code,
    float8_number,
    nearest,
    sixteenth_code,
    sixteenth_number,
)
from .shards import Shards
from .storage import Format, Stored


class Blocks(Format):
    """Codes with a float32 scale, the largest magnitude, for each block of consecutive numbers in row-major order.

    The last block is padded with zeros if the block size does not divide the leaf. Magnitudes above 2¹²⁶ are stored as
    2¹²⁶, so that the scale and its reciprocal are normal numbers. The codes do not depend on the sharding of the leaf.
    They are stored under the format's name, since the same code means different numbers in different formats.
    """

    block: int = static("numbers that share a scale", default=256, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    per_byte: ClassVar[int] = 1
    """The codes in a byte: 2 for codes below 16, of which the first is in the upper half."""
    largest: ClassVar[float] = 1.0
    """The magnitude that the scale's code represents."""
    encode_on_cpu: Any = None
    """`encode` as a method that suits a CPU better, such as a table lookup, if there is one."""
    decode_on_cpu: Any = None
    """`decode` likewise."""

    def check(self) -> None:
        if self.block % 2:
            raise ValueError(f"`{type(self).__name__}.block` must be an even whole number, got {self.block}")

    @abstractmethod
    def encode(self, x: jax.Array, signed: bool) -> jax.Array:
        """The code of each number, of magnitude at most `largest`, in an 8-bit integer dtype.

        Must be elementwise, and should compute with numbers only: a kernel for a TPU can neither hold an array of
        constants nor look up numbers in one.
        """
        raise NotImplementedError

    @abstractmethod
    def decode(self, codes: jax.Array, signed: bool) -> jax.Array:
        """The number that each code represents, in float32. Elementwise like `encode`. A kernel passes int32."""
        raise NotImplementedError

    def scale(self, blocks: jax.Array) -> jax.Array:
        """The scales of `bounded` blocks along the last axis, which is kept with length 1."""
        scale = jnp.maximum(jnp.max(jnp.abs(blocks), -1, keepdims=True), 1e-12)
        # Not divided by a constant, since XLA would multiply by its rounded reciprocal.
        return scale if self.largest == 1 else scale / jnp.where(jnp.isnan(scale), scale, self.largest)

    def keep(self, x: jax.Array, signed: bool) -> Any:
        keep, shards = functools.partial(self._keep, signed=signed), Shards.of(x)
        if shards is None or shards.is_replicated:
            return keep(x)
        names, specs = (type(self).__name__, "scale"), shards.block_specs(x.shape, self.block, self.per_byte)
        if specs is None:  # XLA gathers the blocks that are cut
            whole_bytes = x.ndim > 0 and x.shape[-1] % (shards.counts[-1] * self.per_byte) == 0
            specs = shards.spec if whole_bytes else P(), P()
            return shards.automatically(keep, dict(zip(names, specs)))(x)
        return shards.map(keep, (shards.spec,), dict(zip(names, specs)))(x)

    def widen(self, kept: Any, shape: tuple[int, ...], signed: bool) -> Any:
        codes = kept[type(self).__name__]
        shards = Shards.of(codes)
        if shards is None or shards.is_replicated:
            return self._widen(kept, shape, signed)
        if codes.ndim != len(shape):
            shards = shards._replace(spec=P(shards.spec[0], *(None for _ in shape[1:])))
        specs = shards.block_specs(shape, self.block, self.per_byte)
        if specs is None:
            widen = functools.partial(self._widen, shape=shape, signed=signed)
            return shards.automatically(widen, shards.spec)(kept)
        widen = functools.partial(self._widen, shape=shards.local(shape), signed=signed)
        return shards.map(widen, (dict(zip((type(self).__name__, "scale"), specs)),), shards.spec)(kept)

    def scale_of(self, x: jax.Array) -> jax.Array:
        """The `scale` of an array."""
        return self.scale(self._rows(bounded(x)))

    def keep_scaled(self, x: jax.Array, scale: jax.Array, signed: bool) -> Stored:
        """What `keep` returns, given the scale."""
        return self._stored(self._rows(bounded(x)), scale, x.shape, signed)

    def _keep(self, x: jax.Array, signed: bool) -> Stored:
        rows = self._rows(bounded(x))
        return self._stored(rows, self.scale(rows), x.shape, signed)

    def _stored(self, rows: jax.Array, scale: jax.Array, shape: tuple[int, ...], signed: bool) -> Stored:
        codes = _by_device(self.encode, self.encode_on_cpu, rows / scale, signed)
        if self.per_byte == 2:
            codes = jax.lax.platform_dependent(codes, cuda=_in_pairs_on_gpu, default=_in_pairs)
        return {type(self).__name__: self._flat(codes, shape), "scale": scale[..., 0]}

    def _widen(self, kept: Any, shape: tuple[int, ...], signed: bool) -> jax.Array:
        rows = jax.eval_shape(self._rows, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
        codes = kept[type(self).__name__]
        short = math.prod(rows) // self.per_byte - codes.size
        if short:
            codes = jnp.pad(codes.reshape(-1), (0, short))
        codes = codes.reshape(*rows[:-1], rows[-1] // self.per_byte)
        if self.per_byte == 2:
            codes = jax.lax.platform_dependent(codes, cpu=_apart_on_cpu, default=_apart).reshape(rows)
        x = _by_device(self.decode, self.decode_on_cpu, codes, signed) * kept["scale"][..., None]
        return x.reshape(-1)[: math.prod(shape)].reshape(shape) if x.size != math.prod(shape) else x.reshape(shape)

    def _rows(self, x: jax.Array) -> jax.Array:
        """``x`` in blocks along a new last axis. If they divide its rows, other axes and their sharding stay."""
        if x.ndim and x.shape[-1] % self.block == 0:
            return x.reshape(*x.shape[:-1], x.shape[-1] // self.block, self.block)
        flat = x.reshape(-1)
        return jnp.pad(flat, (0, -x.size % self.block)).reshape(-1, self.block)

    def _flat(self, codes: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The codes without padding, in the shape of the leaf, or flat if `per_byte` does not divide its last axis."""
        if shape and shape[-1] % self.per_byte == 0:
            shape = (*shape[:-1], shape[-1] // self.per_byte)
        else:
            shape = (-(-math.prod(shape) // self.per_byte),)
        flat = codes.reshape(-1)
        return (flat[: math.prod(shape)] if flat.size != math.prod(shape) else codes).reshape(shape)


def _by_device(form: Callable, on_cpu: Callable | None, x: jax.Array, signed: bool) -> jax.Array:
    """``form(x, signed)``, or ``on_cpu(x, signed)`` on a CPU if that is another function."""
    if on_cpu is None:
        return form(x, signed)
    cpu, default = (functools.partial(f, signed=signed) for f in (on_cpu, form))
    return jax.lax.platform_dependent(x, cpu=cpu, default=default)


def _in_pairs(codes: jax.Array) -> jax.Array:
    """Codes below 16, two to a byte."""
    return codes[..., 0::2] << 4 | codes[..., 1::2]


def _in_pairs_on_gpu(codes: jax.Array) -> jax.Array:
    """The same without strides, which XLA would not fuse with what else the kernel computes."""
    pairs = codes.reshape(*codes.shape[:-1], codes.shape[-1] // 2, 2)
    low_first = pairs[..., ::-1].astype(jnp.uint4)  # as the conversion to bytes puts them
    return jax.lax.bitcast_convert_type(low_first, jnp.uint8)


def _apart(pairs: jax.Array) -> jax.Array:
    """The two codes of each byte, along a new last axis."""
    halves = jax.lax.broadcasted_iota(jnp.uint8, (*pairs.shape, 2), pairs.ndim)
    return pairs[..., None] >> (4 - 4 * halves) & 15


def _apart_on_cpu(pairs: jax.Array) -> jax.Array:
    """The same, which XLA's other compilers would not fuse."""
    return jnp.stack([pairs >> 4, pairs & 15], -1)


def bounded(x: jax.Array) -> jax.Array:
    """``x`` clipped such that scales and their reciprocals are normal numbers."""
    return jnp.clip(x, -(2.0**126), 2.0**126)


@value
class int8(Blocks):
    """8-bit codes of the dynamic map. Dettmers et al. 2022, arXiv:2110.02861, section 2.1.

    Seven decades, each with twice as many values as the one below. Slots without negative
    numbers use an unsigned map.
    """

    block: int = static("numbers that share a scale", default=256, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    def encode(self, x, signed):
        return dynamic_code(x, signed, bits=8)

    def decode(self, codes, signed):
        return dynamic_number(codes, signed, bits=8)

    def encode_on_cpu(self, x, signed):
        """`encode` by a table lookup."""
        return nearest(x, dynamic_map(signed, bits=8))

    def decode_on_cpu(self, codes, signed):
        """`decode` by a table lookup."""
        return jnp.asarray(dynamic_map(signed, bits=8))[codes]


@value
class int4(Blocks):
    """4-bit codes, two to a byte. Li et al. 2023, arXiv:2309.01507.

    Signed slots use the dynamic map. Slots without negative numbers use 1/16, 2/16, ..., 1. This map
    has no zero, since a second moment rounded to 0 would make the step infinite.
    """

    block: int = static("numbers that share a scale", default=128, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    per_byte = 2

    def encode(self, x, signed):
        return dynamic_code(x, True, bits=4) if signed else sixteenth_code(x)

    def decode(self, codes, signed):
        return dynamic_number(codes, True, bits=4) if signed else sixteenth_number(codes)

    def encode_on_cpu(self, x, signed):
        """`encode` by a table lookup."""
        return nearest(x, dynamic_map(True, bits=4)) if signed else sixteenth_code(x)

    def decode_on_cpu(self, codes, signed):
        """`decode` by a table lookup."""
        return jnp.asarray(dynamic_map(True, bits=4))[codes] if signed else sixteenth_number(codes)


@value
class float8(Blocks):
    """8-bit floats with 3 bits of mantissa, 2⁻⁹ to 448 (e4m3). Micikevicius et al. 2022, arXiv:2209.05433."""

    block: int = static("numbers that share a scale", default=256, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    largest = float(jnp.finfo(jnp.float8_e4m3fn).max)

    def encode(self, x, signed):
        return float8_code(x)

    def decode(self, codes, signed):
        return float8_number(codes)


@value
class companded8(Blocks):
    """Evenly spaced 8-bit codes of a companded number: no table, hence fast.

    Signed numbers are companded by y = 2x/(1 + |x|), which gives small numbers more codes; numbers without a sign by
    the square root, which is what a second moment is used for, in 256 levels without a zero.
    """

    block: int = static("numbers that share a scale", default=256, least=2, most=2**20)
    min_size: int = static("leaves of fewer numbers stay in float32", default=4096, least=0)

    def encode(self, x, signed):
        if not signed:
            return (jnp.clip(jnp.round(256 * jnp.sqrt(x)), 1, 256) - 1).astype(jnp.uint8)
        return jnp.round(127 * (2 * x / (1 + jnp.abs(x)))).astype(jnp.int8)

    def decode(self, codes, signed):
        y = codes.astype(jnp.float32)
        if not signed:
            return jnp.square((y + 1) / 256)
        return y / 127 / (2 - jnp.abs(y / 127))
