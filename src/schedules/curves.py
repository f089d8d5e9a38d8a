"""Building blocks of schedules: fractions of a transition, and curves between two values. Both ends are exact."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ..core.values.numerics import Steps, elapsed, minus, sqrt
from ..core.values.types import Scalar


def fraction(part: Scalar, total: Scalar) -> jax.Array:
    """part / total, clipped to [0, 1]. Exact at both ends, where XLA might multiply by a rounded 1 / total."""
    part = jnp.clip(part, 0, total)
    return jnp.where(part < total, part / total, 1)


def done(k: Steps, length: Scalar) -> jax.Array:
    """The fraction of a transition completed after ``k`` steps. A length below one step counts as one."""
    return fraction(elapsed(k), at_least_one(length))


def left(k: Steps, length: Scalar) -> jax.Array:
    """The remaining fraction. Steps are subtracted before the division, while they are integers."""
    length = at_least_one(length)
    return fraction(-minus(k, length), length)


def line(start: Scalar, end: Scalar, k: Steps, length: Scalar) -> jax.Array:
    """Linear interpolation from ``start`` to ``end`` over ``length`` steps."""
    return start * left(k, length) + end * done(k, length)


def at_least_one(length: Scalar) -> Scalar:
    """The length, at least 1. Python numbers are not converted, since float32 may not represent them."""
    return max(length, 1.0) if isinstance(length, float) else jnp.maximum(length, 1)


def mix(a: Scalar, b: Scalar, weight: jax.Array) -> jax.Array:
    """``a`` at weight 1 and ``b`` at weight 0, without the rounding error of b + (a − b) for small b."""
    return a * weight + b * (1 - weight)


def half_cosine(left: jax.Array) -> jax.Array:
    """½(1 + cos π(1 − left)), as a square, which is accurate near 0."""
    return jnp.square(jnp.sin(0.5 * jnp.pi * left))


Shape = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""The weights of the earlier and the later value, from the fractions left and done.

They sum to 1, and each is accurate where it is small, unlike 1 minus the other.
"""

SHAPES: dict[str, Shape] = {
    "linear": lambda left, done: (left, done),
    "cosine": lambda left, done: (half_cosine(left), half_cosine(done)),
    "1-sqrt": lambda left, done: (left / (1 + sqrt(done)), sqrt(done)),  # (1 − √x)(1 + √x) = 1 − x
}


def through(k: Steps, knots: Sequence[tuple[Scalar, Scalar]], shapes: Sequence[Shape]) -> jax.Array:
    """The curve through ``knots`` (step, value), with a shape for each piece."""
    result = jnp.full_like(elapsed(k), knots[0][1])
    for ((start, a), (end, b)), shape in zip(itertools.pairwise(knots), shapes, strict=True):
        if isinstance(start, float) and isinstance(end, float):
            end = end if end > start else start + 1
        else:
            end = jnp.where(end > start, end, start + 1)
        since_start = minus(k, start)
        # Not left(k − start, end − start), which would miss the end if the start is fractional.
        before, after = shape(fraction(-minus(k, end), end - start), fraction(since_start, end - start))
        result = jnp.where(since_start < 0, result, a * before + b * after)
    return result
