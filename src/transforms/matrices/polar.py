"""The polar factor of a matrix, UVᴴ of its singular value decomposition UΣVᴴ, by iterated quintic polynomials."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ...core.values.contents import brief
from ...core.values.numerics import largest, sqrt
from ...core.values.types import Scalar
from ...core.values.value import Value, static, value

T = TypeVar("T")
Quintic: TypeAlias = tuple[float, float, float]
"""The coefficients of aX + b(XXᴴ)X + c(XXᴴ)²X."""


class Iteration(Value):
    """Quintic polynomials, applied one after the other to a matrix whose singular values are at most 1."""

    margin: float = 1.0
    """What the matrix's norm is multiplied by before it is divided by it."""

    @property
    def table(self) -> tuple[Quintic, ...]:
        """The coefficients of each step."""
        raise NotImplementedError


def _check_table(where: str, x: object, limits: None) -> tuple[Quintic, ...]:
    try:
        table = tuple((float(a), float(b), float(c)) for a, b, c in x)  # pyright: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError):
        raise ValueError(f"`{where}` must be rows of three coefficients, ((3, -4, 2),), got {brief(x)}") from None
    if not table:
        raise ValueError(f"`{where}` must have at least one row of three coefficients, got {brief(x)}")
    return table


@value
class newton_schulz(Iteration):
    """Newton–Schulz iterations with the coefficients of Jordan et al. 2024, or any others.

    ``coefficients`` has a row for each step; the last is repeated. With the default, singular values above about 0.01
    become numbers between 0.68 and 1.13 in five steps.
    """

    steps: int = static("the number of steps", default=5, least=1)
    coefficients: tuple[Quintic, ...] = static(
        "a row of three for each step; the last is repeated", default=((3.4445, -4.7750, 2.0315),), check=_check_table
    )

    @property
    def table(self) -> tuple[Quintic, ...]:
        rows = self.coefficients
        return tuple(rows[min(i, len(rows) - 1)] for i in range(self.steps))


def _check_share(where: str, x: Any, limits: None) -> float:
    if not isinstance(x, (int, float)) or isinstance(x, bool) or not 0 <= x < 1:
        raise ValueError(f"`{where}` must lie in [0, 1), got {brief(x)}")
    return float(x)


@value
class polar_express(Iteration):
    """The quintics that bring singular values in [``lowest``, 1] nearest to 1. Amsel et al. 2025, arXiv:2505.16932.

    Algorithm 1, with coefficients that are computed when the value is built, by Remez' exchange. As in the published
    code, each polynomial but the last is made for arguments that may be ``1 + safety`` times too large, and no interval
    begins below ``cushion`` times its end.
    """

    steps: int = static("the number of steps", default=5, least=1, most=20)
    lowest: float = static("the smallest singular value that is brought to 1", default=1e-3, check=_check_share)
    safety: float = static("how much larger than expected singular values may be", default=0.02, check=_check_share)
    cushion: float = static("the least ratio of the ends of an interval", default=0.02, check=_check_share)

    @property
    def margin(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 + self.safety

    @property
    def table(self) -> tuple[Quintic, ...]:
        return _polar_express(self.steps, self.lowest, self.safety, self.cushion)

    def check(self) -> None:
        if self.lowest == 0:
            raise ValueError("`polar_express.lowest` must be above 0: no polynomial brings 0 to 1")


@functools.cache
def _polar_express(steps: int, lowest: float, safety: float, cushion: float) -> tuple[Quintic, ...]:
    low, high, found = lowest, 1.0, []
    for i in range(steps):
        a, b, c = nearest_to_1(max(low, cushion * high), high)
        if cushion * high > low:  # center what the polynomial does to the interval around 1
            scale = 2 / sum(a * x + b * x**3 + c * x**5 for x in (low, high))
            a, b, c = a * scale, b * scale, c * scale
        if i < steps - 1:
            a, b, c = a / (1 + safety), b / (1 + safety) ** 3, c / (1 + safety) ** 5
        found.append((a, b, c))
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
    return tuple(found)


def nearest_to_1(low: float, high: float) -> Quintic:
    """The odd quintic nearest to 1 on [low, high]: at four points its error has the largest size and other signs."""
    if low / high >= 1 - 5e-6:  # the limit
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    left, right = (3 * low + high) / 4, (low + 3 * high) / 4
    coefficients, error, before = (0.0, 0.0, 0.0), math.inf, math.nan
    while not abs(before - error) <= 1e-15:
        before = error
        rows = [[x, x**3, x**5, sign] for x, sign in zip((low, left, right, high), (1, -1, 1, -1))]
        *coefficients, error = np.linalg.solve(np.array(rows), np.ones(4)).tolist()
        a, b, c = coefficients = tuple(coefficients)
        root = math.sqrt(9 * b * b - 20 * a * c)  # the extrema lie where the derivative is 0
        left, right = (math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1))
    return coefficients


def polar(M: jax.Array, iteration: Iteration, eps: Scalar, dtype: str | None = None) -> jax.Array:
    """The polar factor of a matrix, nearly. ``dtype`` is that of the iterations, by default M's."""
    if len(M) > M.shape[1]:  # products of the shorter sides are smaller
        return polar(M.mT, iteration, eps, dtype).mT
    # Divided by its largest number first: the squares of large ones would overflow.
    most = largest(M)
    X = M / most.astype(M.dtype)
    norm = iteration.margin * sqrt(jnp.sum(jnp.real(X * X.conj()))) + eps / most
    X = X / norm.astype(M.dtype)
    if dtype is not None and not jnp.iscomplexobj(X):
        X = X.astype(dtype)
    m, n = X.shape
    if n >= 2 * m and X.dtype == M.dtype:
        # Fewer products, with up to 2.6 times the rounding errors. Only CPUs have exact products of float32 numbers.
        on_cpu, others = (functools.partial(f, iteration.table) for f in (_iterated_by_rows, _iterated))
        return jax.lax.platform_dependent(X, cpu=on_cpu, default=others)
    return _iterated(iteration.table, X).astype(M.dtype)


def _iterated(table: tuple[Quintic, ...], X: jax.Array) -> jax.Array:
    """aX + (bA + cA²)X with A = XXᴴ, for each row; A, the bracket and the result are rounded to the dtype of X."""
    wide = X.dtype if X.dtype.itemsize >= 4 else jnp.float32
    product = functools.partial(jnp.matmul, preferred_element_type=wide)

    def step(X: jax.Array, a: Scalar, b: Scalar, c: Scalar) -> jax.Array:
        A = product(X, X.conj().T).astype(X.dtype)
        B = (b * A.astype(wide) + c * product(A, A)).astype(X.dtype)
        return (a * X.astype(wide) + product(B, X)).astype(X.dtype)

    return _loop(table, step, X)


def _iterated_by_rows(table: tuple[Quintic, ...], X: jax.Array) -> jax.Array:
    """The same by products of m × m matrices: the polynomials of A are multiplied, and X once for several steps.

    A is computed from X again after two steps, since its rounding errors grow.
    """
    one = jnp.eye(len(X), dtype=X.dtype)
    for rows in filter(None, (table[:2], table[2:])):
        A, Q = X @ X.conj().T, one
        for i, (a, b, c) in enumerate(rows):
            B = a * one + b * A + c * (A @ A)
            Q = B @ Q if i else B
            A = B @ A @ B if i + 1 < len(rows) else A
        X = Q @ X
    return X


def _loop(table: tuple[Quintic, ...], step: Callable[..., T], x: T) -> T:
    """``step(x, a, b, c)`` for each row, in a loop, since XLA would compile each step of each shape."""
    if len({*table}) == 1:
        return jax.lax.fori_loop(0, len(table), lambda _, x: step(x, *table[0]), x)
    dtype = jax.tree.leaves(x)[0].dtype
    wide = dtype if dtype.itemsize >= 4 else jnp.float32
    return jax.lax.scan(lambda x, row: (step(x, *row), None), x, jnp.asarray(table, wide))[0]
