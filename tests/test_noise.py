"""Noisy SGD, by the distribution of its noise: against the formula and Optax."""

import json
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import in_pairs, quickly

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


# Seeds


def private(seed: Any) -> Any:
    """DP-SGD on two examples of 0."""
    examples = cx.chain(cx.differentially_private_aggregate(1.0, 1.0, seed), cx.scale_by_lr(1.0))
    return in_pairs(examples)


def rounding(seed: Any) -> cx.chain:
    """A step of a third of what bfloat16 holds, rounded up or down."""
    return cx.chain(cx.scale(2.0**-7 / 3), cx.apply_update("stochastic", seed))


def noisy(seed: Any) -> cx.chain:
    """Noise alone."""
    return cx.noisy_sgd(1.0, seed=seed)


def moved(tx: Any) -> jax.Array:
    """Where a step leads."""
    params = jnp.ones(64, jnp.bfloat16 if "apply_update" in tx.links else jnp.float32)
    return tx.step(params, tx.init(params), jnp.ones_like(params))[0]


@pytest.mark.parametrize("build", (noisy, rounding, private))
def test_seeds_may_be_data(build: Any) -> None:
    """A traced or stacked seed, or key, draws what a run of its own draws with that seed."""
    alone = jnp.stack([quickly(lambda seed=seed: moved(build(seed)))() for seed in (1, 7)])
    assert abs(np.asarray(np.corrcoef(np.asarray(alone, np.float64)))[0, 1]) < 0.5
    seeds = jnp.array([1, 7])
    for stack in (seeds, jax.vmap(jax.random.key)(seeds)):
        together = build(stack)
        np.testing.assert_allclose(quickly(jax.vmap(moved, (together.axes(),)))(together), alone, rtol=1e-6)
    np.testing.assert_allclose(quickly(moved)(build(seeds[1].astype(jnp.uint8))), alone[1], rtol=1e-6)


def test_a_sweep_over_seeds_is_compiled_once() -> None:
    """Given as arrays or keys they are stacked as other numbers are."""
    traces = 0

    def train(tx: Any) -> dict[str, jax.Array]:
        nonlocal traces
        traces += 1
        return {"end": moved(tx)[0]}

    numbers = cx.sweep(train, cx.grid(noisy(0), {"add_noise.seed": list(jnp.arange(3))}))
    keys = cx.sweep(train, cx.grid(noisy(0), {"add_noise.seed": list(jax.vmap(jax.random.key)(jnp.arange(3)))}))
    assert traces == 2
    assert len(set(numbers["end"].tolist())) == 3
    np.testing.assert_array_equal(keys["end"], numbers["end"])


def test_values_with_seeds_and_keys() -> None:
    """They compare, hash and print; numbers are stored, keys are not."""
    key = jax.random.key(3)
    for seed, other in ((3, 4), (jnp.int32(3), jnp.int32(4)), (key, jax.random.key(4)), (jnp.arange(3), jnp.arange(2))):
        one = noisy(seed)
        assert one == noisy(seed)
        assert hash(one) == hash(noisy(seed))
        assert one != noisy(other)
        again: Any = jax.tree.map(lambda x: x, one)["add_noise"]
        assert type(again.seed) is type(vars(one["add_noise"])["seed"])
        if seed is not key:
            assert cx.from_config(json.loads(json.dumps(cx.to_config(one)))) == one
    assert type(cx.to_config(cx.add_noise(seed=3))["seed"]) is int
    assert repr(cx.add_noise(seed=3)) == "add_noise(seed=3)"
    assert repr(cx.add_noise(seed=key)) == "add_noise(seed=key<fry>[])"
    assert repr(cx.add_noise(seed=np.int64(0))) == "add_noise()"
