"""MoMo and MoMo-Adam against Optax, against the paper in NumPy, and against the model that they minimize."""

import functools
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import STEPS, Tree, assert_agree, log, problem, settings, uniform
from registry import quickly
from test_distance import exact

MOMO = {"learning_rate": log(0.1, 3.0), "b1": uniform(0.0, 0.99), "lower_bound": exact(uniform(-0.5, 0.5))}
ADAM = {**MOMO, "learning_rate": log(1e-3, 1e-1), "b2": uniform(0.5, 0.999), "eps": log(1e-8, 1e-2)}
DECAY = {"weight_decay": log(1e-3, 1e-1)}


def losses(seed: int) -> np.ndarray:
    """A loss for every step: falling, noisy, and below the lower bound at times."""
    return 3 * np.exp(-np.arange(STEPS) / 30) + 0.5 * np.random.default_rng(seed).normal(size=STEPS)


def trajectory(tx: cx.chain, params: Tree, grads: Tree, values: Any) -> Tree:
    """The trajectory of a chain that is given the loss."""

    def step(carry: tuple, given: tuple) -> tuple:
        p, state = tx.step(*carry, given[0], value=given[1])
        return (p, state), p

    return jax.lax.scan(step, (params, tx.init(params)), (grads, values))[1]


run = quickly(trajectory)


def flat(tree: Tree) -> np.ndarray:
    """A tree as one vector."""
    return np.concatenate([np.reshape(x, -1) for x in tree.values()])


def paper(
    params: Tree,
    grads: Tree,
    values: Any,
    learning_rate: float,
    b1: float,
    lower_bound: float,
    weight_decay: float,
    b2: float | None = None,
    eps: float = 0.0,
    adapt: bool = False,
) -> tuple[Tree, list[float]]:
    """Algorithms 1 and, with b2, 2; the step as the minimum of the model along d. Also the step sizes."""
    x, f, points, sizes = flat(params), lower_bound, [], []
    mean = slope = square = 0.0
    d = 0 * x
    for t in range(STEPS):
        g = flat({name: g[t] for name, g in grads.items()})
        first = t == 0 and b2 is None
        d = g if first else b1 * d + (1 - b1) * g
        mean = values[t] if first else b1 * mean + (1 - b1) * values[t]
        slope = np.dot(g, x) if first else b1 * slope + (1 - b1) * np.dot(g, x)
        D, rho = np.ones_like(x), 1.0
        if b2 is not None:
            square = b2 * square + (1 - b2) * g**2
            D, rho = eps + np.sqrt(square / (1 - b2 ** (t + 1))), 1 - b1 ** (t + 1)
        shrink, norm = 1 + learning_rate * weight_decay, np.sum(d**2 / D)
        model = shrink * (mean - slope) + np.dot(d, x)
        if adapt and model < shrink * rho * f:
            f = max(model / (2 * shrink * rho), lower_bound)
        tau = min(learning_rate / rho, max(model - shrink * rho * f, 0.0) / norm)
        if adapt:
            f = max((mean - slope + np.dot(d, x) - tau * norm / 2) / rho, lower_bound)
        x = (x - tau * d / D) / shrink
        points.append(x)
        sizes.append(tau)
    parts = np.split(np.stack(points), np.cumsum([p.size for p in params.values()])[:-1], axis=1)
    return {n: v.reshape(STEPS, *p.shape) for (n, p), v in zip(params.items(), parts)}, sizes


def optax_momo(b1: Any, **hyper: Any) -> Any:
    """MoMo by Optax's name for β."""
    return optax.contrib.momo(beta=b1, **hyper)


def optax_momo_star(**hyper: Any) -> Any:
    """MoMo with an estimate of the lowest loss."""
    return optax_momo(**hyper, adapt_lower_bound=True)


def optax_momo_adam_star(**hyper: Any) -> Any:
    """MoMo-Adam with an estimate of the lowest loss."""
    return optax.contrib.momo_adam(**hyper, adapt_lower_bound=True)


CASES: dict[str, tuple[Callable[..., cx.chain], Callable[..., Any], bool, dict[str, Any]]] = {
    "momo": (cx.momo, optax_momo, False, MOMO),
    "momo*": (cx.momo, optax_momo_star, True, MOMO),
    "momo_adam": (cx.momo_adam, optax.contrib.momo_adam, False, ADAM),
    "momo_adam*": (cx.momo_adam, optax_momo_adam_star, True, ADAM),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_optax(name: str, x64: None) -> None:
    """Without weight decay, where Optax departs."""
    ours, theirs, adapt, ranges = CASES[name]
    for i, hyper in enumerate(settings(ranges, 5)):
        params, grads = problem(seed=i)
        expected = run_optax(theirs, hyper, params, grads, value=losses(i))
        assert_agree(run(ours(**hyper, adapt_lower_bound=adapt), params, grads, losses(i)), expected, 1e-9)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_paper(name: str, x64: None) -> None:
    """With weight decay, which Optax leaves out of one half of the step. Short and long steps are taken."""
    ours, _, adapt, ranges = CASES[name]
    taken = set()
    for i, hyper in enumerate(settings({**ranges, **DECAY}, 5)):
        params, grads = problem(seed=i)
        expected, sizes = paper(params, grads, losses(i), **hyper, adapt=adapt)
        longest = max(sizes)
        taken |= {"no" if tau == 0 else "long" if tau == longest else "short" for tau in sizes}
        assert_agree(run(ours(**hyper, adapt_lower_bound=adapt), params, grads, losses(i)), expected, 1e-9)
    assert taken >= {"short", "long"}


def test_defaults(x64: None) -> None:
    """α = 1 or 0.01, β = 0.9 and 0.999, f* = 0, no decay."""
    params, grads = problem(seed=0)
    for ours, theirs in ((cx.momo, optax.contrib.momo), (cx.momo_adam, optax.contrib.momo_adam)):
        expected = run_optax(theirs, {}, params, grads, value=losses(0))
        constant = quickly(functools.partial(trajectory, ours()))  # 0.999 is not rounded to float32
        assert_agree(constant(params, grads, losses(0)), expected, 1e-9)


@pytest.mark.parametrize("value", (0.05, 1.0, 30.0))
def test_the_step_minimizes_the_model(value: float, x64: None) -> None:
    """max(f + gᵀ(y − x), f*) + ‖y − x‖²/2α + λ‖y‖²/2 is nowhere near lower; at Optax's step it is not the lowest."""
    alpha, decay, rng = 0.5, 0.2, np.random.default_rng(0)
    x, g = rng.normal(size=6), rng.normal(size=6)

    def model(y: Any) -> Any:
        cut = np.maximum(value + (y - x) @ g, 0.0)
        return cut + np.sum((y - x) ** 2, -1) / (2 * alpha) + decay / 2 * np.sum(y**2, -1)

    tx = cx.momo(alpha, weight_decay=decay)
    y = np.asarray(tx.step(jnp.asarray(x), tx.init(jnp.asarray(x)), jnp.asarray(g), value=value)[0])
    near = y + 1e-3 * rng.normal(size=(1000, 6))
    assert model(y) <= model(near).min()
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.contrib.momo(alpha, weight_decay=decay)
        updates, _ = theirs.update(jnp.asarray(g), theirs.init(jnp.asarray(x)), jnp.asarray(x), value=value)
    assert model(x + np.asarray(updates)) > model(y) + 1e-6


@pytest.mark.parametrize("tx", (cx.momo(), cx.momo_adam(3.0)), ids=repr)
def test_the_model_is_of_all_leaves(tx: cx.chain) -> None:
    """A large leaf without a gradient keeps its part in the model: the step of a small one stays as long as it was."""
    params = {"large": jnp.ones(1000), "small": jnp.ones(1)}
    step = jax.jit(lambda *given: tx.step(*given, value=3000.0))
    p, state = params, tx.init(params)
    for _ in range(50):
        p, state = step(p, state, params)
    moves = [p["small"] - step(p, state, {**params, "large": g})[0]["small"] for g in (params["large"], None)]
    assert 0.01 < moves[0] < 0.5
    np.testing.assert_allclose(moves[1], moves[0], rtol=0.03)


def test_no_gradient_no_step() -> None:
    """Where the gradient is 0 the step is 0, not NaN."""
    params = jnp.array([1.0, 2.0])
    for tx in (cx.momo(), cx.momo_adam()):
        moved, _ = tx.step(params, tx.init(params), jnp.zeros(2), value=1.0)
        np.testing.assert_array_equal(moved, params)
