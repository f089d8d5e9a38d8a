"""SOAP and Shampoo with statistics of a gradient that is whitened by those of the other side.

Lin et al. 2025, arXiv:2509.03378: the product of both statistics is then nearest, in Kullback and Leibler's divergence,
to the covariance of the gradients. The eigenvalues λ are those of the statistics in the present bases, as in HeavyBall;
the published code keeps moving averages of them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.hyper import Hyper, hyper, integer
from ...core.values.numerics import averaged, div, largest, one_minus_power, product, sqrt
from ...core.values.types import Scalar
from .kronecker import (
    Bases,
    Pair,
    first_bases,
    max_precond_dim_field,
    rayleigh,
    refreshed,
    rotated,
    rotated_back,
    sandwiched,
    sides_field,
    unseen,
    update_every_field,
    without_overflow,
)
from .soap import scale_by_soap


@transform
class scale_by_kl_soap(scale_by_soap):
    """SOAP with statistics of the gradient whitened by the other side's. Lin et al. 2025, arXiv:2509.03378.

    The averages are without bias: the first statistics are uuᵀ/n and uᵀu/m. ε is also the floor of the eigenvalues.
    """

    equation = (
        "m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)(QᴸᵀuQᴿ)²,  "
        "L ← β₃L + (1−β₃)·uQᴿdiag(1/max(λᴿ, ε))Qᴿᵀuᵀ/n,  R ← β₃R + (1−β₃)·uᵀQᴸdiag(1/max(λᴸ, ε))Qᴸᵀu/m,  "
        "λ = diag(QᵀLQ), diag(QᵀRQ),  u ← c·Qᴸ(QᴸᵀmQᴿ / (√v + ε))Qᴿᵀ,  c = √(1−β₂ᵗ⁻¹) / (1−β₁ᵗ⁻¹),  "
        "Q ← the orthogonal factors of LQ and RQ every k steps"
    )

    def statistics_decay(self, at):
        return _unbiased(self.shampoo_beta, at.step)

    def observed(self, M, slot):
        bases = slot.QL, slot.QR
        left, right = (_root(S, Q, self.eps) for S, Q in zip((slot.L, slot.R), bases))
        return whitened(M, bases, (left, right))


@transform
class scale_by_kl_shampoo(Matrixwise):
    """Divide the mean gradient by the roots of such statistics on both sides. Lin et al. 2025, arXiv:2509.03378.

    The statistics start as c times the identity, which counts as one gradient, so that the first step can already move
    the parameters; in HeavyBall it does not. The first updates are therefore proportional to the gradient, (1−β₁)u/c:
    clip the gradients before, or warm the learning rate up. The state is that of `scale_by_soap` without the mean
    square.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    shampoo_beta: Hyper = hyper("β₃", "decay of the statistics", default=0.95, high=1.0)
    eps: Hyper = hyper("ε", "floor of the eigenvalues", default=1e-8)
    init_scale: Hyper = hyper("c", "the eigenvalues of the first statistics", default=0.1)
    update_every: Hyper = update_every_field("changes of the bases", default=10)
    sides: str = sides_field()
    max_precond_dim: int = max_precond_dim_field()

    slots = ("mu", "L", "R", "QL", "QR", "failures")
    matrix_slots = ("mu",)
    factors = ("L", "R", "QL", "QR", "failures")
    role = "precondition"
    decomposes = True
    equation = (
        "m ← β₁m + (1−β₁)u,  u ← Qᴸ(QᴸᵀmQᴿ / √(λᴸλᴿᵀ))Qᴿᵀ,  λ = max(diag(QᵀLQ), ε), max(diag(QᵀRQ), ε),  "
        "L ← β₃L + (1−β₃)·uQᴿdiag(1/λᴿ)Qᴿᵀuᵀ/n,  R ← β₃R + (1−β₃)·uᵀQᴸdiag(1/λᴸ)Qᴸᵀu/m,  from cI,  "
        "Q ← the orthogonal factors of LQ and RQ every k steps"
    )

    def init_matrix(self, m, n, dtype):
        return first_bases(m, n, self.sides, self.max_precond_dim, dtype)

    def scalars(self, at):
        due = at.phase(integer(self.update_every, at.dtype), 1.0) < 1
        return at.count == 1, due, _unbiased(self.shampoo_beta, at.step + 1)

    def matrix(self, M, slot, scalars):
        first, due, decay = scalars
        m = averaged(slot.mu, M, self.b1)
        old = tuple(self.begun(S) if S.ndim else S for S in (slot.L, slot.R))
        bases = slot.QL, slot.QR
        left, right = (_root(S, Q, self.eps) for S, Q in zip(old, bases))
        u = without_overflow(lambda m: rotated_back(rotated(m, *bases) / left[:, None] / right[None], *bases), m)
        none = jnp.all(M == 0)
        L, R = (
            jnp.where(none & unseen(kept), kept, averaged(S, new, decay)) if S.ndim else S
            for kept, S, new in zip((slot.L, slot.R), old, whitened(M, bases, (left, right)))
        )
        QL, QR, _, failures = refreshed(Bases(*bases, None, slot.failures), (L, R), due, first)
        return u, {"mu": m, "L": L, "R": R, "QL": QL, "QR": QR, "failures": failures}

    def begun(self, S: jax.Array) -> jax.Array:
        """The statistics, or cI before the first gradient, which may be later than the first step."""
        start = jnp.where(unseen(S), self.init_scale, 0.0).astype(S.dtype)
        return S + start * jnp.eye(len(S), dtype=S.dtype)


def _unbiased(decay: Scalar, t: jax.Array) -> Any:
    """The decay with which a moving average gives t observations the weights that the bias correction gives them."""
    return 1 - div(1 - decay, one_minus_power(decay, t))


def _root(S: jax.Array, Q: jax.Array, eps: Scalar) -> jax.Array:
    """The roots of the eigenvalues of the statistics of a side: 1 for a side without, and before the first gradient."""
    if not S.ndim:
        return jnp.ones(1, S.dtype)
    return jnp.where(unseen(S), 1.0, sqrt(jnp.maximum(rayleigh(S, Q), eps))).astype(S.dtype)


def whitened(M: jax.Array, bases: Pair, roots: Pair) -> Pair:
    """The mean outer products of M's columns, divided by the roots of the right side, and of its rows by the left's."""
    m, n = M.shape
    (QL, QR), (left, right) = bases, roots
    most = largest(M)
    columns = sandwiched(jnp.zeros((), M.dtype), M / most, QR) / right[None]
    rows = sandwiched(QL.mT if QL.ndim else QL, M / most, jnp.zeros((), M.dtype)) / left[:, None]
    end = jnp.finfo(M.dtype).max / M.size  # keeps the sums of statistics finite
    first, second = (
        jnp.clip(S * most * most, -end, end) for S in (product(columns, columns.T) / n, product(rows.T, rows) / m)
    )
    return first, second
