"""SOAP: Adam in the eigenbases of Shampoo's statistics."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.hyper import Hyper, hyper, integer
from ...core.values.numerics import averaged, mul, one_minus_power, over_root, product, sqrt
from .kronecker import (
    Bases,
    Pair,
    first_bases,
    max_precond_dim_field,
    refreshed,
    rotated,
    rotated_back,
    sides_field,
    update_every_field,
)


@transform
class scale_by_soap(Matrixwise):
    """Adam in the eigenbases of the moving averages of uuᵀ and uᵀu. Vyas et al. 2024, arXiv:2409.11321, Algorithm 3.

    As in the published code, the first step only begins the statistics and moves nothing, the bias is corrected as if
    the second step were Adam's first, and ε is added to the root before that. The mean is kept in the parameter's own
    coordinates, so that it need not be rotated when the bases change. A side that is longer than ``max_precond_dim``
    has no statistics, and the identity for a basis; so has a side of length 1. With ``sides`` "shorter" only the
    shorter side has statistics, with "rows" the inputs, with "columns" the outputs.

    The state of an m × n matrix has two slots of its shape, 2m² + 2n² numbers more, and ``failures``, the number of
    decompositions that were not finite: the bases are then kept as they were.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.95, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.95, high=1.0)
    shampoo_beta: Hyper = hyper("β₃", "decay of the statistics", default=0.95, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    update_every: Hyper = update_every_field("changes of the bases", default=10)
    sides: str = sides_field()
    max_precond_dim: int = max_precond_dim_field()

    slots = ("mu", "nu", "L", "R", "QL", "QR", "failures")  # E[u], E[(QLᵀuQR)²], E[uuᵀ], E[uᵀu]
    matrix_slots = ("mu", "nu")
    factors = ("L", "R", "QL", "QR", "failures")
    nonnegative = ("nu",)
    role = "precondition"
    decomposes = True
    equation = (
        "m ← β₁m + (1−β₁)u,  v ← β₂v + (1−β₂)(QᴸᵀuQᴿ)²,  L ← β₃L + (1−β₃)uuᵀ,  R ← β₃R + (1−β₃)uᵀu,  "
        "u ← c·Qᴸ(QᴸᵀmQᴿ / (√v + ε))Qᴿᵀ,  c = √(1−β₂ᵗ⁻¹) / (1−β₁ᵗ⁻¹),  "
        "Q ← the orthogonal factors of LQ and RQ every k steps"
    )

    def init_matrix(self, m, n, dtype):
        return first_bases(m, n, self.sides, self.max_precond_dim, dtype)

    def scalars(self, at):
        first = at.count == 1
        due = at.phase(integer(self.update_every, at.dtype), 1.0) < 1
        t = jnp.where(first, at.step, at.step - 1)
        size = sqrt(one_minus_power(self.b2, t)) / one_minus_power(self.b1, t)
        return first, due, size, self.statistics_decay(at)

    def statistics_decay(self, at):
        """The weight of the old statistics in the new ones."""
        return self.shampoo_beta

    def matrix(self, M, slot, scalars):
        first, due, size, decay = scalars
        m = averaged(slot.mu, M, self.b1)
        v = averaged(slot.nu, jnp.square(rotated(M, slot.QL, slot.QR)), self.b2)
        direction = over_root(rotated(m, slot.QL, slot.QR), v, self.eps)
        u = mul(size, rotated_back(direction, slot.QL, slot.QR))
        m, v, u = (jnp.where(first, old, new) for old, new in ((slot.mu, m), (slot.nu, v), (jnp.zeros_like(M), u)))
        L, R = (
            averaged(old, new, decay) if old.ndim else old for old, new in zip((slot.L, slot.R), self.observed(M, slot))
        )
        QL, QR, v, failures = refreshed(Bases(slot.QL, slot.QR, v, slot.failures), (L, R), due, first)
        return u, {"mu": m, "nu": v, "L": L, "R": R, "QL": QL, "QR": QR, "failures": failures}

    def observed(self, M: jax.Array, slot: SimpleNamespace) -> Pair:
        """What the statistics are averages of."""
        return product(M, M.T), product(M.T, M)
