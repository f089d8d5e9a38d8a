"""Scaling by the size of a block, which is a leaf, and by the global norm.

RMS is the root mean square. A complex number counts as two real ones.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

from ...core.facade.link import Leafwise, Scaling, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import safe_div, sqrt
from ...core.values.tree import leaf_size, leaf_sum

ON_CHIP = 2**23
"""The numbers in the largest array of which TPUs keep several on the chip: 32 MB in float32, of 128 MB on a v5e."""

Arrays = TypeVar("Arrays")


@transform
class clip_by_block_rms(Leafwise):
    """Scale a leaf down if its RMS exceeds a bound. Shazeer & Stern 2018, arXiv:1804.04235, section 6."""

    threshold: Hyper = hyper("d", "the largest root mean square; ∞ for no bound", closed=True)

    equation = "u ← u·min(1, d/RMS(u))"
    role = "clip"
    bounds_size = knows_shards = True

    def leaf(self, u, slot, p, scalars):
        return computed_once(u) * bounding(rms(u), self.threshold)


@transform
class scale_by_param_block_norm(Leafwise):
    """Multiply a leaf by the norm of its parameter."""

    min_scale: Hyper = hyper("ε", "the smallest factor", default=1e-3)

    equation = "u ← u·max(‖θ‖, ε)"
    role = "scale"
    reads_params = knows_shards = True

    def leaf(self, u, slot, p, scalars):
        return u * jnp.maximum(norm(p), self.min_scale)


@transform
class scale_by_param_block_rms(Leafwise):
    """Multiply a leaf by the RMS of its parameter. Shazeer & Stern 2018, arXiv:1804.04235, section 8."""

    min_scale: Hyper = hyper("ε", "the smallest factor", default=1e-3)

    equation = "u ← u·max(RMS(θ), ε)"
    role = "scale"
    reads_params = knows_shards = True

    def leaf(self, u, slot, p, scalars):
        u, p = computed_once((u, p))  # so that p is read for its norm when it is read for the step
        return u * jnp.maximum(rms(p), self.min_scale)


@transform
class normalize_by_update_norm(Scaling):
    """Scale all updates to a fixed global norm. Hazan et al. 2015, arXiv:1507.02030, Algorithm 1, has ε = 0."""

    scale_factor: Hyper = hyper("γ", "the resulting norm", default=1.0)
    eps: Hyper = hyper("ε", "added to the norm", default=1e-6)

    equation = "u ← γu / (‖u‖ + ε)"
    role = "precondition"
    bounds_size = fixes_norm = True
    needs_all_updates = True

    def factor(self, at):
        return safe_div(self.scale_factor, at.global_norm() + self.eps)


def norm(x: jax.Array) -> jax.Array:
    """The Euclidean norm of a block."""
    return sqrt(leaf_sum(jnp.square(x)))


def rms(x: jax.Array) -> jax.Array:
    """The root mean square of a block; 0 for an empty one."""
    return sqrt(leaf_sum(jnp.square(x)) / max(1, leaf_size(x)))


def computed_once(tree: Arrays) -> Arrays:
    """Arrays that are used both for a norm and after it, and that TPUs should not compute again for the second use.

    XLA's TPU compiler keeps arrays of this size in the memory on the chip. Larger ones it would write to main memory,
    which costs as much traffic as computing them again, and memory too. Other compilers decide for themselves.
    """
    if max(x.size for x in jax.tree.leaves(tree)) > ON_CHIP:
        return tree
    return jax.lax.platform_dependent(tree, tpu=jax.lax.optimization_barrier, default=lambda tree: tree)


def bounding(size: jax.Array, bound: jax.Array | float) -> jax.Array:
    """The factor that reduces ``size`` to at most ``bound``. NaN for a ``size`` of NaN, so that NaN propagates."""
    within = size <= bound
    return jnp.where(within, 1.0, bound / jnp.where(within, 1.0, size))
