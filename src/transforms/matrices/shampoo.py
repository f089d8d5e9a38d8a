"""Shampoo: divide by roots of the statistics of both sides."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.conditions import cond
from ...core.values.hyper import Hyper, OptionalHyper, hyper, integer
from ...core.values.numerics import mul, product
from ...core.values.types import Scalar
from ...core.values.value import static
from .kronecker import (
    Pair,
    begun,
    decomposed,
    sandwiched,
    sides_field,
    unseen,
    update_every_field,
    with_statistics,
    without_overflow,
)


class Grid(NamedTuple):
    """A matrix cut into blocks of one shape, m × n each, with rows and columns of zeros at its end if it needs them."""

    rows: int
    columns: int
    """The numbers of blocks along each side."""
    m: int
    n: int

    def cut(self, M: jax.Array) -> jax.Array:
        """The blocks, [number, m, n]."""
        missing = self.rows * self.m - M.shape[0], self.columns * self.n - M.shape[1]
        M = jnp.pad(M, [(0, missing[0]), (0, missing[1])]) if any(missing) else M
        blocks = M.reshape(self.rows, self.m, self.columns, self.n).transpose(0, 2, 1, 3)
        return blocks.reshape(-1, self.m, self.n)

    def join(self, blocks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The inverse of `cut`, for a matrix of this shape."""
        M = blocks.reshape(self.rows, self.columns, self.m, self.n).transpose(0, 2, 1, 3)
        return M.reshape(self.rows * self.m, self.columns * self.n)[: shape[0], : shape[1]]


def grid(m: int, n: int, most: int) -> Grid:
    """The grid of the fewest blocks with at most ``most`` rows and columns, of nearly equal lengths."""
    rows, columns = max(1, -(-m // most)), max(1, -(-n // most))
    return Grid(rows, columns, -(-m // rows), -(-n // columns))


@transform
class scale_by_shampoo(Matrixwise):
    """Multiply by inverse roots of the sums of uuᵀ and uᵀu. Gupta et al. 2018, arXiv:1802.09568, Algorithm 1.

    As by Anil et al. 2020, arXiv:2002.09018, a large matrix is cut into blocks of at most ``block_size`` rows and
    columns, each with statistics of its own, and the roots are computed at the first of every ``update_every`` steps.
    The blocks of a matrix are equally long, to one row or column. With ``b2`` below 1 the statistics are moving
    averages; ε, which is added when a root is taken, then does not decay. A side of length 1 has no statistics, and p
    is 2 without those of the other side: for a vector it is Algorithm 2 with a tensor of order 1. With ``sides``
    "shorter" only the shorter side has statistics, with "rows" the inputs, with "columns" the outputs.

    The state of a block of m × n has 2m² + 2n² numbers, and each matrix a number of ``failures``: of roots that were
    not finite, in place of which the old ones are kept. The first are the identity; after gradients of 0, those of the
    mean eigenvalue, until roots are due.
    """

    b2: Hyper = hyper("β₂", "decay of the statistics; 1 for their sum", default=1.0, high=1.0, closed=True)
    eps: Hyper = hyper("ε", "added to the eigenvalues of the statistics", default=1e-6)
    exponent: OptionalHyper = hyper(
        "p", "the root that is taken; by default twice the number of sides", default=None, optional=True, open=True
    )
    update_every: Hyper = update_every_field("computations of the roots", default=10)
    block_size: int = static("the most rows and columns of a block", default=1024, least=1)
    sides: str = sides_field()

    slots = ("L", "R", "PL", "PR", "failures")  # Σuuᵀ, Σuᵀu, their inverse roots
    factors = slots
    role = "precondition"
    decomposes = True
    equation = (
        "L ← β₂L + (1−β₂, or 1 if β₂ = 1)uuᵀ,  R ← β₂R + (1−β₂, or 1)uᵀu,  "
        "u ← PᴸuPᴿ,  Pᴸ = (L + εI)^(−1/p),  Pᴿ = (R + εI)^(−1/p) every k steps"
    )

    def init_matrix(self, m, n, dtype):
        blocks, slots = grid(m, n, self.block_size), {}
        for side, length, kept in zip("LR", (blocks.m, blocks.n), with_statistics(blocks.m, blocks.n, self.sides)):
            one = jnp.eye(length, dtype=dtype) if kept else jnp.zeros((), dtype)
            slots[f"P{side}"] = jnp.broadcast_to(one, (blocks.rows * blocks.columns, length, length)) if kept else one
            slots[side] = jnp.zeros_like(slots[f"P{side}"])
        return {**slots, "failures": jnp.zeros((), jnp.int32)}

    def scalars(self, at):
        return at.phase(integer(self.update_every, at.dtype), 1.0) < 1

    def matrix(self, M, slot, due):
        m, n = M.shape
        blocks = grid(m, n, self.block_size)
        G = blocks.cut(M)
        L = self.added(slot.L, product(G, G.mT)) if slot.L.ndim else slot.L
        R = self.added(slot.R, product(G.mT, G)) if slot.R.ndim else slot.R
        p = 2 * ((L.ndim > 0) + (R.ndim > 0)) if self.exponent is None else self.exponent
        root = functools.partial(inverse_root, eps=self.eps, p=p)
        first = functools.partial(begun, of_number=lambda x: (x + self.eps) ** (-1 / p))
        PL = first(slot.L, L, slot.PL) if L.ndim else slot.PL
        PR = first(slot.R, R, slot.PR) if R.ndim else slot.PR
        old = (PL, PR), slot.failures
        (PL, PR), failures = cond(due, lambda: renewed(root, (L, R), *old), lambda: old)
        u = blocks.join(without_overflow(lambda G: sandwiched(PL, G, PR), G), M.shape)
        return u, {"L": L, "R": R, "PL": PL, "PR": PR, "failures": failures}

    def added(self, old: jax.Array, new: jax.Array) -> jax.Array:
        """The next sum of statistics, or their average."""
        if isinstance(self.b2, float) and self.b2 == 1:
            return old + new
        return mul(self.b2, old) + mul(jnp.where(self.b2 < 1, 1 - self.b2, 1.0), new)


Root = Callable[[jax.Array, jax.Array], Pair]
"""Of the statistics of a block and the root that it had: the root that it has from now on, and whether it failed."""


def renewed(root: Root, statistics: Pair, old: Pair, failures: jax.Array) -> tuple[Pair, jax.Array]:
    """The roots of the blocks of both sides, and the number of failures with those that failed now."""
    made = []
    for S, P in zip(statistics, old):
        if S.ndim:
            P, failed = _one_by_one(root, S, P)
            failures = failures + jnp.sum(failed, dtype=failures.dtype)
        made.append(P)
    return (made[0], made[1]), failures


def _one_by_one(root: Root, S: jax.Array, P: jax.Array) -> Pair:
    if len(S) > 1:
        return jax.lax.map(lambda x: root(*x), (S, P))
    return jax.tree.map(lambda x: x[None], root(S[0], P[0]))


def inverse_root(S: jax.Array, old: jax.Array, eps: Scalar, p: Scalar) -> Pair:
    """(S + εI)^(−1/p), and False; or ``old`` and True, if it is not finite. While S is 0, ``old`` and False."""
    values, Q, error, ok = decomposed(S)
    none = unseen(S)
    values = jnp.maximum(values + eps, error)
    ok &= jnp.all(values > 0)
    powers = jnp.where(values > 0, values, 1.0) ** (-1 / p)
    return jnp.where(ok & ~none, product(Q * powers[None], Q.T), old), ~(ok | none)
