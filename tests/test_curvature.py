"""Sophia against a transcription in NumPy and pytorch_optimizer; Hutchinson's estimate against the Hessian."""

from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import pytorch_optimizer
from libraries import run_pytorch_optimizer
from reference import STEPS, Tree, assert_agree, distance, log, problem, run_numpy, settings, uniform

SOPHIA = {
    "learning_rate": log(1e-4, 1e-2),
    "b1": uniform(0.0, 0.99),
    "b2": uniform(0.5, 0.999),
    "gamma": log(0.1, 10.0),
    "eps": log(1e-6, 1e-1),
    "weight_decay": log(1e-3, 1e-1),
}


@jax.jit
def run(tx: cx.chain, params: Tree, grads: Tree, hessians: Tree) -> Tree:
    """The trajectory on given gradients and estimates."""

    def step(carry: tuple, given: tuple) -> tuple:
        g, hessian = given
        p, state = tx.step(*carry, g, hessian=hessian)
        return (p, state), p

    return jax.lax.scan(step, (params, tx.init(params)), (grads, hessians))[1]


def estimates(seed: int) -> Tree:
    """Stacks of estimates, of which about a third is negative."""
    return problem(seed + 100)[1]


def numpy_sophia(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    b1: float,
    b2: float,
    gamma: float,
    eps: float,
    weight_decay: float,
    interval: int,
) -> Any:
    """Algorithm 3 of Liu et al. 2023. The estimates stand behind the gradients, along a new first axis."""
    g, estimate = g
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    if interval == 1 or t % interval == 1:
        memory["h"] = b2 * memory.get("h", 0.0) + (1 - b2) * estimate
    theta = theta - learning_rate * weight_decay * theta
    return theta - learning_rate * np.clip(m / np.maximum(gamma * memory["h"], eps), -1, 1)


@pytest.mark.parametrize("interval", (1, 10))
def test_agrees_with_numpy(interval: int, x64: None) -> None:
    """Every hyperparameter, and the steps at which the estimate is read."""
    for i, hyper in enumerate(settings(SOPHIA)):
        params, grads = problem(seed=i)
        hessians = estimates(i)
        both = {n: np.stack([grads[n], hessians[n]], 1) for n in grads}
        theirs = run_numpy(numpy_sophia, params, both, **hyper, interval=interval)
        assert_agree(run(cx.sophia(**hyper, update_interval=interval), params, grads, hessians), theirs, 1e-9)


def test_agrees_with_pytorch_optimizer(x64: None) -> None:
    """It has a bound on the ratio in place of γ: clip(m/h, ±ρ) is ρ·clip(m/ρh, ±1)."""
    library = pytorch_optimizer()
    ranges = {k: draw for k, draw in SOPHIA.items() if k != "weight_decay"}
    for i, hyper in enumerate(settings(ranges, count=5)):
        params, grads = problem(seed=i)
        hessians = estimates(i)
        bound, rate = hyper["gamma"], hyper["learning_rate"]
        given = {"lr": rate, "betas": (hyper["b1"], hyper["b2"]), "p": bound, "eps": hyper["eps"] / bound}
        theirs = run_pytorch_optimizer(
            lambda groups, given=given, hessians=hessians: Fed(library.SophiaH(groups, **given), hessians),
            params,
            grads,
        )
        ours = cx.sophia(**{**hyper, "learning_rate": rate * bound}, update_interval=1)
        assert_agree(run(ours, params, grads, hessians), theirs, 1e-9)


class Fed:
    """A torch optimizer that is given an estimate at each step."""

    def __init__(self, optimizer: Any, hessians: Tree) -> None:
        self.optimizer = optimizer
        self.hessians = hessians
        self.param_groups = optimizer.param_groups
        self.count = 0

    def step(self) -> None:
        """One step."""
        torch = pytest.importorskip("torch")
        self.optimizer.step(hessian=[torch.tensor(h[self.count]) for h in self.hessians.values()])
        self.count += 1


def test_a_function_is_called_when_an_estimate_is_due(x64: None) -> None:
    """A function of the parameters does what its values do, and between the estimates it is not called."""
    params = {"a": jnp.array([0.5, -1.5]), "n": jnp.arange(2)}
    grads = {"a": jnp.array([1.0, 0.1]), "n": None}
    calls: list = []

    def estimate(there: Tree) -> Tree:
        jax.debug.callback(lambda x: calls.append(x), there["a"][0])
        return {"a": 3 * jnp.square(there["a"]), "n": None}

    def train(hessian: Callable[[Tree], Any]) -> list:
        tx = cx.sophia(0.1, gamma=0.5, update_interval=3)
        p, state, points = params, tx.init(params), []
        for _ in range(7):
            p, state = jax.jit(lambda p, s: tx.step(p, s, grads, hessian=hessian(p)))(p, state)
            points.append(p["a"])
        return points

    by_function = train(lambda p: estimate)
    jax.effects_barrier()
    assert len(calls) == 3
    np.testing.assert_allclose(by_function, train(lambda p: {"a": 3 * jnp.square(p["a"]), "n": None}), rtol=1e-12)


def test_the_step_is_bounded() -> None:
    """Where the curvature is negative or small the step is the rate, where it is large Newton's over γ."""
    tx = cx.sophia(0.1, b1=0.0, b2=0.0, gamma=1.0)
    params = {"x": jnp.zeros(4)}
    hessian = {"x": jnp.array([-1.0, 0.0, 4.0, 0.5])}
    u, _ = tx.update({"x": jnp.array([1.0, -1.0, 2.0, 1.0])}, tx.init(params), params, hessian=hessian)
    np.testing.assert_allclose(u["x"], [-0.1, 0.1, -0.05, -0.1], rtol=1e-6)


def test_bad_input() -> None:
    """The estimate is asked for by name, and the interval is a count."""
    tx, params = cx.sophia(), {"x": jnp.zeros(2)}
    with pytest.raises(TypeError, match=r"reads 'hessian': call tx.update\(grads, state, params, hessian=hessian\)"):
        tx.update(params, tx.init(params), params)
    with pytest.raises(ValueError, match=r"update_interval` must lie in \[1, ∞\), got 0"):
        cx.scale_by_sophia(update_interval=0)


# Hutchinson's estimate


def test_estimate_is_exact_for_diagonal_hessians() -> None:
    """Also for bfloat16; what is not trained has no curvature."""
    params = {"x": jnp.array([1.0, -2.0]), "y": jnp.ones(3, jnp.bfloat16), "n": jnp.arange(2)}

    def loss(p: Tree) -> jax.Array:
        return jnp.sum(p["x"] ** 4) * p["n"][1].astype(jnp.float32) + 2 * jnp.sum(
            jnp.square(p["y"].astype(jnp.float32))
        )

    got = cx.hutchinson(loss, params, jax.random.key(0))
    np.testing.assert_allclose(got["x"], [12.0, 48.0], rtol=1e-6)
    np.testing.assert_allclose(got["y"], [4.0, 4.0, 4.0])
    assert got["y"].dtype == jnp.float32
    assert got["n"] is None


def test_mean_estimate_is_the_diagonal(x64: None) -> None:
    """Averaged over draws; a single one is not it, where the Hessian is not diagonal."""
    A = np.random.default_rng(0).normal(size=(4, 4))

    def loss(p: Tree) -> jax.Array:
        x = jnp.concatenate([p["a"], p["b"]])
        return x @ (A + A.T) @ x / 2

    params = {"a": jnp.ones(3), "b": jnp.ones(1)}
    draws = jax.jit(jax.vmap(lambda key: cx.hutchinson(loss, params, key)))(jax.random.split(jax.random.key(0), 40_000))
    diagonal = np.diag(A + A.T)
    exact = {"a": diagonal[:3], "b": diagonal[3:]}
    deviation = np.sqrt(np.sum(np.square(A + A.T), 1) - diagonal**2).max()
    assert distance(jax.tree.map(lambda x: x.mean(0), draws), exact) < 5 * deviation / 200
    assert distance(jax.tree.map(lambda x: x[0], draws), exact) > 0.1


def test_estimate_for_complex_parameters(x64: None) -> None:
    """The two parts hold the curvature in the two directions."""

    def loss(z: jax.Array) -> jax.Array:
        return jnp.sum(1.5 * jnp.square(z.real) + 4 * jnp.square(z.imag))

    got = cx.hutchinson(loss, jnp.array([1 + 2j, -1j]), jax.random.key(0))
    np.testing.assert_allclose(got, [3 + 8j, 3 + 8j])


def test_sophia_reaches_the_minimum_of_a_bowl() -> None:
    """With exact curvature it is Newton's method with momentum, at any condition number."""
    curvature = jnp.array([1e-2, 1.0, 1e2])
    tx, start = cx.sophia(0.1, gamma=1.0, b1=0.5, b2=0.0, update_interval=1), jnp.ones(3)

    def step(carry: tuple, key: jax.Array) -> tuple:
        x, state = carry
        hessian = cx.hutchinson(lambda x: jnp.sum(curvature * x**2) / 2, x, key)
        return tx.step(x, state, curvature * x, hessian=hessian), None

    (x, _), _ = jax.lax.scan(step, (start, tx.init(start)), jax.random.split(jax.random.key(0), STEPS))
    np.testing.assert_allclose(x, 0.0, atol=1e-3)
