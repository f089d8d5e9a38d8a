"""What preconditioners share that keep statistics for the two sides of a matrix: L for its rows, R for its columns."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...core.values.conditions import cond
from ...core.values.hyper import whole
from ...core.values.numerics import largest, product
from ...core.values.types import DType
from ...core.values.value import static

SIDES = ("both", "shorter", "rows", "columns")

Pair = tuple[jax.Array, jax.Array]
"""An array for the rows and one for the columns. A scalar stands for a side without statistics."""


def update_every_field(what: str, default: int) -> Any:
    """The field for the number of steps between two decompositions."""
    return whole("k", f"steps between two {what}", default=default)


def sides_field(default: str = "both") -> Any:
    """The field for the sides that have statistics."""
    return static("the sides that have statistics", default=default, one_of=SIDES)


def max_precond_dim_field() -> Any:
    """The field for the length up to which sides have statistics."""
    return static("the longest side that has statistics", default=10_000, least=0)


def with_statistics(m: int, n: int, sides: str, longest: int | None = None) -> tuple[bool, bool]:
    """Whether the rows and the columns of an m × n matrix have statistics. A side of length 1 has none."""
    chosen = {
        "both": (True, True),
        "shorter": (m <= n, m > n),
        "rows": (True, False),
        "columns": (False, True),
    }[sides]
    rows, columns = (length > 1 and (longest is None or length <= longest) for length in (m, n))
    return chosen[0] and rows, chosen[1] and columns


def first_bases(m: int, n: int, sides: str, longest: int, dtype: DType) -> dict[str, jax.Array]:
    """The slots L, R, QL, QR and ``failures`` at first: no statistics, and the identity for bases."""
    none, slots = jnp.zeros((), dtype), {}
    for side, length, kept in zip("LR", (m, n), with_statistics(m, n, sides, longest)):
        slots[side] = jnp.zeros((length, length), dtype) if kept else none
        slots[f"Q{side}"] = jnp.eye(length, dtype=dtype) if kept else none
    return {**slots, "failures": jnp.zeros((), jnp.int32)}


def unseen(S: jax.Array) -> jax.Array:
    """Whether statistics are those of no gradient, or of zeros alone; for a stack of them one answer each."""
    return jnp.all(S == 0, (-2, -1))


def begun(old: jax.Array, new: jax.Array, root: jax.Array, of_number: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The inverse root of statistics, or of stacks of them. If they were 0 until now, that of their mean eigenvalue.

    Without a decomposition, so that these are in a condition that is one for all chains of a sweep.
    """
    mean = jnp.trace(new, axis1=-2, axis2=-1)[..., None, None] / new.shape[-1]
    begins = (unseen(old) & ~unseen(new))[..., None, None] & jnp.isfinite(mean)
    identity = jnp.broadcast_to(jnp.eye(new.shape[-1], dtype=new.dtype), new.shape)
    return jnp.where(begins, of_number(jnp.where(begins, mean, 1.0).astype(new.dtype)) * identity, root)


def without_overflow(f: Callable[[jax.Array], jax.Array], M: jax.Array) -> jax.Array:
    """f(M) of a linear function, in which sums may be too large: bounded, so that later links can add to it."""
    most, end = largest(M), jnp.finfo(M.dtype).max / 16
    return jnp.clip(f(M / most) * most, -end, end)


def sandwiched(A: jax.Array, M: jax.Array, B: jax.Array) -> jax.Array:
    """AMB, where a scalar A or B is no factor."""
    M = product(A, M) if A.ndim else M
    return product(M, B) if B.ndim else M


def rotated(M: jax.Array, QL: jax.Array, QR: jax.Array) -> jax.Array:
    """M in the bases, QLᵀ M QR."""
    return sandwiched(QL.mT if QL.ndim else QL, M, QR)


def rotated_back(M: jax.Array, QL: jax.Array, QR: jax.Array) -> jax.Array:
    """The inverse of `rotated`, QL M QRᵀ."""
    return sandwiched(QL, M, QR.mT if QR.ndim else QR)


def rayleigh(S: jax.Array, Q: jax.Array) -> jax.Array:
    """qᵀSq for each column q: the eigenvalues, if the columns are eigenvectors."""
    return jnp.sum(Q * product(S, Q), 0)


class Decomposed(NamedTuple):
    """Eigenvalues and eigenvectors of statistics. Derivatives treat them as constants."""

    values: jax.Array
    """From the largest to the smallest, none negative."""
    vectors: jax.Array
    error: jax.Array
    """The rounding error of the eigenvalues. To divide by smaller ones is to divide by noise."""
    ok: jax.Array
    """Whether all numbers are finite. Those that are not are replaced by 0."""


def decomposed(S: jax.Array) -> Decomposed:
    """The decomposition of a positive semidefinite matrix."""
    values, Q = jnp.linalg.eigh(jax.lax.stop_gradient(S))
    values, ok = _finite(values)
    Q, finite = _finite(Q)
    error = len(S) * jnp.finfo(S.dtype).eps * jnp.maximum(values[-1], 0.0)
    return Decomposed(jnp.maximum(values[::-1], 0.0), Q[:, ::-1], error, ok & finite)


def _finite(x: jax.Array) -> Pair:
    finite = jnp.isfinite(x)
    return jnp.where(finite, x, jnp.zeros_like(x)), jnp.all(finite)


class Bases(NamedTuple):
    """The bases of both sides, and what depends on them."""

    QL: jax.Array
    QR: jax.Array
    nu: jax.Array | None
    """An array in these bases, whose rows and columns are sorted as they are."""
    failures: jax.Array


def refreshed(old: Bases, statistics: Pair, due: jax.Array, first: jax.Array) -> Bases:
    """New bases if they are ``due``: eigenvectors of the statistics at the ``first`` step, and later QR(SQ).

    The latter is a step of the power iteration for all eigenvectors. If a decomposition fails, the old bases are kept.
    """

    def refresh() -> Bases:
        new = cond(first, lambda: _begun(old, statistics), lambda: _iterated(old, statistics))
        ok = jnp.all(jnp.isfinite(new.QL)) & jnp.all(jnp.isfinite(new.QR))
        kept = old._replace(failures=old.failures + 1)
        return jax.tree.map(functools.partial(jnp.where, ok), new, kept)

    return cond(due, refresh, lambda: old)


def _begun(old: Bases, statistics: Pair) -> Bases:
    QL, QR = (_eigenvectors(S) if S.ndim else S for S in statistics)
    return old._replace(QL=QL, QR=QR)


def _eigenvectors(S: jax.Array) -> jax.Array:
    return jnp.linalg.eigh(jax.lax.stop_gradient(S))[1][:, ::-1]


def _iterated(old: Bases, statistics: Pair) -> Bases:
    bases, nu = [], old.nu
    for axis, (S, Q) in enumerate(zip(statistics, old[:2])):
        if S.ndim:
            S, Q = jax.lax.stop_gradient((S, Q))
            SQ = product(S, Q)
            order = jnp.argsort(-jnp.sum(Q * SQ, 0))  # so that QR begins with the largest
            Q = jnp.linalg.qr(SQ[:, order])[0]
            nu = None if nu is None else jnp.take(nu, order, axis, mode="clip")
        bases.append(Q)
    return Bases(bases[0], bases[1], nu, old.failures)
