"""CAME: Adafactor's division by factored means, and a second one by how unsteady the update is."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, sqrt
from ..clipping.blocks import bounding


@transform
class scale_by_came(Matrixwise):
    """Divide by factored second moments and by a factored instability. Luo et al. 2023, arXiv:2307.02047, Algorithm 2.

    The means of squares are kept by row (r) and by column (c); rcᵀ/mean(r) stands for those of the entries. Clipped to
    an RMS of ``clipping_threshold``, the divided update is averaged, and the average is divided by the root of its
    mean squared distance to the update, factored likewise. As in the published code, the update of a vector is the
    average itself, and no bias is corrected.
    """

    b1: Hyper = hyper("β₁", "decay of the mean update", default=0.9, high=1.0, open=True)
    b2: Hyper = hyper("β₂", "decay of the mean squares", default=0.999, high=1.0)
    b3: Hyper = hyper("β₃", "decay of the instability", default=0.9999, high=1.0)
    eps: Hyper = hyper("ε₁", "added to the squares", default=1e-30)
    eps_instability: Hyper = hyper("ε₂", "added to the instability", default=1e-16)
    clipping_threshold: Hyper = hyper(
        "d", "the largest root mean square; ∞ for no bound", default=1.0, closed=True, open=True
    )

    slots = ("mu", "nu_row", "nu_col", "instability_row", "instability_col")
    matrix_slots = ("mu",)
    factors = ("nu_row", "nu_col", "instability_row", "instability_col")
    nonnegative = factors
    equation = (
        "r, c ← β₂-averages of row and column means of u² + ε₁,  u ← u / √(rcᵀ/mean(r)),  u ← u·min(1, d/RMS(u)),  "
        "m ← β₁m + (1−β₁)u,  r′, c′ ← β₃-averages of row and column means of (u−m)² + ε₂,  u ← m / √(r′c′ᵀ/mean(r′))"
    )
    role = "precondition"

    def init_matrix(self, m, n, dtype):
        none = jnp.zeros((), dtype)
        is_vector = 1 in (m, n)
        return {
            "nu_row": jnp.zeros(m, dtype),
            "nu_col": jnp.zeros(n, dtype),
            "instability_row": none if is_vector else jnp.zeros(m, dtype),
            "instability_col": none if is_vector else jnp.zeros(n, dtype),
        }

    def matrix(self, M, slot, scalars):
        nu_row, nu_col = _means(slot.nu_row, slot.nu_col, jnp.square(M) + self.eps, self.b2)
        u = M * (1 / _root(nu_row, nu_col))  # of M / x, the derivative at M = 0 may be 0·∞
        u = u * bounding(sqrt(jnp.square(u).mean()), self.clipping_threshold)
        m = averaged(slot.mu, u, self.b1)
        row, col, new = slot.instability_row, slot.instability_col, m
        if row.ndim:
            row, col = _means(row, col, jnp.square(u - m) + self.eps_instability, self.b3)
            new = m * (1 / _root(row, col))
        return new, {"mu": m, "nu_row": nu_row, "nu_col": nu_col, "instability_row": row, "instability_col": col}


def _means(row: jax.Array, col: jax.Array, squares: jax.Array, decay: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The next averages of the means by row and by column."""
    most = jnp.finfo(squares.dtype).max / squares.size  # keeps the sums finite: mean(r) = ∞ would make every row NaN
    row, col = (averaged(old, jnp.minimum(squares.mean(i), most), decay) for i, old in ((1, row), (0, col)))
    return row, col


def _root(row: jax.Array, col: jax.Array) -> jax.Array:
    """√(rcᵀ/mean(r)), as separate roots: a product of small numbers would underflow."""
    return (sqrt(row) / sqrt(row.mean()))[:, None] * sqrt(col)[None]
