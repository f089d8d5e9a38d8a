"""Scion's linear minimization oracles: the point of a norm's unit ball farthest along the update."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import largest, mul, sqrt
from ...core.values.value import derived, static
from .muon import dtype_field, iteration_field
from .polar import polar

NORMS = {
    "spectral": "√(n/m)·polar factor of u, its norm plus ε",
    "rows": "each row of u / (its root mean square + ε)",
    "columns": "each column of u / (√m·its norm + ε)",
    "sign": "sign(u) / m, without ε",
}
"""What the oracle of each norm makes of an m × n matrix, with m inputs and n outputs."""


@transform
class scale_by_lmo(Matrixwise):
    """The linear minimization oracle of a norm, with its sign flipped. Pethick et al. 2025, arXiv:2502.07529, Table 2.

    For an m × n matrix, with m inputs and n outputs, ``norm`` is "spectral" for hidden layers; "rows" for embeddings,
    and for biases with ``matrices=", out"``; "columns" or "sign" for the last layer. The paper's matrices are
    transposed, so its ColNorm is "rows" and its RowNorm "columns". Embeddings with the sign alone, without 1/m, are
    left to `scale_by_sign`. For convolutions of k × k taps, the paper has the "spectral" one divided by k once more.

    It keeps no momentum: put it after ``ema(0.9)``.
    """

    norm: str = static("the norm of the ball", default="spectral", one_of=tuple(NORMS))
    radius: Hyper = hyper("ρ", "radius of the ball", default=1.0)
    eps: Hyper = hyper("ε", "added to the denominator", default=1e-8)
    iteration: Any = iteration_field()
    dtype: str | None = dtype_field()

    role = "precondition"

    @derived
    def orthogonalizes(self) -> bool:
        return self.norm == "spectral"

    @derived
    def fixes_norm(self) -> bool:
        return self.norm != "spectral"

    @derived
    def hides_infinite(self) -> bool:
        return self.norm == "sign"

    @derived
    def equation(self) -> str:
        return f"u ← ρ·{NORMS[self.norm]}"

    def matrix(self, M, slot, scalars):
        if self.norm == "spectral":
            return mul(self.radius, polar(M, self.iteration, self.eps, self.dtype))
        if self.norm == "sign":
            return mul(self.radius, jnp.sign(M))
        most = largest(M)  # the squares of large numbers would overflow
        scaled, axis = M / most, 1 if self.norm == "rows" else 0
        norms = sqrt(jnp.square(scaled).sum(axis, keepdims=True))
        norms = norms / math.sqrt(M.shape[1]) if self.norm == "rows" else norms * math.sqrt(len(M))
        return mul(self.radius, scaled / (norms + self.eps / most))

    def size(self, m, n):
        return {"spectral": math.sqrt(n / m), "sign": 1 / m}.get(self.norm, 1.0)
