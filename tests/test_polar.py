"""The polar factor: the published table, its optimality, and what the iterations do to singular values."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.transforms.matrices.polar import nearest_to_1, polar
from matrix_reference import JORDAN, through_svd
from registry import quickly

PUBLISHED = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def random(m: int, n: int, seed: int = 0) -> np.ndarray:
    """A matrix with singular values over two orders of magnitude."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, n)) * np.logspace(-1, 1, n)


def evaluated(coefficients: Any, x: np.ndarray) -> np.ndarray:
    """The quintic at x."""
    a, b, c = coefficients
    return a * x + b * x**3 + c * x**5


# The table of Polar Express


def test_table_is_the_published_one() -> None:
    """Amsel et al. 2025, the five tuples of their code."""
    np.testing.assert_allclose(cx.polar_express().table, PUBLISHED, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("low", "high"), ((1e-3, 1.0), (0.02, 1.0), (0.3, 1.7), (0.9, 1.1)))
def test_error_equioscillates(low: float, high: float) -> None:
    """At four points the error is the largest, with alternating signs: by Chebyshev's theorem no other is as small."""
    x = np.linspace(low, high, 200_001)
    error = 1 - evaluated(nearest_to_1(low, high), x)
    largest = np.max(np.abs(error))
    at = np.flatnonzero(np.abs(error) > largest * (1 - 1e-6))
    signs = [s for i, s in enumerate(np.sign(error[at])) if i == 0 or s != np.sign(error[at[i - 1]])]
    assert signs == [1, -1, 1, -1]
    for seed in range(5):  # and indeed
        nearby = np.array(nearest_to_1(low, high)) * (1 + 1e-3 * np.random.default_rng(seed).normal(size=3))
        assert np.max(np.abs(1 - evaluated(nearby, x))) > largest


def test_short_interval_has_the_limit() -> None:
    """Where the four points nearly coincide: the quintic with three derivatives of 1."""
    np.testing.assert_allclose(nearest_to_1(1 - 1e-7, 1.0), (15 / 8, -10 / 8, 3 / 8))
    np.testing.assert_allclose(nearest_to_1(1 - 1e-5, 1.0), (15 / 8, -10 / 8, 3 / 8), rtol=1e-3)


def test_intervals_end_near_1() -> None:
    """Without margins, each singular value from the lowest to 1 is brought to 1, the more steps the nearer."""
    x, errors = np.geomspace(1e-3, 1, 10_000), []
    for steps in (5, 6, 8, 12):
        y = x
        for row in cx.polar_express(steps=steps, safety=0.0, cushion=0.0).table:
            y = evaluated(row, y)
        errors.append(np.max(np.abs(1 - y)))
    assert errors[0] < 0.2
    assert errors[1] < 2e-2
    assert errors[2] < 1e-12
    assert errors[3] < 1e-12


# The factor


@pytest.mark.parametrize("iteration", (cx.newton_schulz(), cx.polar_express()), ids=repr)
@pytest.mark.parametrize("shape", ((5, 5), (4, 7), (3, 12), (9, 4)), ids=str)
def test_singular_values_follow_the_polynomials(iteration: Any, shape: tuple[int, int], x64: None) -> None:
    """The whole is U·f(Σ)·Vᵀ, for long matrices too, whose products are arranged otherwise; ε is added to the norm."""
    M = random(*shape)
    for eps in (1e-7, 0.3):
        got = quickly(lambda M, eps: polar(M, iteration, eps))(jnp.asarray(M), eps)
        expected = through_svd(M, iteration.table, eps, iteration.margin)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


def test_singular_values_are_nearly_1() -> None:
    """Those above a hundredth of the norm, after the five steps of Jordan, lie between 0.68 and 1.13."""
    M = random(12, 12)
    before = np.linalg.svd(M, compute_uv=False) / np.linalg.norm(M)
    after = np.linalg.svd(polar(jnp.asarray(M, jnp.float32), cx.newton_schulz(), 1e-7), compute_uv=False)
    assert before.min() < 0.02
    assert np.all((after[before > 0.01] > 0.68) & (after[before > 0.01] < 1.14))
    after = np.linalg.svd(polar(jnp.asarray(M, jnp.float32), cx.polar_express(10), 0.0), compute_uv=False)
    np.testing.assert_allclose(after, 1, atol=1e-4)


def test_complex_matrices(x64: None) -> None:
    """The factor of AUB is A times that of U times B for unitary A and B, and so is that of a complex matrix UΣVᴴ."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    M, A, B = draw(3, 8), np.linalg.qr(draw(3, 3))[0], np.linalg.qr(draw(8, 8))[0]
    factor = quickly(lambda M: polar(M, cx.newton_schulz(), 1e-7))
    np.testing.assert_allclose(factor(jnp.asarray(M)), through_svd(M, JORDAN), atol=1e-10)
    np.testing.assert_allclose(factor(jnp.asarray(A @ M @ B)), A @ factor(jnp.asarray(M)) @ B, atol=1e-10)
    exact = polar(jnp.asarray(M), cx.polar_express(10), 0.0)
    np.testing.assert_allclose(exact @ exact.conj().T, np.eye(3), atol=1e-10)


@pytest.mark.parametrize("size", (1e25, 1e-25))
def test_size_does_not_matter(size: float) -> None:
    """The squares of these numbers are no float32."""
    M = jnp.asarray(random(4, 6), jnp.float32)
    plain = polar(M, cx.newton_schulz(), 0.0)
    np.testing.assert_allclose(polar(M * size, cx.newton_schulz(), 0.0), plain, atol=1e-5)


def test_zeros() -> None:
    """They stay zeros, with finite derivatives; ε alone is in the denominator."""
    zeros = jnp.zeros((3, 4))
    for iteration in (cx.newton_schulz(), cx.polar_express()):
        assert np.all(polar(zeros, iteration, 1e-7) == 0)
        slope = jax.grad(lambda M, i=iteration: polar(M, i, 1e-7).sum())(zeros)
        assert np.all(np.isfinite(slope))
    small = polar(jnp.full((1, 1), 1e-9), cx.newton_schulz(1), 1e-7)
    x = 1e-2 / 1.01
    np.testing.assert_allclose(small, 3.4445 * x - 4.775 * x**3, rtol=1e-5)


def test_bfloat16_iterations() -> None:
    """As published: rounded after each product, and so near to the others only to a few percent."""
    M = jnp.asarray(random(8, 12), jnp.float32)
    exact, rounded = (polar(M, cx.newton_schulz(), 1e-7, dtype) for dtype in (None, "bfloat16"))
    assert rounded.dtype == jnp.float32
    assert np.all(rounded == rounded.astype(jnp.bfloat16).astype(jnp.float32))
    distance = np.linalg.norm(exact - rounded) / np.linalg.norm(exact)
    assert 1e-4 < distance < 0.05


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    (
        (lambda: cx.newton_schulz(coefficients=3), "must be rows of three coefficients"),  # pyright: ignore
        (lambda: cx.newton_schulz(coefficients="abc"), "must be rows of three coefficients"),  # pyright: ignore
        (lambda: cx.newton_schulz(coefficients=((1, 2),)), "must be rows of three coefficients"),  # pyright: ignore
        (lambda: cx.newton_schulz(coefficients=()), "must have at least one row"),
        (lambda: cx.newton_schulz(steps=0), "must be a whole number from 1, got 0"),
        (lambda: cx.polar_express(steps=21), "must be 20 at most"),
        (lambda: cx.polar_express(lowest=0), "must be above 0: no polynomial brings 0 to 1"),
        (lambda: cx.polar_express(lowest=1.0), r"`polar_express.lowest` must lie in \[0, 1\), got 1"),
        (lambda: cx.polar_express(safety=-0.1), r"must lie in \[0, 1\)"),
        (lambda: cx.scale_by_muon(iteration="newton"), r"must be newton_schulz\(...\) or polar_express\(...\)"),
    ),
)
def test_bad_tables(make: Any, message: str) -> None:
    """The field, what came, and what is accepted."""
    with pytest.raises(ValueError, match=message):
        make()


def test_last_row_is_repeated() -> None:
    """As in Optax and pytorch_optimizer."""
    rows = ((4.0, -6.0, 3.0), (2.0, -1.5, 0.5))
    assert cx.newton_schulz(4, rows).table == (rows[0], rows[1], rows[1], rows[1])
