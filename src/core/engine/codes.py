"""The numbers that 8-bit and 4-bit codes represent, and the nearest code of a number.

On CPUs the dynamic map is a table lookup. Elsewhere codes and numbers are computed: other devices gather a table entry
by entry, and a TPU's kernel cannot hold one.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# The dynamic map


@functools.cache
def dynamic_map(signed: bool, bits: int) -> np.ndarray:
    """The sorted values of the dynamic map: ``bits - 1`` decades of evenly spaced midpoints, 0, and 1.

    Computed in float32 as in the published code, so that codes represent the same numbers.
    """
    values: list[float] = [0.0, 1.0]
    for i in range(bits - 1):
        edges = _linspace(0.1, 1.0, 2 ** (i + (not signed)) + 1)
        means = (edges[:-1] + edges[1:]) / np.float32(2)
        decade = np.float32(10.0 ** (i - bits + 2)) * means
        values += [*decade, *(-decade if signed else ())]
    return np.sort(np.array(values, np.float32))


def _linspace(start: float, stop: float, count: int) -> np.ndarray:
    """Evenly spaced float32 numbers, computed from the nearer end with a fused multiply-add."""
    a, b, n = np.float32(start), np.float32(stop), count - 1
    step, i = np.float64((b - a) / np.float32(n)), np.arange(count)  # the products are exact in float64
    return np.where(i < count // 2, a + step * i, b - step * (n - i)).astype(np.float32)


# By arithmetic. The magnitudes are numbered 0, ..., 2N: 0 is the first, 1 the last, and decade i has the n = 2^i, or
# 2^(i + 1) without a sign, numbers from n to 2n - 1. Number n + k is the midpoint 10^(i + 1) / 10^decades * (0.1 + 0.9
# (k + 0.5) / n), hence linear within the decade.


def dynamic_number(codes: jax.Array, signed: bool, bits: int) -> jax.Array:
    """The number of `dynamic_map` that each code represents, up to a relative error of 1e-6."""
    sizes, tops = _decades(signed, bits)
    z = codes.astype(jnp.int32).astype(jnp.float32)
    z = z - float(2 ** (bits - 1) - 1) if signed else z + 1
    index = jnp.minimum(jnp.abs(z) if signed else z, 2 * sizes[-1] - 0.5)  # for the last, which is the end of a decade
    n = _as_float(_bits(index) & np.uint32(0x7F800000))
    slope = _by_decade(index, sizes, [0.9 * top / n for n, top in zip(sizes, tops)])
    x = slope * ((index + 0.5) - n * (8 / 9))
    x = jnp.where(index < sizes[0], 0.0, x)
    return _as_float(_bits(x) | (_bits(z) & np.uint32(0x80000000))) if signed else x


def dynamic_code(x: jax.Array, signed: bool, bits: int) -> jax.Array:
    """The code of the nearest number of `dynamic_map`, for |x| <= 1.

    Within 5e-7, relative, of the threshold between two codes it may be the other one.
    """
    sizes, tops = _decades(signed, bits)
    a = jnp.abs(x) if signed else x
    # Decades meet halfway between the last midpoint of one and the first of the next.
    borders = [0.0, *(top / 10 * (1 + 0.9 / n) for n, top in zip(sizes[:-1], tops[1:]))]
    slope = _by_decade(a, borders, [n / (0.9 * top) for n, top in zip(sizes, tops)])
    n = _by_decade(a, borders, sizes)
    # At the border to the next decade the last of the n numbers would give way to one more.
    index = n + jnp.floor(jnp.minimum(a * slope - n * (1 / 9), n - 0.5))
    least = sizes[0] - 1.0
    index = jnp.where(a < tops[0] * (0.1 + 0.45 / sizes[0]) / 2, least, index)
    last = 1 - 0.225 / sizes[-1]  # halfway between the last midpoint and 1, which has no negative
    index = jnp.where(x >= last, 2.0 * sizes[-1], index)
    index = jnp.where(x < 0, -index, index) + float(2 ** (bits - 1) - 1) if signed else index - 1
    return index.astype(jnp.int32).astype(jnp.uint8)


def _decades(signed: bool, bits: int) -> tuple[list[float], list[float]]:
    """The count of numbers and the upper end of each decade."""
    decades = range(bits - 1)
    return [2.0 ** (i + (not signed)) for i in decades], [10.0 ** (i - bits + 2) for i in decades]


def _bits(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, jnp.uint32)


def _as_float(bits: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(bits, jnp.float32)


def _by_decade(x: jax.Array, lower_ends: list[float], values: list[float]) -> jax.Array:
    """The value of the last decade whose lower end is at most ``x``; the first if there is none."""
    chosen = jnp.full_like(x, values[0])
    for end, value in zip(lower_ends[1:], values[1:]):
        chosen = jnp.where(x >= end, value, chosen)
    return chosen


# By table


def nearest(x: jax.Array, values: np.ndarray) -> jax.Array:
    """The index of the nearest of the sorted ``values``, for |x| <= 1. Ties go to the upper one.

    The sign, the exponent and 7 bits of the mantissa define a cell, which contains at most one threshold:
    one table lookup and one comparison find the exact index.
    """
    thresholds, below = _cells(values.tobytes())
    cell = (lax.bitcast_convert_type(x, jnp.uint32) >> 16).astype(jnp.int32)
    magnitude = jnp.clip((cell & 0x7FFF) - _LOWEST, 0, _CELLS - 1)
    base = jnp.asarray(below)[magnitude + (cell >> 15) * _CELLS]
    return base + (x >= jnp.asarray(thresholds)[base]).astype(jnp.uint8)


_LOWEST = (127 - 26) << 7  # the cell of 2⁻²⁶, below every threshold but those at 0
_CELLS = (127 << 7) - _LOWEST + 1  # up to the cell of 1


@functools.cache
def _cells(packed: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The smallest float32 that rounds up from each value, and for each cell, the thresholds at or below its start."""
    values = np.frombuffer(packed, np.float32)
    down, up = values[:-1], values[1:]
    thresholds = (down + (up - down) * np.float32(0.5)).astype(np.float32)

    def rises(x: np.ndarray) -> np.ndarray:  # in float32, where the difference is rounded
        return (x - down) >= (up - down) * np.float32(0.5)

    for _ in range(8):
        thresholds = np.where(rises(thresholds), thresholds, np.nextafter(thresholds, np.float32(np.inf)))
        lower = np.nextafter(thresholds, np.float32(-np.inf))
        thresholds = np.where(rises(lower), lower, thresholds)
    magnitudes = np.arange(_LOWEST, _LOWEST + _CELLS, dtype=np.uint32) << 16
    magnitudes[0] = 0
    starts = magnitudes.view(np.float32)
    ends = ((np.arange(_LOWEST, _LOWEST + _CELLS, dtype=np.uint32) << 16) | 0xFFFF).view(np.float32)
    low, high = np.concatenate([starts, -ends]), np.concatenate([ends, -starts])
    below = np.searchsorted(thresholds, low, side="right")
    if np.any(np.searchsorted(thresholds, high, side="right") - below > 1):
        raise AssertionError("two thresholds in one cell")
    return np.append(thresholds, np.float32(np.inf)), below.astype(np.uint8)


# The sixteenths


def sixteenth_code(x: jax.Array) -> jax.Array:
    """The code of the nearest of 1/16, 2/16, ..., 1, for 0 <= x <= 1. Ties go to the upper one."""
    y = 16 * x
    below = jnp.floor(y)  # y plus one half would be rounded
    index = jnp.where(y - below >= 0.5, below + 1, below)
    return (jnp.clip(index, 1, 16) - 1).astype(jnp.int32).astype(jnp.uint8)


def sixteenth_number(codes: jax.Array) -> jax.Array:
    """The number that each code represents."""
    return (codes.astype(jnp.int32).astype(jnp.float32) + 1) / 16


# The 8-bit floats with 4 bits of exponent and 3 of mantissa (e4m3), by arithmetic: not every device has them


def float8_code(x: jax.Array) -> jax.Array:
    """The bits of the nearest 8-bit float, for |x| <= 448. Ties go to the even one; NaN stays NaN."""
    bits = _bits(x)
    magnitude, sign = bits & np.uint32(0x7FFFFFFF), (bits >> 24) & np.uint32(0x80)
    odd = (magnitude >> 20) & np.uint32(1)
    normal = ((magnitude + (np.uint32(0x7FFFF) + odd)) >> 20) - np.uint32((127 - 7) << 3)
    subnormal = jnp.round(jnp.abs(x) * 512).astype(jnp.int32).astype(jnp.uint32)
    code = jnp.where(magnitude < _SMALLEST_NORMAL, subnormal, normal)
    code = jnp.where(magnitude > np.uint32(0x7F800000), np.uint32(0x7F), code)
    return (code | sign).astype(jnp.int32).astype(jnp.uint8)


def float8_number(codes: jax.Array) -> jax.Array:
    """The 8-bit floats with these bits, in float32."""
    bits = codes.astype(jnp.int32)
    magnitude = bits & 0x7F
    normal = _as_float((magnitude << 20) + ((127 - 7) << 23))
    x = jnp.where(magnitude < 8, magnitude.astype(jnp.float32) / 512, normal)
    x = jnp.where(magnitude == 0x7F, jnp.nan, x)
    return jnp.where(bits > 127, -x, x)


_SMALLEST_NORMAL = np.float32(2.0**-6).view(np.uint32)
