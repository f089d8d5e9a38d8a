"""COCOB against Optax, Mechanic against the paper in NumPy and against Optax."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import STEPS, Tree, assert_agree, check_run, log, problem, run, settings
from test_distance import exact

# COCOB

COCOB = {"alpha": log(1.0, 200.0), "eps": exact(log(1e-8, 1e-2)), "weight_decay": log(1e-4, 1e-1)}


def test_cocob_agrees_with_optax(x64: None) -> None:
    """Whose learning rate of 1 scales gradients, to which COCOB is indifferent but for ε."""
    for i, hyper in enumerate(settings(COCOB, 5)):
        params, grads = problem(seed=i)
        check_run(cx.cocob(**hyper), params, grads, run_optax(optax.contrib.cocob, hyper, params, grads))
    params, grads = problem(seed=9)
    expected = run_optax(optax.contrib.cocob, {}, params, grads)
    assert_agree(run(cx.cocob(), params, grads, closed_over=True), expected, 1e-9)


def test_cocob_goes_where_its_bets_are() -> None:
    """Wherever the parameters were, they go to start + bet; what has moved them downhill counts as won."""
    tx, params = cx.cocob(), jnp.array([1.0, -2.0])
    state, gradient = tx.init(params), jnp.array([0.5, 0.25])
    ends = [tx.step(moved, state, gradient)[0] for moved in (params, params - 0.125 * jnp.sign(gradient))]
    bet = ends[0] - params
    np.testing.assert_allclose(ends[1] - params, bet * 1.125, rtol=1e-3)  # R/L = 0.125


# Mechanic

BETAS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
TUNER = {"weight_decay": log(1e-3, 1e-1), "s_init": exact(log(1e-3, 1e-1))}
RATE = {"rate": log(0.1, 1.0)}


def flat(tree: Tree) -> np.ndarray:
    """A tree as one vector."""
    return np.concatenate([np.reshape(x, -1) for x in tree.values()])


def mechanic(
    params: Tree, grads: Tree, rate: float, weight_decay: float, s_init: float, eps: float, betas: tuple = BETAS
) -> tuple[Tree, np.ndarray]:
    """Algorithm 1 of the paper on gradient descent, as it stands there: x_ref is kept."""
    x_ref = x = flat(params)
    n, delta, beta = len(betas), 0 * x, np.array(betas)
    v, r, m, s = (np.zeros(n) for _ in range(4))
    points, scales = [], []
    for t in range(STEPS):
        g = flat({name: g[t] for name, g in grads.items()})
        decay = weight_decay * s.sum() * np.linalg.norm(g) / (np.linalg.norm(x) + eps)
        h = np.dot(delta, g + decay * x)
        delta = delta - rate * g
        m = np.maximum(beta * m, abs(h))
        v = beta**2 * v + h**2
        r = np.maximum(0, beta * r - s * h)
        s = (s_init / n * m + r) / (np.sqrt(v) + eps)
        x = x_ref + s.sum() * delta
        points.append(x)
        scales.append(s.sum())
    parts = np.split(np.stack(points), np.cumsum([p.size for p in params.values()])[:-1], axis=1)
    return {n: v.reshape(STEPS, *p.shape) for (n, p), v in zip(params.items(), parts)}, np.array(scales)


def test_mechanic_agrees_with_the_paper(x64: None) -> None:
    """The published code in PyTorch finds Δ by dividing by S + ε, Optax that of another algorithm: see below."""
    for i, hyper in enumerate(settings({**TUNER, **RATE, "eps": log(1e-8, 1e-2)}, 5)):
        params, grads = problem(seed=i)
        expected, scales = mechanic(params, grads, **hyper)
        assert scales.max() > 1.5 * hyper["s_init"]
        tx = cx.mechanize(cx.sgd(hyper.pop("rate")), **hyper)
        check_run(cx.chain(tx), params, grads, expected, constant_too=i == 0)


def test_mechanic_defaults(x64: None) -> None:
    """λ = 0.01, s₀ = 1e-8, ε = 1e-8, and six bets."""
    params, grads = problem(seed=0)
    expected, _ = mechanic(params, grads, rate=1.0, weight_decay=1e-2, s_init=1e-8, eps=1e-8)
    assert_agree(run(cx.chain(cx.mechanize(cx.sgd(1.0))), params, grads, closed_over=True), expected, 1e-9)


def test_mechanic_takes_other_bets(x64: None) -> None:
    """One bet, or two."""
    params, grads = problem(seed=1)
    h = {"weight_decay": 1e-2, "s_init": 2.0**-7, "eps": 1e-8}
    for betas in ((1.0,), (0.5, 0.9)):
        expected, _ = mechanic(params, grads, 0.5, **h, betas=betas)
        check_run(cx.chain(cx.mechanize(cx.sgd(0.5), **h, betas=betas)), params, grads, expected)


def optax_mechanic_sgd(rate: Any, **hyper: Any) -> Any:
    """Momentum tuned by Optax's Mechanic."""
    return optax.contrib.mechanize(optax.sgd(rate, momentum=0.9), **hyper)


def optax_mechanic_adamw(rate: Any, **hyper: Any) -> Any:
    """AdamW tuned by Optax's Mechanic."""
    return optax.contrib.mechanize(optax.adamw(rate, weight_decay=0.01), **hyper)


INNER = {
    "sgd": (lambda rate: cx.sgd(rate, momentum=0.9), optax_mechanic_sgd),
    "adamw": (lambda rate: cx.adamw(rate, weight_decay=0.01), optax_mechanic_adamw),
}


@pytest.mark.parametrize("name", INNER)
def test_clipped_mechanic_agrees_with_optax(name: str, x64: None) -> None:
    """With an ε so small that Optax, which divides by S + ε where this keeps Δ, finds the same Δ."""
    inner, theirs = INNER[name]
    for i, hyper in enumerate(settings({**TUNER, **RATE, "eps": lambda _: 1e-25}, 5)):
        params, grads = problem(seed=i)
        expected = run_optax(theirs, hyper, params, grads)
        tx = cx.mechanize(inner(hyper.pop("rate")), **hyper, clipped=True)
        check_run(cx.chain(tx), params, grads, expected)


def test_a_gradient_that_is_not_a_number_spreads() -> None:
    """The scale is NaN then, and no parameter goes back to the start as if nothing had been won."""
    tx, params = cx.mechanize(cx.sgd(1.0), s_init=0.1), {"a": jnp.ones(2), "b": jnp.ones(2)}
    moved, state = tx.step(params, tx.init(params), params)
    moved, state = tx.step(moved, state, params)
    assert jnp.all(moved["b"] < 1)
    moved, _ = tx.step(moved, state, {**params, "a": jnp.array([1.0, jnp.nan])})
    assert jnp.all(jnp.isnan(moved["b"]))


def test_mechanic_finds_a_scale() -> None:
    """Gradient descent at the rate 1 flies off a curvature of 20; tuned, from 1e-8 on, it arrives."""

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(x) * jnp.array([1.0, 10.0]))

    def train(tx: Any) -> jax.Array:
        def step(carry: tuple, _: None) -> tuple:
            return tx.step(*carry, jax.grad(loss)(carry[0])), None

        x = jnp.array([0.3, -0.1])
        return loss(jax.lax.scan(step, (x, tx.init(x)), None, 500)[0][0])

    assert not jnp.isfinite(train(cx.sgd(1.0)))
    for clipped in (False, True):
        assert train(cx.mechanize(cx.sgd(1.0), clipped=clipped)) < 1e-3
