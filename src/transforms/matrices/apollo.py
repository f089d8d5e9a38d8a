"""Adam in a subspace of the gradient's rows or columns, whichever are fewer: APOLLO, Fira and Conda.

In what follows a matrix m × n has m ≤ n; others are transposed on the way in and back. All three multiply by
√(1−β₂ᵗ)/(1−β₁ᵗ) in place of correcting both moments, so that ε is relative to uncorrected ones, as in published codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.conditions import cond
from ...core.values.hyper import Hyper, as_key, hyper, integer, prng_seed, whole
from ...core.values.numerics import averaged, div, mul, norm, one_minus_power, over_root, product, safe_div, sqrt
from ...core.values.types import Scalar, Scalars
from ...core.values.value import derived, static


class _InSubspace(Matrixwise):
    """What the three share."""

    if TYPE_CHECKING:
        b1: Hyper
        b2: Hyper
        eps: Hyper
        update_proj_gap: Hyper

    def scalars(self, at) -> Scalars:
        gap = integer(self.update_proj_gap, at.dtype)
        debias = div(sqrt(one_minus_power(self.b2, at.step)), one_minus_power(self.b1, at.step))
        return at.phase(gap, 1.0) < 1, debias

    def moments(self, R: jax.Array, slot) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The next mean and mean square of R, and their quotient."""
        m, v = averaged(slot.mu, R, self.b1), averaged(slot.nu, jnp.square(R), self.b2)
        return m, v, over_root(m, v, self.eps)


@transform
class scale_by_apollo(_InSubspace):
    """Scale columns as Adam does in a random projection. Zhu et al. 2024, arXiv:2412.05270, Algorithm 1.

    P is r × m with variance 1/r, and is drawn anew every ``update_proj_gap`` steps, from the first on. With
    ``scale_type="tensor"`` a matrix has one factor; with ``rank=1`` that is APOLLO-Mini. The norm of the scaled
    gradient may grow by ``norm_growth`` a step, unless it was 0. The published code multiplies by the root of its
    ``scale``.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.999, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-6)
    rank: int = static("the number of random directions, at most the shorter side", default=256, least=1)
    update_proj_gap: Hyper = whole("k", "steps between two projections", default=200)
    scale: Hyper = hyper("α", "factor of the update", default=1.0)
    norm_growth: Hyper = hyper(
        "γ", "the largest growth of the norm in a step; ∞ for any", default=1.01, low=1.0, closed=True
    )
    scale_type: str = static("what has a factor of its own", default="channel", one_of=("channel", "tensor"))
    seed: jax.Array | int = prng_seed("seed of the projections")

    slots = ("projector", "mu", "nu", "last_norm")
    factors = slots
    nonnegative = ("nu", "last_norm")
    role = "precondition"
    random = True

    @derived
    def equation(self) -> str:
        s = "sⱼ = ‖ψ‖/‖R‖ of column j" if self.scale_type == "channel" else "s = ‖ψ‖/‖R‖"
        return (
            f"P ← N(0, 1/{self.rank}) every k steps, R = Pu,  m ← β₁m + (1−β₁)R,  v ← β₂v + (1−β₂)R²,  "
            f"ψ = m / (√v + ε),  {s},  u ← su·min(1, γ‖last su‖/‖su‖),  u ← αu·√(1−β₂ᵗ)/(1−β₁ᵗ)"
        )

    def init_matrix(self, m, n, dtype):
        short, long = min(m, n), max(m, n)
        rank = min(self.rank, short)
        # All begin with the same projection, for matrices without a gradient at the first step.
        P = self.draw(as_key("scale_by_apollo.seed", self.seed), jnp.zeros((short, long), dtype))
        moments = {name: jnp.zeros((rank, long), dtype) for name in ("mu", "nu")}
        return {"projector": P, **moments, "last_norm": jnp.zeros((), dtype)}

    def matrix(self, M, slot, scalars):
        due, debias = scalars
        X = _wide(M, M)
        P = cond(due, lambda: self.draw(slot.key, X), lambda: slot.projector)
        R = product(P, X)
        m, v, psi = self.moments(R, slot)
        axis = 0 if self.scale_type == "channel" else None
        u = X * safe_div(norm(psi, axis), norm(R, axis))
        u, size = limited(u, slot.last_norm, self.norm_growth)
        return _wide(mul(self.scale * debias, u), M), {"projector": P, "mu": m, "nu": v, "last_norm": size}

    def draw(self, key: jax.Array, X: jax.Array) -> jax.Array:
        """A projection of the rows of X."""
        rank = min(self.rank, len(X))
        return jax.random.normal(key, (rank, len(X)), X.dtype) / rank**0.5


@transform
class scale_by_fira(_InSubspace):
    """Adam in leading singular directions, and the rest scaled alike. Chen et al. 2024, arXiv:2410.01623, Algorithm 1.

    P has the first r left singular vectors of the gradient, renewed every ``update_proj_gap`` steps, from the first
    on. Column j of what the projection leaves out is scaled as Adam scales column j of what it keeps. Its norm may
    grow by ``norm_growth`` a step, unless it was 0. ``failures`` counts singular vectors that were not finite;
    the old ones are then kept. Derivatives treat P as constant. In a sweep it is computed at every step, since the
    state says whether a matrix, before its first gradient, has none.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.999, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-6)
    rank: int = static("the number of directions, at most the shorter side", default=128, least=1)
    update_proj_gap: Hyper = whole("k", "steps between two projections", default=200)
    norm_growth: Hyper = hyper(
        "γ", "the largest growth of the norm in a step; ∞ for any", default=1.01, low=1.0, closed=True
    )

    slots = ("projector", "mu", "nu", "last_norm", "failures")
    factors = slots
    nonnegative = ("nu", "last_norm")
    role = "precondition"
    decomposes = True

    @derived
    def equation(self) -> str:
        return (
            f"P ← {self.rank} leading left singular vectors of u every k steps, R = Pᵀu,  m ← β₁m + (1−β₁)R,  "
            "v ← β₂v + (1−β₂)R²,  ψ = m / (√v + ε),  S = (u − PR)·‖ψ‖/‖R‖ by column, "
            "S ← S·min(1, γ‖last S‖/‖S‖),  u ← (Pψ + S)·√(1−β₂ᵗ)/(1−β₁ᵗ)"
        )

    def init_matrix(self, m, n, dtype):
        short, long = min(m, n), max(m, n)
        rank = min(self.rank, short)
        moments = {name: jnp.zeros((rank, long), dtype) for name in ("mu", "nu")}
        none = jnp.zeros((), dtype)
        return {
            "projector": jnp.zeros((short, rank), dtype),
            **moments,
            "last_norm": none,
            "failures": jnp.zeros((), jnp.int32),
        }

    def matrix(self, M, slot, scalars):
        due, debias = scalars
        X = _wide(M, M)
        P, failures = _renewed(slot, X, due, min(self.rank, len(X)))
        R = product(P.T, X)
        m, v, psi = self.moments(R, slot)
        S = (X - product(P, R)) * safe_div(norm(psi, 0), norm(R, 0))
        S, size = limited(S, slot.last_norm, self.norm_growth)
        u = mul(debias, product(P, psi) + S)
        return _wide(u, M), {"projector": P, "mu": m, "nu": v, "last_norm": size, "failures": failures}


@transform
class scale_by_conda(_InSubspace):
    """Adam in the singular directions of its mean. Wang et al. 2025, arXiv:2509.24218, Algorithm 1.

    P has the left singular vectors of the mean, renewed every ``update_proj_gap`` steps, from the first on. The mean
    square is not rotated with them. ``failures`` counts singular vectors that were not finite; the old ones are then
    kept. Derivatives treat P as constant. In a sweep it is computed at every step, since the state says whether a
    matrix, before its first gradient, has none.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.999, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    update_proj_gap: Hyper = whole("k", "steps between two projections", default=2000)

    slots = ("mu", "nu", "projector", "failures")
    matrix_slots = ("mu", "nu")
    factors = ("projector", "failures")
    nonnegative = ("nu",)
    equation = (
        "m ← β₁m + (1−β₁)u,  P ← left singular vectors of m every k steps,  v ← β₂v + (1−β₂)(Pᵀu)²,  "
        "u ← P(Pᵀm / (√v + ε))·√(1−β₂ᵗ)/(1−β₁ᵗ)"
    )
    role = "precondition"
    decomposes = True

    def init_matrix(self, m, n, dtype):
        short = min(m, n)
        return {"projector": jnp.zeros((short, short), dtype), "failures": jnp.zeros((), jnp.int32)}

    def matrix(self, M, slot, scalars):
        due, debias = scalars
        X = _wide(M, M)
        m = averaged(_wide(slot.mu, M), X, self.b1)
        P, failures = _renewed(slot, m, due, len(X))
        v = averaged(_wide(slot.nu, M), jnp.square(product(P.T, X)), self.b2)
        u = mul(debias, product(P, over_root(product(P.T, m), v, self.eps)))
        return _wide(u, M), {"mu": _wide(m, M), "nu": _wide(v, M), "projector": P, "failures": failures}


def _wide(x: jax.Array, M: jax.Array) -> jax.Array:
    """``x``, transposed if M has more rows than columns. It is its own inverse."""
    return x.T if M.shape[0] > M.shape[1] else x


def _renewed(slot, X: jax.Array, due: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
    """The projector for this step, and the number of failures. A matrix that had no gradient at all has none."""
    old = slot.projector, slot.failures

    def vectors() -> tuple[jax.Array, jax.Array]:
        left, _, _ = jnp.linalg.svd(jax.lax.stop_gradient(X), full_matrices=False)
        new, finite = left[:, :rank], jnp.isfinite(left).all()
        return jnp.where(finite, new, old[0]), jnp.where(finite, old[1], old[1] + 1)

    return cond((due | jnp.all(old[0] == 0)) & jnp.any(X != 0), vectors, lambda: old)


def limited(u: jax.Array, last: jax.Array, growth: Scalar) -> tuple[jax.Array, jax.Array]:
    """The update with a norm of at most ``growth`` times the last, and its norm."""
    size = norm(u)
    bound = jnp.where(last > 0, last * growth, jnp.full_like(last, jnp.inf))
    within = size <= bound
    factor = jnp.where(within, jnp.ones_like(size), bound / jnp.where(within, jnp.ones_like(size), size))
    return u * factor, jnp.where(within, size, bound)
