"""Rounding of parameters that are stored in less than float32, and the residuals that it keeps.

Nothing here compares a number with ``x.astype(bfloat16).astype(float32)``: XLA's GPU compiler removes such a pair of
conversions. `to_nearest` uses `jax.lax.reduce_precision`, which XLA does not remove.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..values.declared import contract
from ..values.tree import drawn_like, from_real, to_real
from ..values.types import DType, Leaf
from ..values.value import Value, value


@contract(slot="init_residual")
class Rounding(Value):
    """A way to round the parameters that are stored in less than float32. Pass it to `apply_update`.

    Decorate subclasses with `value`; their fields are constants of the compiled step. The engine calls the three
    methods for one parameter at a time, and only for real parameters that are stored in less than float32. It keeps
    the residual as a slot of the link. All three methods must be elementwise.

    Errors: `step` raises ``TypeError`` if a result has another shape or dtype than documented here.
    """

    slot: ClassVar[str | None] = None
    """The name of the residual in the state; ``None`` if nothing is kept."""
    random: ClassVar[bool] = False
    """Whether `rounded` gets a PRNG key."""

    def init_residual(self, p: jax.Array) -> jax.Array:
        """The residual of a parameter that has not been rounded yet. Called by ``init`` if there is a `slot`.

        Args:
            p: the parameter as stored.

        Returns: an array of the shape of ``p``, in any dtype.
        """
        raise NotImplementedError

    def precise(self, p: jax.Array, residual: Leaf, dtype: DType) -> jax.Array:
        """The parameter plus the residual, as all links of the chain see it.

        Called at every step, before the links. The user may have changed ``p`` since the last step.

        Args:
            p: the parameter as stored.
            residual: what `rounded` at the last step, or `init_residual`, returned; ``None`` without a `slot`.
            dtype: the dtype of the arithmetic, float32 or wider.

        Returns: an array of the shape of ``p``, in ``dtype``.
        """
        return lax.convert_element_type(p, dtype)

    @abstractmethod
    def rounded(self, theta: jax.Array, u: jax.Array, dtype: DType, key: Leaf) -> tuple[jax.Array, jax.Array | None]:
        """θ + u rounded to the stored dtype, and the residual. Called at every step, after the links.

        Args:
            theta: what `precise` returned.
            u: the chain's update, of the same shape and dtype.
            dtype: the dtype in which the parameter is stored.
            key: a PRNG key for this step and parameter if the rounding is `random`, else ``None``.

        Returns: an array of the same shape in ``dtype``; and the residual, with the shape and dtype that
        `init_residual` returned, or ``None`` without a `slot`.
        """
        raise NotImplementedError


@value
class nearest(Rounding):
    """Round to nearest: updates below 1/256 of a bfloat16 parameter are lost. The engine's default."""

    # The only rounding that also handles wide and complex parameters. The links see complex numbers as pairs of reals.

    def precise(self, p, residual, dtype):
        return to_real(jnp.asarray(p), dtype)

    def rounded(self, theta, u, dtype, key):
        return from_real(lax.add(theta, u), dtype), None


NEAREST = nearest()


@value
class stochastic(Rounding):
    """Round up or down, with probabilities that make the mean exact. Keeps no state."""

    random = True

    def rounded(self, theta, u, dtype, key):
        return to_neighbour(lax.add(theta, u), dtype, key), None


@value
class kahan(Rounding):
    """Keep the rounding error in the parameter's dtype. Kahan 1965; Zamirai et al. 2020, arXiv:2010.06192."""

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
    """Keep the rounding error in 8 bits, as a fraction of the largest possible error."""

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
    """Keep a float32 copy of the parameter. Micikevicius et al. 2018, arXiv:1710.03740.

    Where the user has changed the parameter, the copy is replaced by the new value.
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
"""The roundings that `apply_update` accepts by name."""


def _with_error(theta: jax.Array, u: jax.Array, dtype: DType) -> tuple[jax.Array, jax.Array, jax.Array]:
    """θ + u rounded to nearest, in ``dtype`` and in the dtype of θ, and the rounding error."""
    p = to_nearest(lax.add(theta, u), dtype).astype(dtype)
    wide = p.astype(theta.dtype)
    # The error is computed from θ, u and the stored p, not from θ + u: otherwise XLA's TPU compiler emits two kernels.
    return p, wide, jnp.where(jnp.isfinite(wide), (theta - wide) + u, 0.0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def to_nearest(x: jax.Array, dtype: DType) -> jax.Array:
    """``x`` rounded to the nearest number of ``dtype``, in its own dtype."""
    info = jnp.finfo(dtype)
    if x.dtype == jnp.float32 and info.nexp == jnp.finfo(jnp.float32).nexp:  # by integers, as in a kernel for a TPU
        bits, dropped = lax.bitcast_convert_type(x, jnp.uint32), jnp.finfo(jnp.float32).nmant - info.nmant
        odd = lax.shift_right_logical(bits, np.uint32(dropped)) & np.uint32(1)
        moved = (bits + (odd + np.uint32((1 << (dropped - 1)) - 1))) & ~np.uint32((1 << dropped) - 1)
        is_nan = (bits & np.uint32(0x7FFFFFFF)) > _bits(np.inf)
        return lax.bitcast_convert_type(jnp.where(is_nan, bits, moved), jnp.float32)
    y = lax.reduce_precision(x, info.nexp, info.nmant)
    if info.nexp == jnp.finfo(x.dtype).nexp:
        return y
    tiny, unit = float(info.smallest_normal), float(info.smallest_subnormal)  # reduce_precision flushes subnormals to 0
    return jnp.where(jnp.abs(x) < tiny, jnp.round(x * (1 / unit)) * unit, y)


@to_nearest.defjvp
def _to_nearest_jvp(dtype: DType, primals: tuple, tangents: tuple) -> tuple:
    return to_nearest(primals[0], dtype), tangents[0]


def saturated(x: jax.Array, dtype: DType) -> jax.Array:
    """``x`` clamped to the finite range of the narrower ``dtype``. NaN stays NaN."""
    if jnp.finfo(dtype).bits >= jnp.finfo(x.dtype).bits:
        return x
    largest = np.asarray(jnp.finfo(dtype).max, x.dtype)
    return lax.clamp(-largest, x, largest)


def to_neighbour(x: jax.Array, dtype: DType, key: jax.Array) -> jax.Array:
    """One of the two neighbours of ``x`` in ``dtype``, with mean ``x``; ``x`` itself if ``dtype`` can represent it."""
    return dithered(x, dtype, False, drawn_like(jax.random.bits, key, x, jnp.dtype(jnp.uint32)))


def golden_dither(step: jax.Array) -> jax.Array:
    """The multiples of the golden ratio modulo 1, in units of 2⁻³²: evenly spread over any consecutive steps."""
    return step.astype(jnp.uint32) * np.uint32(0x9E3779B9)


def dithered_positive(x: jax.Array, dtype: DType, dither: jax.Array) -> jax.Array:
    """Nonnegative ``x`` in ``dtype``: exact on average over the steps of `golden_dither`, never rounded to 0 or ∞."""
    return dithered(x, dtype, True, dither)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def dithered(x: jax.Array, dtype: DType, positive: bool, bits: jax.Array) -> jax.Array:
    """``x`` in ``dtype``: rounded away from 0 if its fraction of the gap exceeds ``bits`` · 2⁻³², else towards 0.

    With ``positive``, positive numbers stay positive, and those beyond the largest number become it. The arithmetic is
    on integers up to the last conversion, since XLA's TPU compiler emits another kernel for selects between floats.
    """
    x, info = x.astype(jnp.float32), jnp.finfo(dtype)
    dropped = jnp.finfo(jnp.float32).nmant - info.nmant  # bits of the mantissa
    mask, largest, infinity, one = (np.uint32(n) for n in ((1 << dropped) - 1, _bits(info.max), _bits(np.inf), 1))
    pattern = lax.bitcast_convert_type(x, jnp.uint32)
    magnitude = pattern & np.uint32(0x7FFFFFFF)
    # 1 minus the threshold: the sum carries into the kept bits if the dropped ones exceed the threshold.
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
    """The bits of ``x`` as a float32."""
    return np.float32(x).view(np.uint32)


def _half_gap(wide: jax.Array, dtype: DType) -> jax.Array:
    """Half the gap between a number of ``dtype`` and the next of larger magnitude: the largest rounding error."""
    info = jnp.finfo(dtype)
    bits = lax.bitcast_convert_type(wide.astype(jnp.float32), jnp.uint32) & np.uint32(0x7F800000)
    power = lax.bitcast_convert_type(bits, jnp.float32)  # the largest power of two not above the magnitude
    return jnp.maximum(power, float(info.smallest_normal)).astype(wide.dtype) * 0.5 ** (info.nmant + 1)
