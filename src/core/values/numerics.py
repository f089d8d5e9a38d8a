"""Arithmetic that rounding and differentiation would otherwise spoil, and what the links have in common.

Tracing an operator of `jax.numpy` for a new shape takes several times as long as the `jax.lax` function that it comes
to, and a model has many shapes. So the formulas that many links share stand here, in `jax.lax`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .types import Scalar


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0.

    A second moment is exactly 0 wherever a gradient has been 0 so far (dead units, blank pixels).
    There d√v/dv is infinite and dv/dg is 0, and their product would make every hypergradient NaN.
    The truth is that √v = |g|·const has the subgradient 0 there.
    """
    return lax.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    root = sqrt(x)
    return root, jnp.where(root > 0, 0.5 / jnp.where(root > 0, root, jnp.ones_like(root)), jnp.zeros_like(root)) * dx


def _fitting(direct: Callable, promoting: Callable) -> Callable[[Any, Any], jax.Array]:
    """An operation of `jax.lax` where two arguments fit as they are, and its like in `jax.numpy` elsewhere.

    >>> with jax.numpy_dtype_promotion("standard"):
    ...     mul(0.5, jnp.arange(3)).tolist(), div(jnp.arange(3), 2).tolist()
    ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])
    """

    def operation(x: Any, y: Any) -> jax.Array:
        dtype = (y if isinstance(x, (int, float)) else x).dtype
        if dtype.kind in "biu":  # which would cut fractions off
            return promoting(x, y)
        x, y = (dtype.type(z) if isinstance(z, (int, float)) else z for z in (x, y))
        fit = x.dtype == y.dtype and (x.shape == y.shape or () in (x.shape, y.shape))
        return direct(x, y) if fit else promoting(x, y)

    return operation


add = _fitting(lax.add, jnp.add)
mul = _fitting(lax.mul, jnp.multiply)
div = _fitting(lax.div, jnp.divide)


def averaged(old: jax.Array, new: jax.Array, decay: Any) -> jax.Array:
    """The exponential moving average, β·old + (1−β)·new."""
    return add(mul(decay, old), mul(1 - decay, new))


def capped(x: jax.Array) -> jax.Array:
    """``x``, but the largest finite number where it is +∞: 0·x is then 0, and ∞ − x is ∞. NaN stays."""
    return lax.min(x, np.asarray(jnp.finfo(x.dtype).max, x.dtype))


def is_zero(x: Any) -> bool:
    """Whether ``x`` is the Python number 0, for which an operation can be left out."""
    return isinstance(x, float) and x == 0


def root(square: jax.Array, eps_root: Any = 0.0) -> jax.Array:
    """√(square + ε̄)."""
    return sqrt(square if is_zero(eps_root) else add(square, eps_root))


def over_root(x: jax.Array, square: jax.Array, eps: Any, eps_root: Any = 0.0) -> jax.Array:
    """x / (√(square + ε̄) + ε)."""
    return div(x, add(root(square, eps_root), eps))


@jax.custom_jvp
def power(x: jax.Array, n: jax.Array) -> jax.Array:
    """xⁿ with 0⁰ = 1, and with its own derivatives at x = 0: n·xⁿ⁻¹ by x, and 0 by n."""
    some = x != 0
    at_zero = jnp.where(n > 0, 0.0, jnp.where(n == 0, 1.0, jnp.inf)).astype(n.dtype)
    return jnp.where(some, jnp.where(some, x, 1.0) ** n, at_zero)


@power.defjvp
def _power_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x, n), (dx, dn) = primals, tangents
    root = power(x, n)
    # At n = 0 the slope is 0, where 0·x⁻¹ may be NaN.
    slope = jnp.where(n == 0, 0.0, n * power(x, jnp.where(n == 0, 1.0, n - 1)))
    return root, slope * dx + jnp.where(x == 0, 0.0, root * jnp.log(jnp.where(x == 0, 1.0, x))) * dn


def clipped(x: jax.Array, bound: Any) -> jax.Array:
    """``x`` within ±bound. At bound 0 its derivative by the bound is the sign of x, where ``jnp.clip`` has a tie."""
    return _clipped(x, jnp.asarray(bound, x.dtype))


@jax.custom_jvp
def _clipped(x: jax.Array, bound: jax.Array) -> jax.Array:
    return jnp.clip(x, -bound, bound)


@_clipped.defjvp
def _clipped_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x, bound), (dx, d_bound) = primals, tangents
    return _clipped(x, bound), jnp.where(jnp.abs(x) <= bound, dx, jnp.sign(x) * d_bound)


def safe_div(a: Scalar, b: jax.Array) -> jax.Array:
    """a/b, and 0 where b is 0, in value and derivatives. NaN for a ``b`` of NaN."""
    zero = b == 0
    return jnp.where(zero, 0.0, a / jnp.where(zero, 1.0, b))


def one_minus_power(decay: Any, t: jax.Array) -> jax.Array:
    """1 − decayᵗ without the cancellation: in float32, ``1 - 0.999**1`` is off by 5e-5 of itself.

    A Python ``decay`` has its logarithm taken in double precision.
    """
    if isinstance(decay, float):
        return lax.neg(lax.expm1(mul(t, math.log(decay)))) if decay else jnp.ones_like(t)
    return _one_minus_power(decay, t)


@jax.custom_jvp
def _one_minus_power(decay: jax.Array, t: jax.Array) -> jax.Array:
    some = decay > 0
    return jnp.where(some, -jnp.expm1(t * jnp.log(jnp.where(some, decay, 1.0))), jnp.ones_like(t * decay))


@_one_minus_power.defjvp
def _one_minus_power_jvp(primals: tuple, tangents: tuple) -> tuple:
    return _one_minus_power(*primals), -jax.jvp(power, primals, tangents)[1]


def remainder(count: jax.Array, period: Any, dtype: Any, start: Any = 0.0) -> jax.Array:
    """(count − start) mod ``period``, in ``dtype``, of an int32 ``count`` >= start; ``period`` >= 1.

    Exact for whole numbers, where float32 holds only the even counts from 2²⁴ on.
    """
    if is_zero(start):
        return _remainder(count, period, dtype)
    whole = jnp.floor(jnp.asarray(start, dtype))
    passed = _remainder(lax.sub(count, whole.astype(np.int32)), period, dtype) - (start - whole)
    return jnp.where(passed < 0, passed + period, passed)


def _remainder(count: jax.Array, period: Any, dtype: Any) -> jax.Array:
    most = np.iinfo(np.int32).max
    if isinstance(period, (int, float)) and (math.isinf(period) or period == int(period)):
        return lax.rem(count, np.int32(min(period, most))).astype(dtype)
    period = jnp.asarray(period, dtype)
    whole = jnp.round(period)
    by_whole = lax.rem(count, jnp.clip(whole, 1, most).astype(np.int32)).astype(dtype)
    low = lax.rem(count, np.int32(1 << 12))
    high = lax.rem(lax.sub(count, low).astype(dtype), period)  # float32 holds multiples of 2¹² up to 2³¹
    return jnp.where(whole == period, by_whole, lax.rem(high + low.astype(dtype), period))


# Steps: float32 holds whole numbers up to 2²⁴ only, and a run may have more of them.


class Count(NamedTuple):
    """A number of steps as the sum of two floating-point numbers, which hold it exactly up to 2³¹."""

    high: Any
    low: Any


def as_count(steps: Any) -> Count:
    """The count of ``steps``: a number or an array of any shape and dtype, or a count already."""
    if isinstance(steps, Count):
        return steps
    steps, dtype = jnp.asarray(steps), jax.dtypes.canonicalize_dtype(np.float64)
    if dtype == jnp.float64 or not jnp.issubdtype(steps.dtype, jnp.integer):
        return Count(steps.astype(dtype), 0.0)
    low = steps.astype(jnp.int32) & 4095
    return Count((steps - low).astype(dtype), low.astype(dtype))


def elapsed(k: Any) -> jax.Array:
    """The count as one floating-point number."""
    k = as_count(k)
    return k.high + k.low


def minus(k: Any, begin: Any) -> jax.Array:
    """k − begin, rounded once."""
    k, low = as_count(k), _low(begin)
    return (k.high - (begin - low)) + (k.low - low)


def since(k: Any, begin: Any) -> Count:
    """The count of the steps after ``begin``, 0 before."""
    k, low = as_count(k), _low(begin)
    high = k.high - (begin - low)
    return Count(high, jnp.maximum(k.low - low, -high))


def _low(begin: Any) -> Any:
    return math.fmod(begin, 4096.0) if isinstance(begin, float) else jnp.fmod(begin, 4096.0)


def cycles(k: Any, period: Any) -> tuple[jax.Array, jax.Array]:
    """How many whole periods are over after ``k`` steps, and how many steps of the next one have been taken."""
    k = as_count(k)
    passed = jnp.mod(jnp.mod(k.high, period) + jnp.mod(k.low, period), period)
    lost = period - float(passed.dtype.type(period)) if isinstance(period, float) else 0.0
    if lost:  # to rounding, in every period that is over
        passed = jnp.mod(passed - lost * jnp.round((elapsed(k) - passed) / period), period)
    return jnp.round((elapsed(k) - passed) / period), passed
