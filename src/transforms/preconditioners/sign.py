"""Links that use the sign of each coordinate. A complex number has two coordinates."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from ...core.facade.link import Leafwise, slot_like, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged


@transform
class scale_by_sign(Leafwise):
    """Keep only the sign of each coordinate. Bernstein et al. 2018, arXiv:1802.04434, Algorithm 1."""

    equation = "u ← sign(u)"
    role = "precondition"
    fixes_norm = hides_infinite = True

    def leaf(self, u, slot, p, scalars):
        return lax.sign(u)


@transform
class scale_by_lion(Leafwise):
    """The sign of a mean in which the newest update weighs more than in the stored mean.

    Chen et al. 2023, arXiv:2302.06675, Algorithm 2.
    """

    b1: Hyper = hyper("β₁", "weight of the mean in the sign", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean", default=0.99, high=1.0)

    slots = ("mu",)
    holds = {"mu": "E[u]"}
    lagged = slots
    equation = "c = β₁m + (1−β₁)u,  m ← β₂m + (1−β₂)u,  u ← sign(c)"
    role = "precondition"
    fixes_norm = hides_infinite = True

    def leaf(self, u, slot, p, scalars):
        c = averaged(slot.mu, u, self.b1)
        m = averaged(slot.mu, u, self.b2)
        return self.direction(c), {"mu": m}

    def direction(self, c):
        """The update for a mean ``c``."""
        return lax.sign(c)


@transform
class scale_by_smooth_lion(scale_by_lion):
    """Lion with tanh for the sign: Optax's ``mode="smooth"``."""

    smooth_beta: Hyper = hyper("β", "slope at 0", default=1.0)

    holds = {"mu": "E[u]"}
    equation = "c = β₁m + (1−β₁)u,  m ← β₂m + (1−β₂)u,  u ← tanh(βc)"
    fixes_norm = False

    def direction(self, c):
        return jnp.tanh(self.smooth_beta * c)


@transform
class scale_by_refined_lion(scale_by_lion):
    """Lion with the mean clipped to ±1 for the sign: Optax's ``mode="refined"``."""

    holds = {"mu": "E[u]"}
    equation = "c = β₁m + (1−β₁)u,  m ← β₂m + (1−β₂)u,  u ← min(max(c, −1), 1)"
    fixes_norm = False

    def direction(self, c):
        return jnp.clip(c, -1.0, 1.0)


@transform
class scale_by_rprop(Leafwise):
    """A step size for each coordinate, which grows while the sign stays the same and shrinks when it changes.

    Riedmiller & Braun 1993, in the form that takes no step when the sign changes, and then forgets the sign:
    iRprop⁻ of Igel & Hüsken 2000, as in PyTorch.
    """

    step_size: Hyper = hyper("Δ₀", "the first step size", default=1e-2)
    eta_minus: Hyper = hyper("η₋", "factor when the sign changes", default=0.5, high=1.0, closed=True)
    eta_plus: Hyper = hyper("η₊", "factor while the sign stays the same", default=1.2, low=1.0)
    min_step_size: Hyper = hyper("Δ_min", "the smallest step size", default=1e-6)
    max_step_size: Hyper = hyper("Δ_max", "the largest step size", default=50.0)

    slots = ("step_size", "sign")
    nonnegative = ("step_size",)
    equation = (
        "s = sign(u),  Δ ← min(max(Δ·(η₊ if ss₋ > 0 else η₋ if ss₋ < 0 else 1), Δ_min), Δ_max) from Δ₀,  "
        "s₋ ← 0 if ss₋ < 0 else s,  u ← Δs₋"
    )
    role = "precondition"
    hides_infinite = True

    def init_leaf(self, p):
        return {"step_size": slot_like(p, self.step_size), "sign": slot_like(p)}

    def leaf(self, u, slot, p, scalars):
        s = lax.sign(u)
        lasts, turns = s * slot.sign > 0, s * slot.sign < 0
        delta = slot.step_size * jnp.where(lasts, self.eta_plus, jnp.where(turns, self.eta_minus, 1.0))
        delta = jnp.clip(delta, self.min_step_size, self.max_step_size)
        s = jnp.where(turns, 0.0, s)
        return delta * s, {"step_size": delta, "sign": s}
