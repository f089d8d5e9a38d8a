"""How a step rounds parameters that are stored in less than float32, and what it keeps of the error.

Nothing here compares a number with ``x.astype(bfloat16).astype(float32)``: XLA's GPU compiler takes such a pair of
conversions for the number itself. `to_nearest` goes through `jax.lax.reduce_precision`, which it keeps.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..values.tree import from_real, to_real
from ..values.types import DType, Leaf
from ..values.value import Value, value


class Rounding(Value):
    """A way to round the parameters that are stored in less than float32. Pass it to `apply_update`.

    A subclass is decorated by `value`; its fields are constants of the compiled step. The engine calls the three
    methods for one parameter at a time, never for one that is stored in float32 or wider, and never for a complex one.
    It keeps the residual as a slot of the link, like the slots of other links. All must be elementwise.

    Errors: `step` raises ``TypeError`` where the shape or the dtype of a result is not as documented here.
    """

    slot: ClassVar[str | None] = None
    """The name of the residual in the state; ``None`` if nothing is kept."""
    random: ClassVar[bool] = False
    """Whether `rounded` gets a PRNG key."""

    def init_residual(self, p: jax.Array) -> jax.Array:
        """The residual of a parameter that has not been rounded yet. Called by ``init``, if there is a `slot`.

        Args:
            p: the parameter as it is stored.

        Returns: an array of the shape of ``p``, in any dtype.
        """
        raise NotImplementedError

    def precise(self, p: jax.Array, residual: Leaf, dtype: DType) -> jax.Array:
        """The parameter with what rounding took from it. All links of the chain see this one.

        Called at every step, before the links. ``p`` may have been set from outside since the last step.

        Args:
            p: the parameter as it is stored.
            residual: what `rounded` returned at the last step, or `init_residual`; ``None`` without a `slot`.
            dtype: the dtype of the arithmetic, float32 or wider.

        Returns: an array of the shape of ``p``, in ``dtype``.
        """
        return lax.convert_element_type(p, dtype)

    def rounded(self, theta: jax.Array, u: jax.Array, dtype: DType, key: Leaf) -> tuple[jax.Array, jax.Array | None]:
        """The parameter θ + u as it is stored, and its residual. Called at every step, after the links.

        Args:
            theta: what `precise` returned.
            u: the update that the links have made, of the same shape and dtype.
            dtype: the dtype of the parameter as it is stored.
            key: a PRNG key of this step and parameter if the rounding is `random`, else ``None``.

        Returns: an array of the same shape in ``dtype``; and the residual, of the shape and dtype of
        `init_residual`'s, or ``None`` without a `slot`.
        """
        raise NotImplementedError


@value
class nearest(Rounding):
    """Round to the nearest: updates under 1/256 of a bfloat16 parameter are lost. The engine's default."""

    # The only rounding that serves wide and complex parameters too, which are pairs of reals in between.

    def precise(self, p, residual, dtype):
        return to_real(jnp.asarray(p), dtype)

    def rounded(self, theta, u, dtype, key):
        return from_real(lax.add(theta, u), dtype), None


NEAREST = nearest()


@value
class stochastic(Rounding):
    """Round up or down, with the chances that make the mean exact. Keeps no state."""

    random = True

    def rounded(self, theta, u, dtype, key):
        return to_neighbour(lax.add(theta, u), dtype, key), None


@value
class kahan(Rounding):
    """Remember what rounding takes, in the parameter's dtype. Kahan 1965; Zamirai et al. 2020, arXiv:2010.06192."""

    slot = "compensation"

    def init_residual(self, p):
        return jnp.zeros_like(p)

    def precise(self, p, residual, dtype):
        return p.astype(dtype) + residual.astype(dtype)

    def rounded(self, theta, u, dtype, key):
        p, _, left = _with_error(theta, u, dtype)
        return p, left.astype(dtype)


@value
class ecc(Rounding):
    """Remember what rounding takes in 8 bits, as a fraction of what it can take at most."""

    slot = "correction"

    def init_residual(self, p):
        return jnp.zeros_like(p, dtype=jnp.int8)

    def precise(self, p, residual, dtype):
        wide = p.astype(dtype)
        moved = wide + _half_gap(wide, p.dtype) * residual.astype(dtype) / 127
        return jnp.where(residual == 0, wide, moved)  # an infinite parameter has no gap

    def rounded(self, theta, u, dtype, key):
        p, wide, left = _with_error(theta, u, dtype)
        return p, jnp.round(127 * jnp.clip(left / _half_gap(wide, dtype), -1, 1)).astype(jnp.int8)


@value
class master(Rounding):
    """Keep the parameter in float32 beside it. Micikevicius et al. 2018, arXiv:1710.03740.

    The copy yields where the parameter was set from outside.
    """

    slot = "weights"

    def init_residual(self, p):
        return p.astype(jnp.float32)

    def precise(self, p, residual, dtype):
        wide, weights = p.astype(dtype), residual.astype(dtype)
        return jnp.where(to_nearest(weights, p.dtype) == wide, weights, wide)

    def rounded(self, theta, u, dtype, key):
        moved = lax.add(theta, u)
        return moved.astype(dtype), moved.astype(jnp.float32)


ROUNDINGS: dict[str, Rounding] = {type(x).__name__: x for x in (NEAREST, stochastic(), kahan(), ecc(), master())}
"""The roundings that `apply_update` knows by name."""


def _with_error(theta: jax.Array, u: jax.Array, dtype: DType) -> tuple[jax.Array, jax.Array, jax.Array]:
    """θ + u to the nearest, in ``dtype`` and in that of θ, and what rounding took."""
    p = to_nearest(lax.add(theta, u), dtype).astype(dtype)
    wide = p.astype(theta.dtype)
    # From θ and u, and not from their sum, and from p as it is stored: else XLA's TPU compiler makes two kernels of it.
    return p, wide, jnp.where(jnp.isfinite(wide), (theta - wide) + u, 0.0)


def to_nearest(x: jax.Array, dtype: DType) -> jax.Array:
    """``x`` rounded to the nearest number of ``dtype``, in its own dtype."""
    info = jnp.finfo(dtype)
    y = lax.reduce_precision(x, info.nexp, info.nmant)
    if info.nexp == jnp.finfo(x.dtype).nexp:
        return y
    tiny, unit = float(info.smallest_normal), float(info.smallest_subnormal)  # which reduce_precision makes 0
    return jnp.where(jnp.abs(x) < tiny, jnp.round(x * (1 / unit)) * unit, y)


def saturated(x: jax.Array, dtype: DType) -> jax.Array:
    """``x`` with magnitudes beyond the largest of the narrower ``dtype`` cut to it, infinite ones too. NaN stays."""
    if jnp.finfo(dtype).bits >= jnp.finfo(x.dtype).bits:
        return x
    largest = np.asarray(jnp.finfo(dtype).max, x.dtype)
    return lax.clamp(-largest, x, largest)


def to_neighbour(x: jax.Array, dtype: DType, key: jax.Array) -> jax.Array:
    """One of the two neighbours of ``x`` in ``dtype``, such that the mean is ``x``; what ``dtype`` holds stays."""
    return dithered(x, dtype, False, jax.random.bits(key, x.shape, jnp.uint32))


def golden_dither(step: jax.Array) -> jax.Array:
    """The multiples of the golden ratio modulo 1, as fractions of 2³²: evenly spread over any steps in a row."""
    return step.astype(jnp.uint32) * np.uint32(0x9E3779B9)


def dithered_positive(x: jax.Array, dtype: DType, dither: jax.Array) -> jax.Array:
    """``x``, not negative, in ``dtype``: right on average over the steps of `golden_dither`, never made 0 or ∞."""
    return dithered(x, dtype, True, dither)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def dithered(x: jax.Array, dtype: DType, positive: bool, bits: jax.Array) -> jax.Array:
    """``x`` in ``dtype``: away from 0 if its share of the gap exceeds ``bits``, a fraction of 2³², else towards 0.

    What is ``positive`` stays so, and is stored as the largest number beyond it. In whole numbers up to the last
    conversion: XLA's TPU compiler makes another kernel of choices between floats.
    """
    x, info = x.astype(jnp.float32), jnp.finfo(dtype)
    dropped = jnp.finfo(jnp.float32).nmant - info.nmant  # bits of the mantissa
    mask, largest, infinity, one = (np.uint32(n) for n in ((1 << dropped) - 1, _bits(info.max), _bits(np.inf), 1))
    pattern = lax.bitcast_convert_type(x, jnp.uint32)
    magnitude = pattern & np.uint32(0x7FFFFFFF)
    # What is left of 1 above the threshold carries over into the bits that stay.
    carry = mask - lax.shift_right_logical(bits, np.uint32(32 - dropped))
    moved = (pattern + jnp.where(magnitude < largest, carry, np.uint32(0))) & ~mask
    moved = jnp.where(magnitude > largest, largest, moved) if positive else moved
    moved = jnp.where(magnitude > infinity, pattern, moved)  # NaN
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
def _dithered_jvp(dtype: DType, positive: bool, primals: tuple, tangents: tuple) -> tuple:
    return dithered(primals[0], dtype, positive, primals[1]), tangents[0].astype(dtype)


def _bits(x: float | np.generic) -> np.uint32:
    """Those of a float32."""
    return np.float32(x).view(np.uint32)


def _half_gap(wide: jax.Array, dtype: DType) -> jax.Array:
    """Half the distance from a number of ``dtype`` to the next of larger magnitude: what rounding may take at most."""
    info = jnp.finfo(dtype)
    bits = lax.bitcast_convert_type(wide.astype(jnp.float32), jnp.uint32) & np.uint32(0x7F800000)
    power = lax.bitcast_convert_type(bits, jnp.float32)  # of two, at or below its magnitude
    return jnp.maximum(power, float(info.smallest_normal)).astype(wide.dtype) * 0.5 ** (info.nmant + 1)
