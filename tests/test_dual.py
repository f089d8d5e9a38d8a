"""MADGRAD, ASGD and the optimistic methods against PyTorch, Optax, pytorch_optimizer and NumPy."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from agreement import check_against_optax, check_against_pytorch_optimizer
from reference import (
    STEPS,
    TOLERANCE,
    Tree,
    assert_agree,
    check_against_numpy,
    check_run,
    distance,
    log,
    problem,
    settings,
    uniform,
)

RATE = {"learning_rate": log(1e-4, 1e-2)}
DECAY = {"weight_decay": log(1e-4, 1e-1)}

# MADGRAD. Optax takes the root of the step in float32

MADGRAD = {**RATE, "momentum": uniform(0.0, 0.99), "eps": log(1e-8, 1e-3)}


def madgrad(learning_rate: Any, eps: Any, **hyper: Any) -> cx.chain:
    """MADGRAD with ε added to the rate, as that library does."""
    return cx.madgrad(learning_rate + eps, eps=eps, **hyper)


def torch_madgrad(library: Any, groups: Any, learning_rate: float, **hyper: float) -> Any:
    """MADGRAD by that library."""
    return library.MADGRAD(groups, lr=learning_rate, **hyper, foreach=False)


def test_madgrad_agrees_with_pytorch_optimizer(x64: None) -> None:
    """Every hyperparameter, and the decay, which is coupled."""
    check_against_pytorch_optimizer(madgrad, torch_madgrad, {**MADGRAD, **DECAY})


def test_madgrad_takes_a_schedule(x64: None) -> None:
    """A gradient keeps the rate that it came with."""

    def theirs(theta: Any, g: Any, t: int, memory: dict) -> Any:
        weight = 0.01 * (1 - min(t - 1, 50) / 50) * np.sqrt(t)
        s = memory["s"] = memory.get("s", 0.0) + weight * g
        nu = memory["nu"] = memory.get("nu", 0.0) + weight * g**2
        z = memory.setdefault("start", theta) - s / (np.cbrt(nu) + 1e-3)
        return 0.9 * theta + (1 - 0.9) * z

    check_against_numpy(lambda: cx.madgrad(cx.linear_schedule(0.01, 0.0, 50), eps=1e-3), theirs, {})


# ASGD


def torch_asgd(params: Tree, grads: Tree, dtype: Any, **hyper: Any) -> tuple[Tree, Tree]:
    """The trajectory, and that of the means."""
    torch = pytest.importorskip("torch")
    leaves = {n: torch.nn.Parameter(torch.tensor(p.astype(dtype))) for n, p in params.items()}
    points: dict[str, list] = {n: [] for n in params}
    means: dict[str, list] = {n: [] for n in params}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # ASGD's rate has the default dtype
    try:
        opt = torch.optim.ASGD(leaves.values(), foreach=False, **hyper)
        for k in range(STEPS):
            for n, p in leaves.items():
                p.grad = torch.tensor(grads[n][k].astype(dtype))
            opt.step()
            for n, p in leaves.items():
                points[n].append(p.detach().numpy().copy())
                means[n].append(opt.state[p]["ax"].numpy().copy())
    finally:
        torch.set_default_dtype(before)
    return {n: np.stack(x) for n, x in points.items()}, {n: np.stack(x) for n, x in means.items()}


@jax.jit
def asgd_means(tx: cx.chain, params: Tree, grads: Tree) -> Tree:
    """The means along a run."""

    def step(carry: tuple, g: Tree) -> tuple:
        p, state = tx.step(*carry, g)
        return (p, state), cx.read_average(tx, p, state)

    return jax.lax.scan(step, (params, tx.init(params)), grads)[1]


ASGD = {
    "learning_rate": log(1e-3, 1e-1),
    "lambd": log(1e-4, 1.0),
    "alpha": uniform(0.5, 1.0),
    "t0": lambda rng: float(rng.integers(0, 60)),
    **DECAY,
}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_asgd_agrees_with_torch(dtype: Any) -> None:
    """Every hyperparameter: the points, and their means from t₀ on."""
    with jax.enable_x64(dtype is np.float64):
        for i, hyper in enumerate([{}, *settings(ASGD)]):
            params, grads = problem(seed=i)
            given = {"lr" if k == "learning_rate" else k: x for k, x in hyper.items()}
            points, means = torch_asgd(params, grads, dtype, **given)
            tx = cx.asgd(**hyper)
            check_run(tx, params, grads, points, dtype)
            params, grads = jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, grads))
            assert_agree(asgd_means(tx, params, grads), means, TOLERANCE[dtype])
            assert distance(points, means) > 1e-3 or not hyper


# Optimistic methods

WEIGHTS = {"alpha": uniform(0.2, 2.0), "beta": uniform(0.0, 2.0)}
ADAM = {**RATE, "b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), "eps": log(1e-10, 1e-3)}
ROOT = {"eps_root": log(1e-8, 1e-2)}


def as_in_optax(tx: cx.chain) -> cx.chain:
    """No change at the first step."""
    return tx.replace("scale_by_optimistic_gradient", before="itself")


def descent(**hyper: Any) -> cx.chain:
    """Optimistic descent as in Optax."""
    return as_in_optax(cx.optimistic_gradient_descent(**hyper))


def adam(**hyper: Any) -> cx.chain:
    """Optimistic Adam as in Optax, but for Nesterov's momentum."""
    return as_in_optax(cx.optimistic_adam(**hyper))


def optax_adam(**hyper: Any) -> Any:
    """Optax's without Nesterov's momentum."""
    return optax.optimistic_adam_v2(**hyper, nesterov=False)


def nadam(b1: Any, b2: Any, eps: Any, eps_root: Any, **hyper: Any) -> cx.chain:
    """Optimistic Adam as in Optax."""
    return adam(**hyper).replace("scale_by_adam", cx.scale_by_nesterov_adam(b1, b2, eps, eps_root=eps_root))


@pytest.mark.parametrize(
    ("ours", "theirs", "ranges"),
    (
        (descent, optax.optimistic_gradient_descent, {**RATE, **WEIGHTS}),
        (adam, optax_adam, {**ADAM, **ROOT, **WEIGHTS}),
        (nadam, optax.optimistic_adam_v2, {**ADAM, **ROOT, **WEIGHTS}),
    ),
)
def test_optimistic_methods_agree_with_optax(ours: Any, theirs: Any, ranges: Any, x64: None) -> None:
    """Every hyperparameter means what it means in Optax."""
    check_against_optax(ours, theirs, ranges)


def numpy_optimistic_adam(
    theta: Any, g: Any, t: int, memory: dict, learning_rate: float, b1: float, b2: float, eps: float
) -> Any:
    """Algorithm 1 of Daskalakis et al. 2018, in which the ratio before the first is 0."""
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
    last = memory.get("ratio", 0.0)
    memory["ratio"] = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
    return theta - 2 * learning_rate * memory["ratio"] + learning_rate * last


def test_optimistic_adam_agrees_with_numpy(x64: None) -> None:
    """The paper's first step, which Optax has not."""
    check_against_numpy(cx.optimistic_adam, numpy_optimistic_adam, ADAM)


def test_optimism_finds_the_saddle() -> None:
    """min over x, max over y of xy: optimistic steps reach (0, 0), plain ones circle away from it."""

    @jax.jit
    def play(tx: cx.chain) -> jax.Array:
        def step(carry: tuple, _: None) -> tuple:
            (x, y), state = carry
            return tx.step((x, y), state, (y, -x)), None

        start = (jnp.array(1.0), jnp.array(0.5))
        (point, _), _ = jax.lax.scan(step, (start, tx.init(start)), None, 1000)
        return jnp.hypot(*point)

    assert play(cx.optimistic_gradient_descent(0.1)) < 0.01
    assert play(cx.optimistic_gradient_descent(0.1, beta=0.0)) > 1
