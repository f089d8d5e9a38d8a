"""Dion: a low-rank polar factor of the momentum, by one step of the power iteration."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import largest, product, sqrt
from ...core.values.value import check_count, derived, static
from .muon import SIZES, sized, sizing_field


def _check_fraction(where: str, x: object, limits: None) -> float:
    if not isinstance(x, (int, float)) or isinstance(x, bool) or not 0 < x <= 1:
        raise ValueError(f"`{where}` must lie in (0, 1], got {x!r}")
    return float(x)


def _check_rank(where: str, x: object, limits: None) -> int | None:
    return None if x is None else check_count(where, x, 1, None)


@transform
class scale_by_dion(Matrixwise):
    """Orthogonalize the largest part of the momentum, of low rank, and keep the rest.

    Ahn et al. 2025, arXiv:2504.05295, Algorithm 1, with r columns for an m × n matrix, m inputs and n outputs:
    ``rank_fraction`` of the smaller side, rounded up, but no more than ``rank``. The columns of Q are those of the last
    step, and random at first. A column of R that is 0, up to rounding, moves nothing and keeps its column of Q, where
    the paper divides by 0. Derivatives take P as constant.
    """

    momentum: Hyper = hyper("μ", "what stays of the part that the update has", default=0.95, high=1.0)
    rank_fraction: float = static("the rank, as a fraction of the smaller side", default=1.0, check=_check_fraction)
    rank: int | None = static("the largest rank", default=None, check=_check_rank)
    sizing: str = sizing_field("mup")

    slots = ("mu", "Q")
    matrix_slots = ("mu",)
    factors = ("Q",)
    decomposes = True
    role = "precondition"
    fixes_norm = True

    @derived
    def equation(self) -> str:
        return (
            "M ← M + u,  P = orthonormal columns of MᵀQ,  R = MP,  M ← M − (1−μ)RPᵀ,  Q ← R with unit columns,  "
            f"u ← {sized(self.sizing, 'QPᵀ')}"
        )

    def init_matrix(self, m, n, dtype):
        rank = math.ceil(self.rank_fraction * min(m, n))
        rank = rank if self.rank is None else min(rank, self.rank)
        return {"Q": jax.random.normal(jax.random.key(0), (m, rank), dtype)}

    def matrix(self, M, slot, scalars):
        M = slot.mu + M
        most = largest(M)  # the squares of large numbers would overflow
        B = M / most
        P = jnp.linalg.qr(jax.lax.stop_gradient(product(B.T, slot.Q)))[0]
        R = product(B, P)
        squares = jnp.square(R).sum(0)
        rounding = math.sqrt(max(M.shape)) * float(jnp.finfo(M.dtype).eps)
        some = squares > rounding**2 * squares.sum()
        unit = jnp.where(some[None], R / sqrt(jnp.where(some, squares, 1.0))[None], 0.0)
        M = M - (1 - self.momentum) * most * product(R, P.T)
        return product(unit, P.T), {"mu": M, "Q": jnp.where(some[None], unit, slot.Q)}

    def size(self, m, n):
        return SIZES[self.sizing][1](m, n)
