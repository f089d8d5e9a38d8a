"""Dual averaging, which steps from the sum of gradients, and optimistic gradients, which derive from it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.facade.link import Leafwise, slot_like, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import safe_div
from ...core.values.value import derived, static


@transform
class scale_by_madgrad(Leafwise):
    """Step from the initial parameters by a weighted sum of gradients.

    Defazio & Jelassi 2021, arXiv:2101.11075, Algorithm 1. The learning rate is a weight in the sums, so
    no `scale_by_lr` follows. ``momentum`` is the paper's 1 − c. The published code also adds ε to the
    rate.
    """

    learning_rate: Hyper = hyper("γ", "weight of a gradient, divided by √t")
    momentum: Hyper = hyper("μ", "fraction of a step that is held back", default=0.9, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-6)

    slots = ("sum", "nu", "start")
    nonnegative = ("nu",)
    equation = "λ = γ√t,  s ← s + λu,  ν ← ν + λu²,  u ← (1−μ)(θ₀ − s / (∛ν + ε) − θ)"
    role = "descend"
    factor_field = "learning_rate"
    undoes_scale = True
    reads_params = True

    def init_leaf(self, p):
        zeros = slot_like(p)
        return {"sum": zeros, "nu": slot_like(p), "start": zeros + p.astype(zeros.dtype)}

    def scalars(self, at):
        return self.learning_rate * jnp.sqrt(at.step)

    def leaf(self, u, slot, p, weight):
        s, nu = slot.sum + weight * u, slot.nu + weight * jnp.square(u)
        z = slot.start - safe_div(s, _cbrt(nu) + self.eps)
        return (1 - self.momentum) * (z - p), {"sum": s, "nu": nu, "start": slot.start}


@transform
class scale_by_optimistic_gradient(Leafwise):
    """Extrapolate from the last two gradients. Daskalakis et al. 2018, arXiv:1711.00141, equation 7.

    Converges in games where gradient descent cycles. The update before the first is 0, as in the
    paper, or the first "itself", as in Optax.
    """

    alpha: Hyper = hyper("α", "weight of the update", default=1.0)
    beta: Hyper = hyper("β", "weight of its change", default=1.0)
    before: str = static("the update before the first", default="zero", one_of=("zero", "itself"))

    slots = ("last",)
    lagged = slots
    role = "accumulate"

    @derived
    def equation(self) -> str:
        return f"u₊ = αu + β(u − u₋),  u₋ ← u from {'0' if self.before == 'zero' else 'u₁'},  u ← u₊"

    def scalars(self, at):
        return self.beta if self.before == "zero" else jnp.where(at.step == 1, 0.0, self.beta)

    def leaf(self, u, slot, p, beta):
        return self.alpha * u + beta * (u - slot.last), {"last": u}


def _cbrt(x: jax.Array) -> jax.Array:
    """The cube root, with derivative 0 at 0: see `sqrt`."""
    some = x > 0
    return jnp.where(some, jnp.cbrt(jnp.where(some, x, 1.0)), 0.0)
