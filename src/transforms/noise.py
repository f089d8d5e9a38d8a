"""Noise in the gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..core.hyper import Hyper, hyper
from ..core.link import Leafwise, transform
from ..core.numerics import sqrt
from ..core.value import static


@transform
class add_noise(Leafwise):
    """Add Gaussian noise that fades. Neelakantan et al. 2015, arXiv:1511.06807, section 2.

    The draw depends on ``seed``, the step and the parameter's path, and is the same on any sharding.
    """

    eta: Hyper = hyper("η", "variance of the noise at the first step", default=0.01)
    gamma: Hyper = hyper("γ", "how fast the variance falls", default=0.55)
    seed: int = static("seed of the noise", default=0, most=2**63 - 1)

    equation = "u ← u + N(0, η/t^γ)"
    role = "noise"
    random = True

    def check(self) -> None:
        if type(self.seed) is not int:
            raise ValueError(f"`add_noise.seed` must be a whole number, got {self.seed!r}")

    def scalars(self, at):
        return sqrt(jnp.asarray(self.eta, at.dtype)) * at.step ** (-0.5 * self.gamma)

    def leaf(self, u, slot, p, deviation):
        return u + deviation * jax.random.normal(slot.key, u.shape, u.dtype)
