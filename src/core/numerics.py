"""Arithmetic that rounding and differentiation would otherwise spoil."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0.

    A second moment is exactly 0 wherever a gradient has been 0 so far (dead units, blank pixels).
    There d√v/dv is infinite and dv/dg is 0, and their product would make every hypergradient NaN.
    The truth is that √v = |g|·const has the subgradient 0 there.
    """
    return jnp.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (dx,) = primals, tangents
    root = sqrt(x)
    return root, jnp.where(root > 0, 0.5 / jnp.where(root > 0, root, jnp.ones_like(root)), jnp.zeros_like(root)) * dx


def one_minus_power(decay: Any, t: jax.Array) -> jax.Array:
    """1 − decayᵗ without the cancellation: in float32, ``1 - 0.999**1`` is off by 5e-5 of itself.

    A Python ``decay`` has its logarithm taken in double precision.
    """
    if isinstance(decay, float):
        return -jnp.expm1(t * math.log(decay)) if decay else jnp.ones_like(t)
    # The inner `where` keeps log 0 = −∞ out of the derivatives.
    safe = jnp.where(decay > 0, decay, jnp.ones_like(decay))
    return jnp.where(decay > 0, -jnp.expm1(t * jnp.log(safe)), jnp.ones_like(t * safe))
