"""Scaling by the size of past gradients: Adagrad, RMSprop, Adadelta."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from ...core.facade.link import Leafwise, slot_like, transform
from ...core.values.contents import same
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, capped, over_root, sqrt
from ...core.values.value import derived


@transform
class scale_by_adagrad(Leafwise):
    """Divide by the root of the sum of all squares. Duchi, Hazan & Singer 2011, JMLR 12, diagonal version."""

    initial_accumulator_value: Hyper = hyper("s₀", "initial sum", default=0.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-10)
    eps_root: Hyper = hyper("ε̄", "added to the sum, inside the root", default=0.0)

    slots = ("sum",)
    holds = {"sum": "Σu²"}
    nonnegative = slots
    equation = "s ← s + u² from s₀,  u ← u / (√(s+ε̄) + ε)"
    role = "precondition"

    def init_leaf(self, p):
        return {"sum": slot_like(p, self.initial_accumulator_value)}

    def leaf(self, u, slot, p, scalars):
        s = slot.sum + jnp.square(u)
        return over_root(u, s, self.eps, self.eps_root), {"sum": s}


@transform
class scale_by_rms(Leafwise):
    """Divide by the root mean square. Tieleman & Hinton 2012, Coursera lecture 6.5.

    ε is PyTorch's, ε̄ TensorFlow's and Optax's.
    """

    decay: Hyper = hyper("ρ", "decay of the mean square", default=0.99, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    initial_scale: Hyper = hyper("s₀", "initial mean square", default=0.0)
    eps_root: Hyper = hyper("ε̄", "added to the mean square, inside the root", default=0.0)

    slots = ("nu",)
    nonnegative = slots
    equation = "s ← ρs + (1−ρ)u² from s₀,  u ← u / (√(s+ε̄) + ε)"
    role = "precondition"

    @derived
    def holds(self) -> Mapping[str, str]:
        return {"nu": "E[u²]"} if same(self.initial_scale, 0.0) else {}

    def init_leaf(self, p):
        return {"nu": slot_like(p, self.initial_scale)}

    def leaf(self, u, slot, p, scalars, /):
        s = averaged(slot.nu, jnp.square(u), self.decay)
        return over_root(u, s, self.eps, self.eps_root), {"nu": s}


@transform
class scale_by_debiased_rms(scale_by_rms):
    """Divide by the bias-corrected root mean square: Adam without a mean.

    As in Optax, the correction is the same for any initial value.
    """

    decay: Hyper = hyper("ρ", "decay of the mean square", default=0.999, high=1.0)

    holds = scale_by_rms.holds
    equation = "s ← ρs + (1−ρ)u² from s₀,  u ← u / (√(ŝ+ε̄) + ε)"

    def scalars(self, at):
        return at.debias(self.decay)

    def leaf(self, u, slot, p, debias):
        s = averaged(slot.nu, jnp.square(u), self.decay)
        return over_root(u, s * debias, self.eps, self.eps_root), {"nu": s}


@transform
class scale_by_stddev(Leafwise):
    """Divide by the standard deviation: centered RMSprop. Graves 2013, arXiv:1308.0850, equations 38-40.

    Departs from the paper as PyTorch does: ε is outside the root. A variance that is negative
    due to rounding counts as 0.
    """

    decay: Hyper = hyper("ρ", "decay of the mean and the mean square", default=0.99, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    initial_scale: Hyper = hyper("s₀", "initial mean square", default=0.0)
    eps_root: Hyper = hyper("ε̄", "added to the variance, inside the root", default=0.0)

    slots = ("mu", "nu")
    nonnegative = ("nu",)
    equation = "s ← ρs + (1−ρ)u² from s₀,  a ← ρa + (1−ρ)u,  u ← u / (√(s−a²+ε̄) + ε)"
    role = "precondition"

    @derived
    def holds(self) -> Mapping[str, str]:
        return {"mu": "E[u]"} | ({"nu": "E[u²]"} if same(self.initial_scale, 0.0) else {})

    def init_leaf(self, p):
        return {"mu": slot_like(p), "nu": slot_like(p, self.initial_scale)}

    def leaf(self, u, slot, p, scalars, /):
        s, a = self.moments(u, slot)
        return self.ratio(u, s, a), {"mu": a, "nu": s}

    def moments(self, u, slot):
        """The next mean square and mean."""
        return averaged(slot.nu, jnp.square(u), self.decay), averaged(slot.mu, u, self.decay)

    def ratio(self, u, s, a):
        """The update divided by the standard deviation."""
        # a² is capped: where both squares overflow, the variance is ∞ instead of ∞ − ∞.
        variance = jnp.maximum(s - capped(jnp.square(a)), 0.0)
        return over_root(u, variance, self.eps, self.eps_root)


@transform
class scale_by_debiased_stddev(scale_by_stddev):
    """Divide by the standard deviation from bias-corrected moments, as in Optax.

    The deviation of a single gradient is 0, so the first step is u / (√ε̄ + ε).
    """

    holds = scale_by_stddev.holds
    equation = "s ← ρs + (1−ρ)u² from s₀,  a ← ρa + (1−ρ)u,  u ← u / (√(ŝ−â²+ε̄) + ε)"

    def scalars(self, at):
        return at.debias(self.decay)

    def leaf(self, u, slot, p, debias):
        s, a = self.moments(u, slot)
        return self.ratio(u, s * debias, a * debias), {"mu": a, "nu": s}


@transform
class scale_by_adadelta(Leafwise):
    """Scale by the RMS of past steps divided by that of gradients. Zeiler 2012, arXiv:1212.5701, Algorithm 1."""

    rho: Hyper = hyper("ρ", "decay of both mean squares", default=0.9, high=1.0)
    eps: Hyper = hyper("ε", "floor of both roots, inside them", default=1e-6)

    slots = ("nu", "delta")  # E[u²], E[Δ²]
    holds = {"nu": "E[u²]"}
    nonnegative = slots
    lagged = ("delta",)
    equation = "s ← ρs + (1−ρ)u²,  Δ = √(a+ε)/√(s+ε)·u,  a ← ρa + (1−ρ)Δ²,  u ← Δ"
    role = "precondition"

    def leaf(self, u, slot, p, scalars):
        square = jnp.square(u)
        s = averaged(slot.nu, square, self.rho)
        past, now = slot.delta + self.eps, s + self.eps
        # Δ² without the roots, which XLA would store for reuse. Where u² overflows, Δ is 0 instead of 0·∞.
        a = averaged(slot.delta, past / now * capped(square), self.rho)
        return sqrt(past) / sqrt(now) * u, {"nu": s, "delta": a}
