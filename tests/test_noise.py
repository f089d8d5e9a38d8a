"""Noisy SGD, by the distribution of its noise: against the formula and Optax."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

PARAMS = {"a": jnp.zeros((300, 200)), "b": jnp.zeros(100), "c": jnp.zeros(100)}


def noise(tx: Any, steps: int, params: Any = PARAMS) -> list[Any]:
    """What each step adds to gradients of 0."""
    state, update, drawn = tx.init(params), jax.jit(tx.update), []
    for _ in range(steps):
        u, state = update(params, state, params)
        drawn.append(u)
    return drawn


def moments(draw: jax.Array) -> list[float]:
    """Mean, standard deviation, skewness and kurtosis."""
    x = np.asarray(draw, np.float64)
    z = (x - x.mean()) / x.std()
    return [float(m) for m in (x.mean(), x.std(), np.mean(z**3), np.mean(z**4))]


@pytest.mark.parametrize(("eta", "gamma"), ((0.01, 0.55), (4.0, 2.0), (0.5, 0.0)))
def test_distribution(eta: float, gamma: float) -> None:
    """Normal, with mean 0 and variance η/tᵞ, as in Optax; within four standard errors of 60000 draws."""
    ours = noise(cx.add_noise(eta, gamma), 5)
    with jax.numpy_dtype_promotion("standard"):
        theirs = noise(optax.add_noise(eta, gamma, jax.random.key(1)), 5)
    for t in (1, 2, 5):
        deviation = np.sqrt(eta / t**gamma)
        for draw in (ours[t - 1]["a"], theirs[t - 1]["a"]):
            mean, std, skewness, kurtosis = moments(draw)
            error = 4 / np.sqrt(draw.size)
            assert abs(mean) < error * deviation
            assert abs(std / deviation - 1) < error / np.sqrt(2)
            assert abs(skewness) < error * np.sqrt(6)
            assert abs(kurtosis - 3) < error * np.sqrt(24)


def test_draws_are_independent() -> None:
    """Leaves, steps and seeds have noise of their own; the same seed has the same."""
    first, second = noise(cx.add_noise(), 2)
    draws = [first["b"], first["c"], second["b"], noise(cx.add_noise(seed=1), 1)[0]["b"]]
    correlations = np.corrcoef(np.stack(draws)) - np.eye(4)
    assert np.abs(correlations).max() < 0.4
    np.testing.assert_array_equal(first["b"], noise(cx.add_noise(), 1)[0]["b"])
    alone = noise(cx.add_noise(), 1, {"b": PARAMS["b"]})[0]
    np.testing.assert_array_equal(first["b"], alone["b"])


def test_noisy_sgd_adds_it_to_the_gradient() -> None:
    """θ moves by −α(g + noise)."""
    tx, g = cx.noisy_sgd(0.1, eta=0.04, gamma=1.0, seed=3), jax.tree.map(jnp.ones_like, PARAMS)
    u, _ = tx.update(g, tx.init(PARAMS), PARAMS)
    added = noise(cx.add_noise(0.04, 1.0, 3), 1)[0]
    jax.tree.map(lambda u, n: np.testing.assert_allclose(u, -0.1 * (1 + n), rtol=1e-6), u, added)


def test_without_variance_nothing_is_added() -> None:
    """η = 0 leaves the gradient, and its derivatives, finite."""
    u, _ = cx.add_noise(0.0).update(PARAMS, cx.add_noise(0.0).init(PARAMS))
    assert not np.any(u["a"])

    def total(eta: jax.Array) -> jax.Array:
        tx = cx.add_noise(eta)
        return tx.update(PARAMS, tx.init(PARAMS))[0]["b"].sum()

    assert np.isfinite(jax.grad(total)(0.0))


def test_bad_seed() -> None:
    """A seed is a whole number."""
    with pytest.raises(ValueError, match=r"`add_noise.seed` must be a whole number, got 0\.5"):
        cx.add_noise(seed=0.5)
