"""SGD and the three forms of momentum, against PyTorch and transcriptions in NumPy."""

from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import (
    SHAPES,
    TOLERANCE,
    Case,
    Tree,
    assert_agree,
    check_against_numpy,
    check_against_torch,
    check_run,
    descend,
    distance,
    log,
    problem,
    run,
    run_numpy,
    run_torch,
    settings,
    uniform,
)

RATE = {"learning_rate": log(1e-4, 1e-2)}
MOMENTUM = {**RATE, "momentum": uniform(0.05, 0.95)}
DECAY = {"weight_decay": log(1e-4, 1e-1)}

UP_TO_ONE = {**RATE, "momentum": lambda rng: float(rng.choice([1.0, rng.uniform(0.05, 0.95)]))}

CASES = {
    "plain": Case(cx.sgd, "SGD", RATE),
    "decay": Case(cx.sgd, "SGD", {**RATE, **DECAY}),
    "momentum": Case(cx.sgd, "SGD", UP_TO_ONE),
    "dampened": Case(cx.sgd, "SGD", {**MOMENTUM, **DECAY, "dampening": uniform(0.0, 1.0)}),
    "nesterov": Case(cx.sgd, "SGD", {**UP_TO_ONE, **DECAY}, {"nesterov": True}),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_sgd_agrees_with_torch(case: Case, dtype: Any) -> None:
    """Momentum is PyTorch's buffer, which takes the first gradient whole, dampened or not."""
    check_against_torch(case, dtype)


def sutskever(theta: Any, g: Any, t: int, memory: dict, *, rate: Callable, momentum: float) -> Any:
    """b ← μb + αg, θ ← θ − b."""
    memory["b"] = momentum * memory.get("b", 0.0) + rate(t - 1) * g
    return theta - memory["b"]


def falling(init: float, base: float) -> Callable[[int], float]:
    """A learning rate that falls by ``base`` every ten steps."""
    return lambda k: init * base ** (k / 10)


@pytest.mark.parametrize("base", (uniform(0.3, 0.9), uniform(1.0, 1.0)), ids=("falling", "constant"))
def test_sutskever_keeps_the_rate_that_a_gradient_came_with(base: Callable, x64: None) -> None:
    """Agrees with NumPy at any schedule; with PyTorch's momentum only while the rate is constant."""
    for i, h in enumerate(settings({**MOMENTUM, "base": base})):
        params, grads = problem(seed=i)
        rate = falling(h["learning_rate"], h["base"])
        schedule = cx.exponential_decay(h["learning_rate"], 10, h["base"])
        theirs = run_numpy(sutskever, params, grads, rate=rate, momentum=h["momentum"])
        tx = cx.sgd_sutskever(schedule, momentum=h["momentum"])
        check_run(tx, params, grads, theirs, constant_too=i == 0)
        inside = run(cx.sgd(schedule, momentum=h["momentum"]), params, grads)
        apart = distance(theirs, inside) / h["learning_rate"]
        assert apart < 1e-9 if h["base"] == 1 else apart > 1e-2


def test_sgd_with_a_schedule_agrees_with_torch(x64: None) -> None:
    """In PyTorch's form the rate of the day multiplies the whole buffer."""
    for i, h in enumerate(settings({**MOMENTUM, "base": uniform(0.3, 0.9)})):
        params, grads = problem(seed=i)
        rate = falling(h["learning_rate"], h["base"])
        theirs = run_torch("SGD", [(list(params), {})], params, grads, rate=rate, lr=1.0, momentum=h["momentum"])
        tx = cx.sgd(cx.exponential_decay(h["learning_rate"], 10, h["base"]), momentum=h["momentum"])
        assert_agree(run(tx, params, grads), theirs, 1e-9)


def average(theta: Any, g: Any, t: int, memory: dict, *, learning_rate: float, decay: float) -> Any:
    """m ← βm + (1−β)g, θ ← θ − αm."""
    memory["m"] = decay * memory.get("m", 0.0) + (1 - decay) * g
    return theta - learning_rate * memory["m"]


def test_ema_agrees_with_numpy(x64: None) -> None:
    """Momentum as a moving average that starts at zero."""
    check_against_numpy(cx.sgd_ema, average, {**RATE, "decay": uniform(0.0, 0.99)})


# Nesterov: a loss with coupled, non-linear gradients, log cosh(θ − 1) + (Σ sin θ)²/20


def loss(params: Tree) -> jax.Array:
    """The loss in JAX."""
    total = sum(jnp.sum(jnp.sin(p)) for p in params.values())
    return sum(jnp.sum(jnp.log(jnp.cosh(p - 1.0))) for p in params.values()) + jnp.square(total) / 20


def slope(params: Tree) -> Tree:
    """Its gradient in NumPy, by hand."""
    total = sum(np.sum(np.sin(p)) for p in params.values())
    return {n: np.tanh(p - 1.0) + total / 10 * np.cos(p) for n, p in params.items()}


def nesterov(params: Tree, rate: float, momentum: float) -> tuple[Tree, Tree]:
    """Take g at θ − αμb; then b ← μb + g, θ ← θ − αb."""
    b = {n: np.zeros(shape) for n, shape in SHAPES.items()}
    points, aheads = [], []
    for _ in range(100):
        ahead = {n: p - rate * momentum * b[n] for n, p in params.items()}
        g = slope(ahead)
        b = {n: momentum * b[n] + g[n] for n in b}
        params = {n: p - rate * b[n] for n, p in params.items()}
        points.append(params)
        aheads.append(ahead)
    return tuple({n: np.stack([x[n] for x in xs]) for n in b} for xs in (points, aheads))  # pyright: ignore


AHEAD = {"learning_rate": log(1e-2, 1e-1), "momentum": uniform(0.3, 0.95)}


@pytest.mark.parametrize("build", (cx.sgd, cx.sgd_sutskever))
def test_lookahead_agrees_with_numpy(build: Callable, x64: None) -> None:
    """``tx.lookahead`` is θ − αμb in either form of momentum, and it matters where the gradient is taken."""
    for i, h in enumerate(settings(AHEAD)):
        params, _ = problem(seed=i)
        tx = build(h["learning_rate"], momentum=h["momentum"])
        assert_agree(descend(tx, loss, params, lookahead=True), nesterov(params, *h.values()), 1e-9)  # pyright: ignore
        assert distance(descend(tx, loss, params)[0], nesterov(params, *h.values())[0]) > 1e-4


def test_lookahead_points_are_the_parameters_of_torch_nesterov(x64: None) -> None:
    """The two forms of Nesterov are one method in other variables."""
    for i, h in enumerate(settings(AHEAD)):
        params, _ = problem(seed=i)
        plain, ahead = descend(cx.sgd(**h), loss, params, lookahead=True)
        theirs = run_torch(
            "SGD", [(list(params), {})], params, slope, lr=h["learning_rate"], momentum=h["momentum"], nesterov=True
        )
        assert_agree({n: x[1:] for n, x in ahead.items()}, {n: x[:-1] for n, x in theirs.items()}, 1e-9)
        assert_agree(descend(cx.sgd(**h, nesterov=True), loss, params)[0], theirs, 1e-9)
        assert distance(plain, theirs) > 1e-4
