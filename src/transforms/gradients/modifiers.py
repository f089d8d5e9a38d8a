"""Links that change what another optimizer does: they stand behind its last link but `scale_by_lr`, or before it all.

Where one reads the gradient g, it is the gradient as it came into the chain.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from ...core.facade.link import Leafwise, slot_like, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, safe_div
from ..clipping.blocks import norm


@transform
class cautious(Leafwise):
    """Move only where update and gradient agree in sign. Liang et al. 2024, arXiv:2411.16085, Algorithm 1.

    What is left of a leaf of n coordinates is scaled up by the share of those that stay. The published
    code has ξ = 0 and c = 1e-3 for the paper's ξ = 1 and c = 0. Stands before `scale_by_lr`.
    """

    xi: Hyper = hyper("ξ", "added to the number of coordinates that stay", default=1.0)
    floor: Hyper = hyper("c", "smallest share that counts", default=0.0)

    equation = "φ = 1 where ug > 0, else 0,  u ← φu·n / max(Σφ + ξ, cn)"
    role = "align"
    reads_grads = True

    def leaf(self, u, slot, p, scalars):
        agrees = u * slot.grad > 0
        stay = jnp.sum(agrees.astype(u.dtype)) + self.xi
        return jnp.where(agrees, u * safe_div(float(u.size), jnp.maximum(stay, self.floor * u.size)), 0.0)


@transform
class grams(Leafwise):
    """Move as far as the update, in the direction of the gradient. Cao et al. 2024, arXiv:2412.17107.

    Stands before `scale_by_lr`.
    """

    equation = "u ← |u|·sign(g)"
    role = "align"
    reads_grads = True

    def leaf(self, u, slot, p, scalars):
        return jnp.abs(u) * jnp.sign(slot.grad)


@transform
class grokfast(Leafwise):
    """Amplify what is slow in the gradient. Lee et al. 2024, arXiv:2405.20233, Algorithm 2. Stands first."""

    decay: Hyper = hyper("α", "decay of the mean", default=0.98, high=1.0)
    lamb: Hyper = hyper("λ", "how much of the mean is added", default=2.0)

    slots = ("ema",)
    equation = "μ ← αμ + (1−α)u, μ₁ = u₁,  u ← u + λμ"
    role = "accumulate"

    def scalars(self, at):
        return jnp.where(at.step == 1, 0.0, self.decay)

    def leaf(self, u, slot, p, decay):
        m = averaged(slot.ema, u, decay)
        return u + self.lamb * m, {"ema": m}


@transform
class orthogonal_grad(Leafwise):
    """Take out what only makes a leaf longer or shorter. Prieto et al. 2025, arXiv:2501.04697: ⊥Grad.

    As in the published code the rest gets the length of the gradient, and each leaf is treated alone.
    A gradient parallel to its parameter, which one of a single coordinate always is, becomes 0.
    Stands first.
    """

    equation = "v = u − (uᵀθ/θᵀθ)θ,  u ← v·‖u‖/‖v‖"
    reads_params = True

    def leaf(self, u, slot, p, scalars):
        v = u - safe_div(jnp.sum(u * p), jnp.sum(jnp.square(p))) * p
        # Of a parallel gradient only rounding is left, that of the two sums included.
        rounding = (4 + math.log2(max(1, u.size))) * float(jnp.finfo(u.dtype).eps)
        length, rest = norm(u), norm(v)
        return v * jnp.where(rest > rounding * length, safe_div(length, rest), 0.0)


@transform
class add_cautious_decay(Leafwise):
    """Decay weights only where the step is about to shrink them. Chen et al. 2025, arXiv:2510.12402."""

    weight_decay: Hyper = hyper("λ", "multiple of the parameters that is added")

    equation = "u ← u + λθ where uθ ≥ 0"
    role = "decay"
    decay_field = "weight_decay"
    reads_params = True

    def leaf(self, u, slot, p, scalars):
        return jnp.where(u * p >= 0, u + self.weight_decay * p, u)


@transform
class decay_to_init(Leafwise):
    """Pull parameters back to where they began. Li et al. 2018, arXiv:1802.01483: L2-SP."""

    weight_decay: Hyper = hyper("λ", "multiple of the distance that is added")

    slots = ("init",)  # θ₀
    equation = "u ← u + λ(θ − θ₀)"
    role = "penalty"
    reads_params = True

    def init_leaf(self, p):
        zeros = slot_like(p)
        return {"init": zeros + p.astype(zeros.dtype)}

    def leaf(self, u, slot, p, scalars):
        return u + self.weight_decay * (p - slot.init), {"init": slot.init}
