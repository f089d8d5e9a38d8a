"""Relatives of Shampoo and SOAP that keep less, or compute less often: SPlus, ASGO and RACS."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.conditions import cond
from ...core.values.hyper import Hyper, hyper, integer
from ...core.values.numerics import averaged, capped, largest, product, safe_div, sqrt
from ...core.values.value import static
from .apollo import limited
from .kronecker import (
    Pair,
    begun,
    decomposed,
    first_bases,
    max_precond_dim_field,
    rotated,
    rotated_back,
    sandwiched,
    sides_field,
    unseen,
    update_every_field,
    with_statistics,
    without_overflow,
)


@transform
class scale_by_splus(Matrixwise):
    """The sign of the mean in the eigenbases of Shampoo's statistics. Frans et al. 2025, arXiv:2506.07254, Algorithm 1.

    As in the published code, new bases are used from the next step on: the first step is the sign itself. An m × n
    matrix is multiplied by 2/(m + n), with which one learning rate suits all widths. Sides without statistics, those
    longer than ``max_precond_dim`` or of length 1, have the identity for a basis. For vectors, and for matrices with
    a side that is too long, the published code has the factor 0.001. The average of the parameters is a link of its
    own, `ema_params`.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the statistics", default=0.999, high=1.0)
    update_every: Hyper = update_every_field("changes of the bases", default=100)
    sides: str = sides_field()
    max_precond_dim: int = max_precond_dim_field()

    slots = ("mu", "L", "R", "QL", "QR", "failures")
    matrix_slots = ("mu",)
    factors = ("L", "R", "QL", "QR", "failures")
    role = "precondition"
    fixes_norm = hides_infinite = True
    decomposes = True
    equation = (
        "m ← β₁m + (1−β₁)u,  L ← β₂L + (1−β₂)uuᵀ,  R ← β₂R + (1−β₂)uᵀu,  u ← 2/(m+n)·Qᴸ sign(QᴸᵀmQᴿ) Qᴿᵀ,  "
        "Q ← eigenvectors of L and R at the first step, and every k steps"
    )

    def init_matrix(self, m, n, dtype):
        return first_bases(m, n, self.sides, self.max_precond_dim, dtype)

    def scalars(self, at):
        return (at.count == 1) | (at.phase(integer(self.update_every, at.dtype)) < 1)

    def matrix(self, M, slot, due):
        m = averaged(slot.mu, M, self.b1)
        u = rotated_back(jnp.sign(rotated(m, slot.QL, slot.QR)), slot.QL, slot.QR)
        L = averaged(slot.L, product(M, M.T), self.b2) if slot.L.ndim else slot.L
        R = averaged(slot.R, product(M.T, M), self.b2) if slot.R.ndim else slot.R
        old = (slot.QL, slot.QR), slot.failures
        (QL, QR), failures = cond(due, lambda: _new_bases((L, R), *old), lambda: old)
        return u, {"mu": m, "L": L, "R": R, "QL": QL, "QR": QR, "failures": failures}

    def size(self, m, n):
        return 2 / (m + n)


def _new_bases(statistics: Pair, old: Pair, failures: jax.Array) -> tuple[Pair, jax.Array]:
    """The eigenvectors of both sides, and the number of failures with those of now."""
    bases = []
    for S, Q in zip(statistics, old):
        if S.ndim:
            new = decomposed(S)
            Q = jnp.where(new.ok, new.vectors, Q)
            failures = failures + (~new.ok).astype(failures.dtype)
        bases.append(Q)
    return (bases[0], bases[1]), failures


@transform
class scale_by_asgo(Matrixwise):
    """Divide the mean gradient by the root of the mean uuᵀ. An et al. 2025, arXiv:2503.20762, the practical variant.

    The rows, which are the inputs, have the statistics; with ``sides`` "columns" the outputs have them, with "shorter"
    the shorter side. A side of length 1 has none, and then the update is the mean. No bias is corrected, so the first
    root is 1/√(1−β₂) times too large, and is kept for k steps: warm the learning rate up. After gradients of 0 it is
    that of the mean eigenvalue, until a root is due. The state of an m × n matrix is one slot of its shape, 2m²
    numbers, and ``failures``: of roots that were not finite, in place of which the old one is kept.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the statistics", default=0.999, high=1.0)
    eps: Hyper = hyper("ε", "added to the root", default=1e-8)
    update_every: Hyper = update_every_field("computations of the root", default=10)
    sides: str = static("the side that has statistics", default="rows", one_of=("rows", "columns", "shorter"))

    slots = ("mu", "V", "P", "failures")  # E[u], E[uuᵀ], its inverse root
    matrix_slots = ("mu",)
    factors = ("V", "P", "failures")
    role = "precondition"
    decomposes = True
    equation = "m ← β₁m + (1−β₁)u,  V ← β₂V + (1−β₂)uuᵀ,  u ← Pm,  P = (V^½ + εI)⁻¹ every k steps"

    def init_matrix(self, m, n, dtype):
        rows, columns = with_statistics(m, n, self.sides)
        shape = (m, m) if rows else (n, n) if columns else ()
        P = jnp.eye(*shape, dtype=dtype) if shape else jnp.zeros((), dtype)
        return {"V": jnp.zeros(shape, dtype), "P": P, "failures": jnp.zeros((), jnp.int32)}

    def scalars(self, at):
        return at.phase(integer(self.update_every, at.dtype), 1.0) < 1

    def matrix(self, M, slot, due):
        m = averaged(slot.mu, M, self.b1)
        rows, columns = with_statistics(M.shape[0], M.shape[1], self.sides)
        if not rows and not columns:
            return m, {"mu": m, "V": slot.V, "P": slot.P, "failures": slot.failures}
        V = averaged(slot.V, product(M, M.T) if rows else product(M.T, M), self.b2)
        first = begun(slot.V, V, slot.P, lambda x: 1 / (sqrt(x) + self.eps))
        P, failures = cond(due, lambda: self.root(V, first, slot.failures), lambda: (first, slot.failures))
        none = jnp.zeros((), M.dtype)
        left, right = (P, none) if rows else (none, P)
        u = without_overflow(lambda m: sandwiched(left, m, right), m)
        return u, {"mu": m, "V": V, "P": P, "failures": failures}

    def root(self, V: jax.Array, old: jax.Array, failures: jax.Array) -> Pair:
        """The inverse root, or the old one if it fails or V is 0, and the number of failures."""
        values, Q, error, ok = decomposed(V)
        none = unseen(V)
        root = jnp.maximum(sqrt(values) + self.eps, sqrt(error))
        ok &= jnp.all(root > 0)
        P = product(Q / jnp.where(root > 0, root, 1.0)[None], Q.T)
        return jnp.where(ok & ~none, P, old), failures + (~(ok | none)).astype(failures.dtype)


@transform
class scale_by_racs(Matrixwise):
    """Divide by the roots of a scale for each row and one for each column. Gong et al. 2025, arXiv:2502.07752, RACS.

    qsᵀ is the matrix of rank one that the squares of the update are nearest to, found by ``rounds`` steps of the power
    iteration. The norm of the result grows by a factor of γ a step at most. The paper's α is part of the learning rate.
    pytorch_optimizer takes the plain means of rows and columns, whose product has the size of a fourth power, so that
    its updates depend on the scale of the loss.
    """

    decay: Hyper = hyper("β", "decay of the scales", default=0.9, high=1.0)
    gamma: Hyper = hyper("γ", "the factor by which the norm may grow in a step", default=1.01, low=1.0)
    eps: Hyper = hyper("ε", "added to the product of the scales, inside the root", default=1e-30)
    rounds: int = static("the number of power iterations", default=5, least=1)

    slots = ("row_scale", "column_scale", "norm")
    factors = slots
    nonnegative = slots
    role = "precondition"
    equation = (
        "q ← βq + (1−β)q̂,  s ← βs + (1−β)ŝ,  ŝ = (u²)ᵀq̂/‖q̂‖², q̂ = u²ŝ/‖ŝ‖² in rounds from q̂ = 1,  "
        "u ← u / √(qsᵀ + ε),  u ← u·min(1, γφ/‖u‖) after the first step,  φ ← ‖u‖"
    )

    def init_matrix(self, m, n, dtype):
        return {"row_scale": jnp.zeros(m, dtype), "column_scale": jnp.zeros(n, dtype), "norm": jnp.zeros((), dtype)}

    def matrix(self, M, slot, scalars):
        most = largest(M)  # the scales are of the fourth power of what they are computed from
        squares = jnp.square(M / most)
        q, s = jnp.ones(len(M), M.dtype), jnp.zeros(M.shape[1], M.dtype)
        for _ in range(self.rounds):
            s = safe_div(product(q, squares), jnp.sum(jnp.square(q)))
            q = safe_div(product(squares, s), jnp.sum(jnp.square(s)))
        q, s = averaged(slot.row_scale, q, self.decay), averaged(slot.column_scale, capped(s * most * most), self.decay)
        u = M / sqrt(q[:, None] * s[None] + self.eps)
        u, size = limited(u, slot.norm, self.gamma)
        return u, {"row_scale": q, "column_scale": s, "norm": size}
