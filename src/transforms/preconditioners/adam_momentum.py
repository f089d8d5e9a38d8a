"""Variants of Adam's numerator: what is averaged, for how long, and before or after scaling."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ...core.facade.link import Leafwise, transform
from ...core.values.hyper import Hyper, OptionalHyper, hyper
from ...core.values.numerics import averaged, clipped, one_minus_power, over_root, sqrt
from ...core.values.types import Scalar
from ...core.values.value import derived
from .adam import MOMENTS, scale_by_adam


@transform
class scale_by_nesterov_adam(scale_by_adam):
    """Adam with its mean taken one step ahead. Dozat 2016, "Incorporating Nesterov momentum into Adam".

    Departs from the paper as Optax does: the momentum has no schedule. `scale_by_nadam` has one.
    """

    holds = MOMENTS
    equation = "m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← (β₁m/(1−β₁ᵗ⁺¹) + (1−β₁)u/(1−β₁ᵗ)) / (√(v̂+ε̄) + ε)"

    def scalars(self, at):
        ahead = self.b1 / one_minus_power(self.b1, at.step + 1)
        return ahead, (1 - self.b1) * at.debias(self.b1), at.debias(self.b2)

    def leaf(self, u, slot, p, scalars):
        ahead, fresh, debias = scalars
        m, v = self.moments(u, slot)
        return over_root(ahead * m + fresh * u, v * debias, self.eps, self.eps_root), {"mu": m, "nu": v}


@transform
class scale_by_adan(Leafwise):
    """Nesterov momentum from an average of gradient changes. Xie et al. 2022, arXiv:2208.06677, Algorithm 1.

    The paper writes 1 − β for β. The bias is corrected as in the published code. Optax 0.2 weighs the change
    with 1−β₂, where the paper and the code have β₂.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.98, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean change, and its weight", default=0.92, high=1.0)
    b3: Hyper = hyper("β₃", "decay of the mean square", default=0.99, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    eps_root: Hyper = hyper("ε̄", "added to the mean square, inside the root", default=0.0)

    slots = ("mu", "change", "nu", "last")
    nonnegative = ("nu",)
    lagged = ("last",)
    equation = (
        "Δ = u − u₋, Δ₁ = 0,  m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)Δ,  n ← β₃n + (1−β₃)(u + β₂Δ)²,  u₋ ← u,  "
        "u ← (m̂ + β₂v̂) / (√(n̂+ε̄) + ε)"
    )
    role = "precondition"

    def scalars(self, at):
        return at.step == 1, at.debias(self.b1), self.b2 * at.debias(self.b2), at.debias(self.b3)

    def leaf(self, u, slot, p, scalars):
        first, of_mean, of_change, debias = scalars
        delta = jnp.where(first, 0.0, u - slot.last)
        m = averaged(slot.mu, u, self.b1)
        v = averaged(slot.change, delta, self.b2)
        n = averaged(slot.nu, jnp.square(u + self.b2 * delta), self.b3)
        step = over_root(of_mean * m + of_change * v, n * debias, self.eps, self.eps_root)
        return step, {"mu": m, "change": v, "nu": n, "last": u}


@transform
class scale_by_laprop(scale_by_adam):
    """Average scaled gradients, whereas Adam scales the average. Ziyin et al. 2020, arXiv:2002.04839, Algorithm 1.

    The two decays can then be chosen independently: no step exceeds 1/√(1−β₂).
    """

    equation = "v ← β₂v + (1−β₂)u²,  m ← β₁m + (1−β₁)u / (√(v̂+ε̄) + ε),  u ← m̂"

    def leaf(self, u, slot, p, debias):
        v = averaged(slot.nu, jnp.square(u), self.b2)
        m = averaged(slot.mu, over_root(u, v * debias[1], self.eps, self.eps_root), self.b1)
        return m * debias[0], {"mu": m, "nu": v}


@transform
class scale_by_adopt(Leafwise):
    """Average gradients scaled by the previous mean square. Taniguchi et al. 2024, arXiv:2411.02853.

    Clipped ADOPT, which converges for any β₂. The first gradient only initializes v, so the first update is 0.
    ``clip_value_fn`` sets the bound to a number or a schedule. Without it, ``power=None``
    disables clipping.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.9999, high=1.0)
    eps: Hyper = hyper("ε", "floor of the root", default=1e-6)
    power: OptionalHyper = hyper("p", "how fast the bound on a scaled gradient grows", default=0.25, optional=True)
    clip_value_fn: OptionalHyper = hyper("c", "bound on a scaled gradient", default=None, optional=True)

    slots = ("mu", "nu")
    nonnegative = ("nu",)
    lagged = ("nu",)
    equation = (
        "m ← β₁m + (1−β₁)·clip(u / max(√v, ε), ±c),  v ← β₂v + (1−β₂)u², v₁ = u₁²,  u ← m, 0 at t=1,  "
        "c = (t−1)^p if not given"
    )
    role = "precondition"

    @derived
    def hides_infinite(self) -> bool:
        return self.clip_value_fn is not None or self.power is not None

    def scalars(self, at):
        first = at.step == 1
        bound = jnp.where(first, 0.0, self.bound(at.step, first))
        return first, bound, jnp.where(first, 0.0, self.b2), jnp.where(first, 1.0, 1 - self.b2)

    def bound(self, t: jax.Array, first: jax.Array) -> Scalar:
        """The largest magnitude of a scaled gradient."""
        if self.clip_value_fn is not None:
            return self.clip_value_fn
        if self.power is None:
            return math.inf
        return jnp.where(first, 1.0, t - 1) ** self.power  # 1 instead of 0, whose power has an infinite derivative

    def leaf(self, u, slot, p, scalars):
        first, bound, keep, take = scalars
        # At the first step ν is 0 and the bound makes the quotient 0, but with ε = 0 its derivatives would be NaN.
        scaled = clipped(u / jnp.where(first, 1.0, jnp.maximum(sqrt(slot.nu), self.eps)), bound)
        m = averaged(slot.mu, scaled, self.b1)
        return m, {"mu": m, "nu": keep * slot.nu + take * jnp.square(u)}


@transform
class scale_by_ademamix(scale_by_adam):
    """Adam with a second, much slower mean. Pagliardini et al. 2024, arXiv:2409.03137, Algorithm 1.

    The slow mean has no bias correction. The paper warms up α and β₃: see `ademamix`.
    """

    b3: Hyper = hyper("β₃", "decay of the slow mean", default=0.9999, high=1.0)
    alpha: Hyper = hyper("α", "weight of the slow mean", default=5.0)

    slots = ("mu", "nu", "mu_slow")
    holds = MOMENTS
    absent = {"mu_slow": None}
    equation = "m ← β₁m + (1−β₁)u,  l ← β₃l + (1−β₃)u,  v ← β₂v + (1−β₂)u²,  u ← (m̂ + αl) / (√(v̂+ε̄) + ε)"

    def leaf(self, u, slot, p, debias):
        m, v = self.moments(u, slot)
        slow = averaged(slot.mu_slow, u, self.b3)
        mean = m * debias[0] + self.alpha * slow
        return over_root(mean, v * debias[1], self.eps, self.eps_root), {"mu": m, "nu": v, "mu_slow": slow}


@transform
class scale_by_simplified_ademamix(scale_by_adam):
    """Adam with a decaying sum for a mean, plus a weighted newest gradient. Morwani et al. 2025, arXiv:2502.02431."""

    b1: Hyper = hyper("β₁", "decay of the sum", default=0.99, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.95, high=1.0)
    alpha: Hyper = hyper("α", "weight of the newest gradient", default=0.0)

    equation = "m ← β₁m + u,  v ← β₂v + (1−β₂)u²,  u ← (m + αu) / (√(v̂+ε̄) + ε)"

    def scalars(self, at):
        return at.debias(self.b2)

    def leaf(self, u, slot, p, debias):
        m = self.b1 * slot.mu + u
        v = averaged(slot.nu, jnp.square(u), self.b2)
        return over_root(m + self.alpha * u, v * debias, self.eps, self.eps_root), {"mu": m, "nu": v}


@transform
class add_gradient_change(Leafwise):
    """Add a multiple of the update's change, as MARS does. Yuan et al. 2024, arXiv:2411.10438, Algorithm 2.

    The approximate form: the previous update replaces the gradient of this batch at the previous
    parameters. The first update is compared with 0, as in the published code.
    """

    b1: Hyper = hyper("β₁", "decay of the mean that follows", default=0.95, high=1.0)
    gamma: Hyper = hyper("γ", "fraction of the change that is added; 0 adds none", default=0.025)

    slots = ("last",)
    lagged = slots
    equation = "c = u + γ·β₁/(1−β₁)·(u − u₋),  u₋ ← u,  u ← c"
    role = "accumulate"

    def leaf(self, u, slot, p, scalars):
        return u + self.gamma * self.b1 / (1 - self.b1) * (u - slot.last), {"last": u}
