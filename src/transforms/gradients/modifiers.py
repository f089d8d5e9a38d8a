"""Links that modify other optimizers: they come right before `scale_by_lr`, or first.

The gradient g that some of them read is the gradient that entered the chain.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from ...core.facade.link import Leafwise, slot_like, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, safe_div
from ...core.values.tree import leaf_size, leaf_sum
from ..clipping.blocks import norm


@transform
class cautious(Leafwise):
    """Move only where update and gradient agree in sign. Liang et al. 2024, arXiv:2411.16085, Algorithm 1.

    The remaining coordinates of a leaf, out of n, are scaled up by the inverse of their fraction. The published
    code has ξ = 0 and c = 1e-3 instead of the paper's ξ = 1 and c = 0. Place it before `scale_by_lr`.
    """

    xi: Hyper = hyper("ξ", "added to the number of remaining coordinates", default=1.0)
    floor: Hyper = hyper("c", "lower bound on the fraction", default=0.0)

    equation = "φ = 1 where ug > 0, else 0,  u ← φu·n / max(Σφ + ξ, cn)"
    role = "align"
    reads_grads = knows_shards = True

    def leaf(self, u, slot, p, scalars):
        agrees, size = u * slot.grad > 0, float(leaf_size(u))
        stay = leaf_sum(agrees.astype(u.dtype)) + self.xi
        return jnp.where(agrees, u * safe_div(size, jnp.maximum(stay, self.floor * size)), 0.0)


@transform
class grams(Leafwise):
    """Take the magnitude from the update and the sign from the gradient. Cao et al. 2024, arXiv:2412.17107.

    Place it before `scale_by_lr`.
    """

    equation = "u ← |u|·sign(g)"
    role = "align"
    reads_grads = True

    def leaf(self, u, slot, p, scalars):
        return jnp.abs(u) * jnp.sign(slot.grad)


@transform
class grokfast(Leafwise):
    """Amplify the slow part of the gradient. Lee et al. 2024, arXiv:2405.20233, Algorithm 2. Place it first."""

    decay: Hyper = hyper("α", "decay of the mean", default=0.98, high=1.0)
    lamb: Hyper = hyper("λ", "multiple of the mean that is added", default=2.0)

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
    """Remove the component parallel to the parameter. Prieto et al. 2025, arXiv:2501.04697: ⊥Grad.

    As in the published code, the remainder is rescaled to the norm of the gradient, leaf by leaf.
    A gradient parallel to its parameter, such as any gradient with a single coordinate, becomes 0.
    Place it first.
    """

    equation = "v = u − (uᵀθ/θᵀθ)θ,  u ← v·‖u‖/‖v‖"
    reads_params = knows_shards = True

    def leaf(self, u, slot, p, scalars):
        v = u - safe_div(leaf_sum(u * p), leaf_sum(jnp.square(p))) * p
        # The remainder of a parallel gradient is only rounding error, including that of the two sums.
        rounding = (4 + math.log2(max(1, leaf_size(u)))) * float(jnp.finfo(u.dtype).eps)
        length, remainder = norm(u), norm(v)
        return v * jnp.where(remainder > rounding * length, safe_div(length, remainder), 0.0)


@transform
class add_cautious_decay(Leafwise):
    """Decay parameters only where the step shrinks them. Chen et al. 2025, arXiv:2510.12402."""

    weight_decay: Hyper = hyper("λ", "multiple of the parameters that is added")

    equation = "u ← u + λθ where uθ ≥ 0"
    role = "decay"
    decay_field = "weight_decay"
    reads_params = True

    def leaf(self, u, slot, p, scalars):
        return jnp.where(u * p >= 0, u + self.weight_decay * p, u)


@transform
class decay_to_init(Leafwise):
    """Pull parameters towards their initial values. Li et al. 2018, arXiv:1802.01483: L2-SP."""

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
