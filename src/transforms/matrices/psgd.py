"""Preconditioned SGD (PSGD): a Kronecker-factored preconditioner that is fitted step by step to whiten the gradient."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.lax.linalg import triangular_solve

from ...core.facade.link import transform
from ...core.facade.matrixwise import Matrixwise
from ...core.values.conditions import cond
from ...core.values.hyper import Hyper, hyper, prng_seed, whole
from ...core.values.numerics import averaged, largest, mul, norm, product, safe_div, sqrt
from ...core.values.types import DType, Scalar
from ...core.values.value import static
from ...schedules.basic import exponential_decay
from ..clipping.blocks import bounding

PUBLISHED = exponential_decay(1.0, 1000, math.exp(-1), 500, end_value=0.03)
"""How often the preconditioner is updated: at every step at first, and from step 4007 on at 3 % of them."""

Pair: TypeAlias = tuple[jax.Array, jax.Array]
"""An array for the rows and one for the columns."""


def _check_skew(where: str, x: Any, limits: None) -> float:
    if not isinstance(x, (int, float)) or isinstance(x, bool) or not x >= 0:
        raise ValueError(f"`{where}` must be a number from 0, or math.inf, got {x!r}")
    return float(x)


def _longest_field() -> Any:
    return static("the longest side with a matrix; longer ones have a diagonal", default=8192, least=1)


@transform
class scale_by_psgd_kron(Matrixwise):
    """Whiten the momentum by triangular Kronecker factors. Li 2015, 2018, arXiv:1512.04202, arXiv:1802.02780.

    The preconditioner of an m × n matrix is a product of QᴸᵀQᴸ on its rows and QᴿᵀQᴿ on its columns, where Qᴸ (m × m)
    and Qᴿ (n × n) are upper triangular. They approach the inverse roots of the two covariances. A side longer than
    ``max_size``, or than ``max_skew`` times the other, has a diagonal Q of its length; a vector has only that.
    Departs from the published code in that nothing random decides when to update: an update is due 1/p steps after the
    last, as in kron-torch, and every ``balance_interval`` updates the largest entries of the two Q are made equal.
    Nor is the preconditioner updated while a matrix is zero, since it would grow without end. ``failures`` counts the
    updates that were not finite; they are dropped.
    """

    momentum: Hyper = hyper("β", "decay of the momentum", default=0.9, high=1.0)
    precond_lr: Hyper = hyper("η", "step size of the preconditioner", default=0.1)
    precond_update_prob: Hyper = hyper(
        "p", "fraction of the steps that update the preconditioner", default=PUBLISHED, high=1.0, closed=True
    )
    damping: Hyper = hyper("δ", "noise for the fit, relative to the mean size of an entry", default=2.0**-11.5)
    clipping_threshold: Hyper = hyper("d", "the largest root mean square; ∞ for no bound", default=1.1, closed=True)
    balance_interval: Hyper = whole("k", "updates of the preconditioner between two balancings", default=100)
    max_size: int = _longest_field()
    max_skew: float = static(
        "the largest length of a side with a matrix, as a multiple of the other", default=math.inf, check=_check_skew
    )
    seed: jax.Array | int = prng_seed("seed of the noise that the preconditioner is fitted with")

    slots = ("mu", "Q_row", "Q_col", "steps_since_update", "updates_since_balance", "failures")
    factors = ("Q_row", "Q_col", "steps_since_update", "updates_since_balance", "failures")
    nonnegative = ("steps_since_update", "updates_since_balance")
    equation = (
        "m ← βm + (1−β)u;  at a fraction p of the steps  A = Qᴸ(m̂ + δ·mean|m̂|·V)Qᴿᵀ, B = Qᴸ⁻ᵀVQᴿ⁻¹, V ~ N(0, 1), "
        "Qᴸ ← Qᴸ − η·triu(AAᵀ−BBᵀ)/‖AAᵀ+BBᵀ‖·Qᴸ, Qᴿ likewise by AᵀA and BᵀB, balanced every k times;  "
        "u ← QᴸᵀQᴸm̂QᴿᵀQᴿ,  u ← u·min(1, d/RMS(u))"
    )
    role = "precondition"
    random = True
    decomposes = True

    def init_matrix(self, m, n, dtype):
        counts = {name: jnp.zeros((), dtype) for name in self.nonnegative}
        none = jnp.zeros((), jnp.int32)
        return {**_identities(m, n, dtype, self.max_size, self.max_skew), **counts, "failures": none}

    def scalars(self, at):
        return at.debias(self.momentum)

    def leaf(self, u, slot, p, debias):
        m = averaged(slot.mu, u, self.momentum)
        return mul(m, debias), {"mu": m}

    def matrix(self, M, slot, scalars):
        waited = slot.steps_since_update + 1
        due = waited * self.precond_update_prob >= 1 - 1e-6  # after 1/p steps, although p is rounded
        old = (slot.Q_row, slot.Q_col), waited, slot.updates_since_balance, slot.failures
        # A condition, since matrices of a link that decomposes are not a batch, in which both branches would run.
        Q, waited, updates, failures = cond(due, lambda: self.fitted(M, slot), lambda: old)
        u = _bounded(_preconditioned(Q, M), self.clipping_threshold)
        counts = {"steps_since_update": waited, "updates_since_balance": updates, "failures": failures}
        return u, {"Q_row": Q[0], "Q_col": Q[1], **counts}

    def fitted(self, M: jax.Array, slot: SimpleNamespace) -> tuple[Pair, jax.Array, jax.Array, jax.Array]:
        """The factors after one step towards those that whiten M, and the counts."""
        old, updates = (slot.Q_row, slot.Q_col), slot.updates_since_balance + 1
        balances = updates >= jnp.asarray(self.balance_interval, updates.dtype)
        Q = _balanced(old, balances)
        V = self.noise(slot.key, M)
        A = _applied(Q, M + self.damping * jnp.abs(M).mean() * V)
        B = _divided(Q, V)
        # The step is the same for both divided by one number, and their squares might overflow.
        most = jnp.maximum(largest(A), largest(B))
        A, B = A / most, B / most
        rate = jnp.where(jnp.any(M != 0), jnp.asarray(self.precond_lr, M.dtype), jnp.zeros((), M.dtype))
        new = _triangular_step(Q[0], A, B, rate), _triangular_step(Q[1], A.T, B.T, rate)
        kept, failures = _finite_or((new, slot.failures), (old, slot.failures + 1))
        none = jnp.zeros_like(updates)
        return kept, none, jnp.where(balances, none, updates), failures

    def noise(self, key: jax.Array, M: jax.Array) -> jax.Array:
        """Standard normal numbers, one for each entry of M."""
        return jax.random.normal(key, M.shape, M.dtype)


@transform
class scale_by_psgd_quad(Matrixwise):
    """Whiten the momentum by symmetric Kronecker factors, without triangular solves: PSGD-QUAD, in Li's psgd_torch.

    The update is quadratic in 1 − s(S − n). The factors start at the multiples of the identity that bring the first
    gradient other than 0 to an RMS of 1, and the momentum starts at that of the first step. Sides that are long or
    skewed have a diagonal Q, and failures are counted, as in `scale_by_psgd_kron`. Every 100 steps the largest entries
    of the two Q are made equal. The published code also multiplies the learning rate by 0.2, as `quad` does.
    """

    momentum: Hyper = hyper("β", "decay of the momentum", default=0.95, high=1.0)
    precond_lr: Hyper = hyper("η", "first step size of the preconditioner", default=0.7)
    min_precond_lr: Hyper = hyper("η̲", "its smallest step size", default=0.3)
    noise_scale: Hyper = hyper("δ", "standard deviation of the noise for the fit", default=1e-9)
    clipping_threshold: Hyper = hyper("d", "the largest root mean square; ∞ for no bound", default=1.05, closed=True)
    max_size: int = _longest_field()
    max_skew: float = static(
        "the largest length of a side with a matrix, as a multiple of the other", default=1.0, check=_check_skew
    )
    seed: jax.Array | int = prng_seed("seed of the noise that the preconditioner is fitted with")

    slots = ("mu", "Q_row", "Q_col", "L_row", "L_col", "failures")  # L: the largest curvature of the fit so far
    factors = ("Q_row", "Q_col", "L_row", "L_col", "failures")
    nonnegative = ("L_row", "L_col")
    equation = (
        "m ← βm + (1−β)u,  P = Qᴸ²(m + δN(0, 1))Qᴿ²,  S = PPᵀ,  L ← max(‖S‖ + n, 0.95L + 0.05(‖S‖ + n)),  "
        "Qᴸ ← symmetric part of (1 − s(S−n))Qᴸ(1 − s(S−n)), s = max(η/√(1+t/10⁴), η̲)/2L,  Qᴿ likewise by PᵀP and m;  "
        "u ← Qᴸ²mQᴿ²,  u ← u·min(1, d/RMS(u))"
    )
    role = "precondition"
    random = True

    def init_matrix(self, m, n, dtype):
        numbers = {name: jnp.zeros((), dtype) for name in self.nonnegative}
        none = jnp.zeros((), jnp.int32)
        return {**_identities(m, n, dtype, self.max_size, self.max_skew), **numbers, "failures": none}

    def scalars(self, at):
        rate = jnp.maximum(self.precond_lr / sqrt(1 + at.step / 10_000), self.min_precond_lr)
        return at.count == 1, rate, at.phase(100.0) < 1

    def leaf(self, u, slot, p, scalars):
        m = jnp.where(scalars[0], u, averaged(slot.mu, u, self.momentum))
        return m, {"mu": m}

    def matrix(self, M, slot, scalars):
        _, rate, balances = scalars
        old = slot.Q_row, slot.Q_col
        first = (slot.L_row == 0) & (slot.L_col == 0)  # later they are the length of a side, or more
        size = jnp.hypot(_rms(M), jnp.asarray(self.noise_scale, M.dtype))
        size = jnp.where(first & (size > 0) & jnp.isfinite(size), size, jnp.ones_like(size))
        sides = sum(q.ndim > 0 for q in old)
        start = _balanced((old[0] * size ** (-0.5 / sides), old[1] * size ** (-0.5 / sides)), balances)
        P = _preconditioned(start, M + self.noise_scale * self.noise(slot.key, M))
        row, L_row = _quadratic_step(start[0], slot.L_row, P, rate)
        col, L_col = _quadratic_step(start[1], slot.L_col, P.T, rate)
        kept = start, (slot.L_row, slot.L_col), slot.failures + 1
        Q, L, failures = _finite_or(((row, col), (L_row, L_col), slot.failures), kept)
        none = first & jnp.all(M == 0)  # the factors would start at those that whiten the noise
        Q, L = jax.tree.map(functools.partial(jnp.where, none), (old, (slot.L_row, slot.L_col)), (Q, L))
        u = _bounded(_preconditioned(Q, M), self.clipping_threshold)
        return u, {"Q_row": Q[0], "Q_col": Q[1], "L_row": L[0], "L_col": L[1], "failures": failures}

    def noise(self, key: jax.Array, M: jax.Array) -> jax.Array:
        """Standard normal numbers, one for each entry of M."""
        return jax.random.normal(key, M.shape, M.dtype)


# Factors: a matrix, the diagonal of one, or a scalar for a side without one


def _identities(m: int, n: int, dtype: DType, max_size: int, max_skew: float) -> dict[str, jax.Array]:
    def one(size: int, other: int) -> jax.Array:
        diagonal = other == 1 or size > max_size or size > max_skew * other
        return jnp.ones(size, dtype) if diagonal else jnp.eye(size, dtype=dtype)

    none = jnp.zeros((), dtype)
    return {"Q_row": one(m, n) if m > 1 else none, "Q_col": one(n, m) if n > 1 or m == 1 else none}


def _times(Q: jax.Array, M: jax.Array) -> jax.Array:
    """QM."""
    if Q.ndim == 2:
        return product(Q, M)
    return Q[:, None] * M if Q.ndim else M


def _applied(Q: Pair, M: jax.Array) -> jax.Array:
    """QᴸMQᴿᵀ."""
    return _times(Q[1], _times(Q[0], M).T).T


def _preconditioned(Q: Pair, M: jax.Array) -> jax.Array:
    """QᴸᵀQᴸMQᴿᵀQᴿ."""
    return _applied((Q[0].T, Q[1].T), _applied(Q, M))


def _divided(Q: Pair, M: jax.Array) -> jax.Array:
    """Qᴸ⁻ᵀMQᴿ⁻¹."""

    def one(q: jax.Array, M: jax.Array) -> jax.Array:
        if q.ndim == 2:
            return triangular_solve(q, M, left_side=True, transpose_a=True)
        return M / q[:, None] if q.ndim else M

    return one(Q[1], one(Q[0], M).T).T


def _gram(Q: jax.Array, A: jax.Array) -> jax.Array:
    """AAᵀ, or its diagonal where Q is one."""
    return _times(A, A.T) if Q.ndim == 2 else jnp.square(A).sum(1)


def _balanced(Q: Pair, balances: jax.Array) -> Pair:
    """The factors with equal largest entries, and the same product."""
    if not Q[0].ndim or not Q[1].ndim:
        return Q
    row, col = (jnp.abs(q).max() for q in Q)
    ratio = jnp.where(balances, sqrt(col) / sqrt(row), jnp.ones_like(row))
    return Q[0] * ratio, Q[1] / ratio


def _triangular_step(Q: jax.Array, A: jax.Array, B: jax.Array, rate: jax.Array) -> jax.Array:
    if not Q.ndim:
        return Q
    new, old = _gram(Q, A), _gram(Q, B)
    if Q.ndim == 1:
        return Q - safe_div(rate, (new + old).max()) * (new - old) * Q
    return Q - _times(safe_div(rate, _norm_from_below(new + old)) * jnp.triu(new - old), Q)


def _quadratic_step(Q: jax.Array, L: jax.Array, P: jax.Array, rate: Scalar) -> Pair:
    """The next Q and L."""
    if not Q.ndim:
        return Q, L
    S, target = _gram(Q, P), P.shape[1]
    size = (_norm_from_below(S) if Q.ndim == 2 else S.max()) + target
    L = jnp.maximum(0.95 * L + 0.05 * size, size)
    step = rate / (2 * L)
    if Q.ndim == 1:
        return Q * jnp.square(1 - step * (S - target)), L
    Q = Q - step * (_times(S, Q) - target * Q)
    Q = Q - step * (_times(Q, S) - target * Q)
    return (Q + Q.T) / 2, L


def _norm_from_below(S: jax.Array) -> jax.Array:
    """A lower bound of the spectral norm of a symmetric matrix: two power iterations from its largest column."""
    most = jnp.abs(S).max()
    S = safe_div(S, jnp.broadcast_to(most, S.shape))
    x = _times(S, jnp.take(S, jnp.square(S).sum(0).argmax(), axis=1)[:, None])
    return most * norm(_times(S, safe_div(x, jnp.broadcast_to(norm(x), x.shape))))


def _rms(x: jax.Array) -> jax.Array:
    """The root mean square, also where squares overflow or underflow."""
    return norm(x) / x.size**0.5


def _bounded(u: jax.Array, threshold: Scalar) -> jax.Array:
    """The update with an RMS of at most ``threshold``."""
    return u * bounding(_rms(u), jnp.asarray(threshold, u.dtype))


def _finite_or(new: Any, old: Any) -> Any:
    """The new values if all numbers are finite, else the old."""
    finite = jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(new)]))
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
