"""Noise in the gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.facade.link import Leafwise, transform
from ...core.values.hyper import Hyper, hyper, prng_seed
from ...core.values.numerics import sqrt
from ...core.values.tree import drawn_like


@transform
class add_noise(Leafwise):
    """Add Gaussian noise with decreasing variance. Neelakantan et al. 2015, arXiv:1511.06807, section 2.

    The noise depends on ``seed``, the step and the parameter's path, and is the same for any sharding, but for leaves
    with slots in codes on a mesh with explicit axes. ``vmap`` over a stack of seeds or keys gives the noise of separate
    runs.
    """

    eta: Hyper = hyper("η", "variance of the noise at the first step", default=0.01)
    gamma: Hyper = hyper("γ", "how fast the variance falls", default=0.55)
    seed: jax.Array | int = prng_seed("seed of the noise")

    equation = "u ← u + N(0, η/t^γ)"
    role = "noise"
    random = True

    def scalars(self, at):
        return sqrt(jnp.asarray(self.eta, at.dtype)) * at.step ** (-0.5 * self.gamma)

    def leaf(self, u, slot, p, deviation):
        return u + deviation * drawn_like(jax.random.normal, slot.key, u, u.dtype)
