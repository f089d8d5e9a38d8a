"""How a step rounds parameters that are stored in less than float32, and what it remembers of the residual.

Each way has two halves: `precise` is the parameter in float32, from the stored one and the residual that the last step
remembered; `rounded` is its inverse.

Nothing here compares a number with ``x.astype(bfloat16).astype(float32)``: XLA's GPU compiler takes such a pair of
conversions for the number itself. `nearest` goes through `jax.lax.reduce_precision`, which it keeps.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

RESTS = {"nearest": None, "stochastic": None, "kahan": "compensation", "ecc": "correction", "master": "weights"}
"""The ways to round, and the name of the slot that each keeps."""


def first_rest(rounding: str, p: jax.Array) -> jax.Array:
    """The residual of a parameter that was not rounded yet."""
    if rounding == "master":
        return p.astype(jnp.float32)
    return jnp.zeros_like(p, dtype=jnp.int8 if rounding == "ecc" else p.dtype)


def precise(rounding: str, p: jax.Array, rest: jax.Array | None, dtype: Any) -> jax.Array:
    """The parameter with what rounding took from it. Master weights yield where the parameter was set from outside."""
    wide = p.astype(dtype)
    if rest is None:
        return wide
    if rounding == "kahan":
        return wide + rest.astype(dtype)
    if rounding == "ecc":
        moved = wide + _half_gap(wide, p.dtype) * rest.astype(dtype) / 127
        return jnp.where(rest == 0, wide, moved)  # an infinite parameter has no gap
    weights = rest.astype(dtype)
    return jnp.where(nearest(weights, p.dtype) == wide, weights, wide)


def rounded(
    rounding: str, theta: jax.Array, u: jax.Array, dtype: Any, key: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """The parameter θ + u in ``dtype``, and the residual."""
    moved = lax.add(theta, u)
    if rounding == "stochastic" and key is not None:
        return stochastic(moved, dtype, key), None
    if rounding == "master":
        return moved.astype(dtype), moved.astype(jnp.float32)
    if rounding not in ("kahan", "ecc"):
        return moved.astype(dtype), None
    p = nearest(moved, dtype).astype(dtype)
    wide = p.astype(theta.dtype)
    # From θ and u, and not from their sum, and from p as it is stored: else XLA's TPU compiler makes two kernels of it.
    left = jnp.where(jnp.isfinite(wide), (theta - wide) + u, 0.0)
    if rounding == "kahan":
        return p, left.astype(dtype)
    return p, jnp.round(127 * jnp.clip(left / _half_gap(wide, dtype), -1, 1)).astype(jnp.int8)


def nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """``x`` rounded to the nearest number of ``dtype``, in its own dtype."""
    info = jnp.finfo(dtype)
    y = lax.reduce_precision(x, info.nexp, info.nmant)
    if info.nexp == jnp.finfo(x.dtype).nexp:
        return y
    tiny, unit = float(info.smallest_normal), float(info.smallest_subnormal)  # which reduce_precision makes 0
    return jnp.where(jnp.abs(x) < tiny, jnp.round(x * (1 / unit)) * unit, y)


def saturated(x: jax.Array, dtype: Any) -> jax.Array:
    """``x`` with magnitudes beyond the largest of the narrower ``dtype`` cut to it, infinite ones too. NaN stays."""
    if jnp.finfo(dtype).bits >= jnp.finfo(x.dtype).bits:
        return x
    largest = np.asarray(jnp.finfo(dtype).max, x.dtype)
    return lax.clamp(-largest, x, largest)


def stochastic(x: jax.Array, dtype: Any, key: jax.Array) -> jax.Array:
    """One of the two neighbours of ``x`` in ``dtype``, such that the mean is ``x``; what ``dtype`` holds stays."""
    return dithered(x, dtype, False, jax.random.bits(key, x.shape, jnp.uint32))


def turn(step: jax.Array) -> jax.Array:
    """A fraction of 2³² for each step, evenly spread over any steps in a row: the multiples of the golden ratio."""
    return step.astype(jnp.uint32) * np.uint32(0x9E3779B9)


def by_turns(x: jax.Array, dtype: Any, bits: jax.Array) -> jax.Array:
    """``x``, not negative, in ``dtype``: right on average over the steps that ``bits`` come from, never made 0 or ∞."""
    return dithered(x, dtype, True, bits)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def dithered(x: jax.Array, dtype: Any, positive: bool, bits: jax.Array) -> jax.Array:
    """``x`` in ``dtype``: away from 0 if its share of the gap exceeds ``bits``, a fraction of 2³², else towards 0.

    What is ``positive`` stays so, and is stored as the largest number beyond it. In whole numbers up to the last
    conversion: XLA's TPU compiler makes another kernel of choices between floats.
    """
    x, info = x.astype(jnp.float32), jnp.finfo(dtype)
    dropped = jnp.finfo(jnp.float32).nmant - info.nmant  # bits of the mantissa
    mask, largest, infinity, one = (np.uint32(n) for n in ((1 << dropped) - 1, _bits(info.max), _bits(np.inf), 1))
    whole = lax.bitcast_convert_type(x, jnp.uint32)
    magnitude = whole & np.uint32(0x7FFFFFFF)
    # What is left of 1 above the threshold carries over into the bits that stay.
    carry = mask - lax.shift_right_logical(bits, np.uint32(32 - dropped))
    moved = (whole + jnp.where(magnitude < largest, carry, np.uint32(0))) & ~mask
    moved = jnp.where(magnitude > largest, largest, moved) if positive else moved
    moved = jnp.where(magnitude > infinity, whole, moved)  # NaN
    if info.nexp == jnp.finfo(jnp.float32).nexp:
        least = jnp.minimum(magnitude, one) * _bits(info.smallest_subnormal) if positive else np.uint32(0)
        return lax.bitcast_convert_type(jnp.maximum(moved, least), jnp.float32).astype(dtype)
    unit = float(info.smallest_subnormal)
    steps = jnp.abs(x) * (1 / unit)
    floor = jnp.floor(steps)
    away = jnp.where(steps - floor > bits.astype(jnp.float32) * 2.0**-32, floor + 1, floor)
    away = jnp.maximum(away, jnp.sign(x)) if positive else away
    small = jnp.abs(x) < float(info.smallest_normal)
    return jnp.where(small, jnp.sign(x) * away * unit, lax.bitcast_convert_type(moved, jnp.float32)).astype(dtype)


@dithered.defjvp
def _dithered_jvp(dtype: Any, positive: bool, primals: tuple, tangents: tuple) -> tuple:
    return dithered(primals[0], dtype, positive, primals[1]), tangents[0].astype(dtype)


def _bits(x: Any) -> np.uint32:
    """Those of a float32."""
    return np.float32(x).view(np.uint32)


def _half_gap(wide: jax.Array, dtype: Any) -> jax.Array:
    """Half the distance from a number of ``dtype`` to the next of larger magnitude: what rounding may take at most."""
    info = jnp.finfo(dtype)
    bits = lax.bitcast_convert_type(wide.astype(jnp.float32), jnp.uint32) & np.uint32(0x7F800000)
    power = lax.bitcast_convert_type(bits, jnp.float32)  # of two, at or below its magnitude
    return jnp.maximum(power, float(info.smallest_normal)).astype(wide.dtype) * 0.5 ** (info.nmant + 1)
