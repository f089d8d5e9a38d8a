"""Adam and its relatives: divide the mean gradient by its root mean square."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import lax

from ...core.facade.link import Leafwise, slot_like, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, mul, over_root
from ...core.values.types import Scalars
from ...core.values.value import derived, static

MOMENTS = {"mu": "E[u]", "nu": "E[u²]"}


@transform
class scale_by_adam(Leafwise):
    """Scale each coordinate to unit size. Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1."""

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.999, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    eps_root: Hyper = hyper("ε̄", "added to the mean square, inside the root", default=0.0, kw_only=True)

    slots = ("mu", "nu")
    holds = MOMENTS
    nonnegative = ("nu",)
    equation = "m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← m̂ / (√(v̂+ε̄) + ε)"
    role = "precondition"

    def scalars(self, at) -> Scalars:
        return at.debias(self.b1), at.debias(self.b2)

    def leaf(self, u, slot, p, debias, /):
        m, v = self.moments(u, slot)
        m_hat, v_hat = mul(m, debias[0]), mul(v, debias[1])
        return over_root(m_hat, v_hat, self.eps, self.eps_root), {"mu": m, "nu": v}

    def moments(self, u, slot):
        """The next mean and mean square."""
        m = averaged(slot.mu, u, self.b1)
        v = averaged(slot.nu, lax.square(u), self.b2)
        return m, v


@transform
class scale_by_uncorrected_adam(scale_by_adam):
    """Adam without bias correction, as in BERT's AdamWeightDecay and MXNet's Adam.

    Devlin et al. 2019, arXiv:1810.04805, the published code. Early updates are up to (1−β₁)/√(1−β₂)
    times as large as Adam's, so it needs a warm-up.
    """

    holds = MOMENTS
    equation = "m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  u ← m / (√(v+ε̄) + ε)"

    def scalars(self, at):
        return None

    def leaf(self, u, slot, p, scalars):
        m, v = self.moments(u, slot)
        return over_root(m, v, self.eps, self.eps_root), {"mu": m, "nu": v}


@transform
class scale_by_amsgrad(scale_by_adam):
    """Adam with a mean square that never falls. Reddi et al. 2018, arXiv:1904.09237, Algorithm 2.

    The bias is corrected "after" the maximum as in PyTorch, "before" it as in Optax, or "never"
    as in the paper.
    """

    debias: str = static("when the bias is corrected", default="after", one_of=("after", "before", "never"))

    slots = ("mu", "nu", "nu_max")
    holds = MOMENTS
    nonnegative = ("nu", "nu_max")
    absent = {"nu_max": "nu"}

    @derived
    def meanings(self) -> Mapping[str, object]:
        return {"nu_max": self.debias == "before"}

    @derived
    def equation(self) -> str:
        larger = "w ← max(w, v̂)" if self.debias == "before" else "w ← max(w, v)"
        ratio = {"after": "m̂ / (√(ŵ+ε̄) + ε)", "before": "m̂ / (√(w+ε̄) + ε)", "never": "m / (√(w+ε̄) + ε)"}[self.debias]
        return f"m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  {larger},  u ← {ratio}"

    def scalars(self, at) -> Scalars:
        if self.debias == "never":
            return 1.0, 1.0, 1.0
        mean, square = super().scalars(at)
        return (mean, square, 1.0) if self.debias == "before" else (mean, 1.0, square)

    def leaf(self, u, slot, p, scalars):
        of_mean, before, after = scalars
        m, v = self.moments(u, slot)
        w = jnp.maximum(slot.nu_max, v * before)
        return over_root(m * of_mean, w * after, self.eps, self.eps_root), {"mu": m, "nu": v, "nu_max": w}


@transform
class scale_by_nadam(scale_by_adam):
    """Adam with Nesterov momentum on a schedule. Dozat 2016, "Incorporating Nesterov momentum into Adam".

    μₜ = β₁(1 − ½·0.96^(tψ)), and Π is the product of all μ so far.
    """

    momentum_decay: Hyper = hyper("ψ", "how fast the momentum rises to its limit", default=4e-3)

    slots = ("mu", "nu", "mu_product")
    holds = MOMENTS
    absent = {"mu_product": 0.0}  # its limit, below 1e-3 after ten steps
    equation = (
        "m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)u²,  μₜ = β₁(1 − ½·0.96^(tψ)),  Π ← Πμₜ,  "
        "u ← ((1−μₜ)/(1−Π)·u + μₜ₊₁/(1−Πμₜ₊₁)·m) / (√(v̂+ε̄) + ε)"
    )

    def init_leaf(self, p):
        product = jnp.ones((), slot_like(p).real.dtype)
        return {"mu": slot_like(p), "nu": slot_like(p), "mu_product": product}

    def scalars(self, at):
        def mu(t):
            return self.b1 * (1 - 0.5 * 0.96 ** (t * self.momentum_decay))

        return mu(at.step), mu(at.step + 1), at.debias(self.b2)

    def leaf(self, u, slot, p, scalars):
        mu, mu_next, debias = scalars
        product = slot.mu_product * mu
        m, v = self.moments(u, slot)
        mean = (1 - mu) / (1 - product) * u + mu_next / (1 - product * mu_next) * m
        return over_root(mean, v * debias, self.eps, self.eps_root), {"mu": m, "nu": v, "mu_product": product}
