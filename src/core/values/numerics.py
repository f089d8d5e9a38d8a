"""Arithmetic that is safe under rounding and differentiation, and formulas that many links share.

Tracing a `jax.numpy` operator for a new shape takes several times as long as tracing the `jax.lax` function that it
lowers to, and a model has many shapes. The shared formulas are therefore written in `jax.lax`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .types import DType, Scalar


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0.

    A second moment is exactly 0 wherever a gradient has been 0 so far (dead units, blank pixels).
    There d√v/dv is infinite and dv/dg is 0, and their product would make every hypergradient NaN.
    In fact √v = |g|·const, which has the subgradient 0 there.
    """
    return lax.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    root = sqrt(x)
    return root, jnp.where(root > 0, 0.5 / jnp.where(root > 0, root, jnp.ones_like(root)), jnp.zeros_like(root)) * dx


Binary = Callable[[Scalar, Scalar], jax.Array]
"""An operation on two arrays, or on an array and a number."""


def _fitting(direct: Binary, promoting: Binary) -> Binary:
    """The `jax.lax` operation where shapes and dtypes match, and the `jax.numpy` one elsewhere.

    >>> with jax.numpy_dtype_promotion("standard"):
    ...     mul(0.5, jnp.arange(3)).tolist(), div(jnp.arange(3), 2).tolist()
    ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])
    """

    def operation(x: Any, y: Any) -> jax.Array:
        dtype = (y if isinstance(x, (int, float)) else x).dtype
        if dtype.kind in "biu":  # converting a Python number to it would truncate
            return promoting(x, y)
        x, y = (dtype.type(z) if isinstance(z, (int, float)) else z for z in (x, y))
        fit = x.dtype == y.dtype and (x.shape == y.shape or () in (x.shape, y.shape))
        return direct(x, y) if fit else promoting(x, y)

    return operation


add = _fitting(lax.add, jnp.add)
mul = _fitting(lax.mul, jnp.multiply)
div = _fitting(lax.div, jnp.divide)


def averaged(old: jax.Array, new: jax.Array, decay: Scalar) -> jax.Array:
    """The exponential moving average, β·old + (1−β)·new."""
    return add(mul(decay, old), mul(1 - decay, new))


def capped(x: jax.Array) -> jax.Array:
    """``x`` with +∞ replaced by the largest finite number: 0·x is then 0, and ∞ − x is ∞. NaN stays NaN."""
    return lax.min(x, np.asarray(jnp.finfo(x.dtype).max, x.dtype))


def is_zero(x: object) -> bool:
    """Whether ``x`` is the Python number 0, so that an operation can be omitted."""
    return isinstance(x, float) and x == 0


def root(square: jax.Array, eps_root: Scalar = 0.0) -> jax.Array:
    """√(square + ε̄)."""
    return sqrt(square if is_zero(eps_root) else add(square, eps_root))


def over_root(x: jax.Array, square: jax.Array, eps: Scalar, eps_root: Scalar = 0.0) -> jax.Array:
    """x / (√(square + ε̄) + ε)."""
    return div(x, add(root(square, eps_root), eps))


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The matrix product, in the precision of the operands on accelerators too."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def largest(x: jax.Array) -> jax.Array:
    """The largest magnitude, or 1 if that is 0, as a constant: squares of what is divided by it do not overflow."""
    most = lax.stop_gradient(jnp.max(jnp.abs(x), initial=0.0))
    return jnp.where(most > 0, most, jnp.ones_like(most))


def norm(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """The Euclidean norm, or those along axes, which are kept. Its derivative at 0 is 0."""
    scale = largest(x)
    squares = jnp.square(jnp.abs(x / scale.astype(x.dtype)) if jnp.iscomplexobj(x) else x / scale)
    return scale * sqrt(squares.sum(axis, keepdims=axis is not None))


@jax.custom_jvp
def power(x: jax.Array, n: jax.Array) -> jax.Array:
    """xⁿ with 0⁰ = 1. At x = 0 the derivatives are n·xⁿ⁻¹ with respect to x, and 0 with respect to n."""
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


def clipped(x: jax.Array, bound: Scalar) -> jax.Array:
    """``x`` clipped to ±bound. At bound 0 its derivative by the bound is sign(x), where ``jnp.clip`` has a tie."""
    return _clipped(x, jnp.asarray(bound, x.dtype))


@jax.custom_jvp
def _clipped(x: jax.Array, bound: jax.Array) -> jax.Array:
    return jnp.clip(x, -bound, bound)


@_clipped.defjvp
def _clipped_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x, bound), (dx, d_bound) = primals, tangents
    return _clipped(x, bound), jnp.where(jnp.abs(x) <= bound, dx, jnp.sign(x) * d_bound)


def safe_div(a: Scalar, b: jax.Array) -> jax.Array:
    """a/b, and 0 where b is 0, derivatives included. NaN where ``b`` is NaN."""
    zero = b == 0
    return jnp.where(zero, 0.0, a / jnp.where(zero, 1.0, b))


def one_minus_power(decay: Scalar, t: jax.Array) -> jax.Array:
    """1 − decayᵗ without cancellation: in float32, ``1 - 0.999**1`` has a relative error of 5e-5.

    The logarithm of a Python ``decay`` is taken in double precision.
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


def remainder(count: jax.Array, period: Scalar, dtype: DType, start: Scalar = 0.0) -> jax.Array:
    """(count − start) mod ``period`` in ``dtype``, for an int32 ``count`` >= start and ``period`` >= 1.

    Exact for integers, although float32 represents only even counts from 2²⁴ on.
    """
    if is_zero(start):
        return _remainder(count, period, dtype)
    floor = jnp.floor(jnp.asarray(start, dtype))
    passed = _remainder(lax.sub(count, floor.astype(np.int32)), period, dtype) - (start - floor)
    return jnp.where(passed < 0, passed + period, passed)


def _remainder(count: jax.Array, period: Scalar, dtype: DType) -> jax.Array:
    most = np.iinfo(np.int32).max
    if isinstance(period, (int, float)) and (math.isinf(period) or period == int(period)):
        return lax.rem(count, np.int32(min(period, most))).astype(dtype)
    period = jnp.asarray(period, dtype)
    rounded = jnp.round(period)
    exact = lax.rem(count, jnp.clip(rounded, 1, most).astype(np.int32)).astype(dtype)
    low = lax.rem(count, np.int32(1 << 12))
    high = lax.rem(lax.sub(count, low).astype(dtype), period)  # float32 represents multiples of 2¹² up to 2³¹
    return jnp.where(rounded == period, exact, lax.rem(high + low.astype(dtype), period))


# Steps. float32 represents integers only up to 2²⁴, and a run may have more steps.


class Count(NamedTuple):
    """A number of steps as the sum of two floating-point numbers, exact up to 2³¹."""

    high: jax.Array
    low: Scalar


Steps: TypeAlias = Count | jax.Array | np.ndarray | float
"""A number of steps: a number or an array of any shape and dtype, or a `Count`."""


def as_count(steps: Steps) -> Count:
    """The number of steps as a `Count`."""
    if isinstance(steps, Count):
        return steps
    steps, dtype = jnp.asarray(steps), jax.dtypes.canonicalize_dtype(np.float64)
    if dtype == jnp.float64 or not jnp.issubdtype(steps.dtype, jnp.integer):
        return Count(steps.astype(dtype), 0.0)
    low = steps.astype(jnp.int32) & 4095
    return Count((steps - low).astype(dtype), low.astype(dtype))


def elapsed(k: Steps) -> jax.Array:
    """The number of steps as one floating-point number."""
    k = as_count(k)
    return k.high + k.low


def minus(k: Steps, begin: Scalar) -> jax.Array:
    """k − begin, rounded once."""
    k, low = as_count(k), _low(begin)
    return (k.high - (begin - low)) + (k.low - low)


def since(k: Steps, begin: Scalar) -> Count:
    """The number of steps after ``begin``; 0 before it."""
    k, low = as_count(k), _low(begin)
    high = k.high - (begin - low)
    return Count(high, jnp.maximum(k.low - low, -high))


def _low(begin: Scalar) -> Scalar:
    return math.fmod(begin, 4096.0) if isinstance(begin, float) else jnp.fmod(begin, 4096.0)


def cycles(k: Steps, period: Scalar) -> tuple[jax.Array, jax.Array]:
    """The number of periods completed after ``k`` steps, and the number of steps into the next one."""
    k = as_count(k)
    passed = jnp.mod(jnp.mod(k.high, period) + jnp.mod(k.low, period), period)
    lost = period - float(passed.dtype.type(period)) if isinstance(period, float) else 0.0
    if lost:  # to rounding, in every completed period
        passed = jnp.mod(passed - lost * jnp.round((elapsed(k) - passed) / period), period)
    return jnp.round((elapsed(k) - passed) / period), passed
