"""What schedules are drawn with: shares of a way, and curves between two values. Ends are met to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from ..core.values.numerics import elapsed, minus, sqrt


def share(part: Any, whole: Any) -> Any:
    """part / whole within [0, 1]. Both ends are exact: XLA may multiply by a rounded 1 / whole."""
    part = jnp.clip(part, 0, whole)
    return jnp.where(part < whole, part / whole, 1)


def done(k: Any, length: Any) -> Any:
    """The share of a transition that ``k`` steps have covered. A length below one step counts as one."""
    return share(elapsed(k), at_least_one(length))


def left(k: Any, length: Any) -> Any:
    """The share that is still to go. Steps are subtracted first, while they are whole numbers."""
    length = at_least_one(length)
    return share(-minus(k, length), length)


def line(start: Any, end: Any, k: Any, length: Any) -> Any:
    """The straight line from ``start`` to ``end``."""
    return start * left(k, length) + end * done(k, length)


def at_least_one(length: Any) -> Any:
    """The length, or one step. A Python number stays one: float32 may not hold it."""
    return max(length, 1.0) if isinstance(length, float) else jnp.maximum(length, 1)


def mix(a: Any, b: Any, weight: Any) -> Any:
    """``a`` at weight 1, ``b`` at weight 0, without the rounding of b + (a − b) where b is small."""
    return a * weight + b * (1 - weight)


def half_cosine(left: Any) -> Any:
    """½(1 + cos π(1 − left)), as a square that is accurate near 0 too."""
    return jnp.square(jnp.sin(0.5 * jnp.pi * left))


Shape = Callable[[Any, Any], tuple[Any, Any]]
"""The weights of the earlier and of the later value, from the shares of the way that are left and done.

They sum to 1, and each is accurate where it is small, as 1 less the other would not be.
"""

SHAPES: dict[str, Shape] = {
    "linear": lambda left, done: (left, done),
    "cosine": lambda left, done: (half_cosine(left), half_cosine(done)),
    "1-sqrt": lambda left, done: (left / (1 + sqrt(done)), sqrt(done)),  # (1 − √x)(1 + √x) = 1 − x
}


def through(k: Any, knots: Sequence[tuple[Any, Any]], shapes: Sequence[Shape]) -> Any:
    """The curve through ``knots`` (step, value), each piece of a shape of its own."""
    result = jnp.full_like(elapsed(k), knots[0][1])
    for ((start, a), (end, b)), shape in zip(itertools.pairwise(knots), shapes, strict=True):
        if isinstance(start, float) and isinstance(end, float):
            end = end if end > start else start + 1
        else:
            end = jnp.where(end > start, end, start + 1)
        since_start = minus(k, start)
        # Not left(k − start, end − start): where the start is no whole step, that would miss the end.
        before, after = shape(share(-minus(k, end), end - start), share(since_start, end - start))
        result = jnp.where(since_start < 0, result, a * before + b * after)
    return result
