"""How a step rounds parameters that are stored in less than float32, and what it remembers of the rest.

Each way has two halves: `precise` is the parameter in float32, from the stored one and the rest that
the last step remembered; `rounded` is its inverse.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

RESTS = {"nearest": None, "stochastic": None, "kahan": "compensation", "ecc": "correction", "master": "weights"}
"""The ways to round, and the name of the slot that each keeps."""


def first_rest(rounding: str, p: jax.Array) -> jax.Array:
    """The rest of a parameter that was not rounded yet."""
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
        moved = wide + _half_gap(p, wide) * rest.astype(dtype) / 127
        return jnp.where(rest == 0, wide, moved)  # an infinite parameter has no gap
    return jnp.where(rest.astype(p.dtype) == p, rest.astype(dtype), wide)


def rounded(rounding: str, theta: jax.Array, dtype: Any, key: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """The parameter in ``dtype``, and the rest."""
    if rounding == "stochastic" and key is not None:
        return stochastic(theta, dtype, key), None
    p = theta.astype(dtype)
    left = jnp.where(jnp.isfinite(p), theta - p.astype(theta.dtype), jnp.zeros_like(theta))
    if rounding == "kahan":
        return p, left.astype(dtype)
    if rounding == "ecc":
        share = left / _half_gap(p, p.astype(theta.dtype))
        return p, jnp.round(127 * jnp.clip(share, -1, 1)).astype(jnp.int8)
    return p, theta.astype(jnp.float32) if rounding == "master" else None


def stochastic(x: jax.Array, dtype: Any, key: jax.Array) -> jax.Array:
    """One of the two neighbours of ``x`` in ``dtype``, such that the mean is ``x``; what ``dtype`` holds stays."""
    return between(x, dtype, jax.random.uniform(key, x.shape, jnp.float32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def between(x: jax.Array, dtype: Any, draw: jax.Array) -> jax.Array:
    """One of the two neighbours of ``x`` in ``dtype``: the farther one if ``draw``, in [0, 1), is below its share."""
    near = x.astype(dtype)
    wide = near.astype(x.dtype)
    away = jnp.nextafter(near, jnp.where(x > wide, jnp.inf, -jnp.inf).astype(dtype))
    chance = (x - wide) / jnp.where(x == wide, 1, away.astype(x.dtype) - wide)
    return jnp.where((draw.astype(x.dtype) < chance) & jnp.isfinite(away), away, near)


@between.defjvp
def _between_jvp(dtype: Any, primals: tuple, tangents: tuple) -> tuple:
    return between(primals[0], dtype, primals[1]), tangents[0].astype(dtype)


def turn(step: jax.Array) -> jax.Array:
    """A number in [0, 1) for each step, evenly spread over any steps in a row: the multiples of the golden ratio."""
    return (step.astype(jnp.uint32) * jnp.uint32(0x9E3779B9) >> 8).astype(jnp.float32) * 2.0**-24


def by_turns(x: jax.Array, dtype: Any, draw: jax.Array) -> jax.Array:
    """``x``, not negative, in ``dtype``: right on average over the steps that ``draw`` comes from, and never made 0."""
    y = between(x, dtype, draw)
    least = jnp.nextafter(jnp.zeros((), dtype), jnp.ones((), dtype))
    return jnp.where((y == 0) & (x > 0), least, y)


def _half_gap(p: jax.Array, wide: jax.Array) -> jax.Array:
    """Half the distance from ``p`` to the next number of larger magnitude: what rounding may take at most."""
    info = jnp.finfo(p.dtype)
    bits = jax.lax.bitcast_convert_type(wide.astype(jnp.float32), jnp.uint32) & 0x7F800000
    power = jax.lax.bitcast_convert_type(bits, jnp.float32)  # of two, at or below |p|
    return jnp.maximum(power, float(info.smallest_normal)).astype(wide.dtype) * 0.5 ** (info.nmant + 1)
