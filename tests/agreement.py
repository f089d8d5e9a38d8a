"""Comparisons with Optax and with pytorch_optimizer at random settings, by the trajectories of `libraries`."""

import warnings
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from libraries import run_optax, run_pytorch_optimizer
from reference import Ranges, Tree, check_run, problem, settings


def check_against_optax(
    ours: Callable[..., cx.chain], theirs: Callable[..., Any], ranges: Ranges, leave_out: tuple[str, ...] = ()
) -> None:
    """Both take the same hyperparameters and make the same trajectory, in float64."""
    for i, hyper in enumerate(settings(ranges)):
        params, grads = (without(leave_out, tree) for tree in problem(seed=i))
        expected = run_optax(theirs, hyper, params, grads)
        check_run(ours(**hyper), params, grads, expected, constant_too=i == 0)


def check_against_pytorch_optimizer(
    ours: Callable[..., cx.chain], theirs: Callable[..., Any], ranges: Ranges, leave_out: tuple[str, ...] = ()
) -> None:
    """``theirs(library, groups, **hyper)`` is an optimizer. Five settings, for it is slow."""
    library = pytorch_optimizer()
    for i, hyper in enumerate(settings(ranges, count=5)):
        params, grads = (without(leave_out, tree) for tree in problem(seed=i))
        expected = run_pytorch_optimizer(lambda groups, h=hyper: theirs(library, groups, **h), params, grads)
        check_run(ours(**hyper), params, grads, expected)


def pytorch_optimizer() -> Any:
    """The library, which may warn while it is imported."""
    pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pytorch_optimizer")


def without(names: tuple[str, ...], tree: Tree) -> Tree:
    """The tree less some leaves."""
    return {n: x for n, x in tree.items() if n not in names}


def fall_on_a_matrix(tx: cx.chain, steps: int) -> jax.Array:
    """The last loss over the first, of a regression on a matrix of 12 × 20 and full rank."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(40, 12)) * np.logspace(-1, 0, 12), jnp.float32)
    targets = inputs @ jnp.asarray(rng.normal(size=(12, 20)), jnp.float32)

    def loss(w: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(inputs @ w - targets))

    def step(carry: tuple, _: None) -> tuple:
        return tx.step(*carry, jax.grad(loss)(carry[0])), None

    def train(w: jax.Array) -> jax.Array:
        (moved, _), _ = jax.lax.scan(step, (w, tx.init(w)), None, steps)
        return loss(moved) / loss(w)

    return jax.jit(train)(jnp.zeros((12, 20)))
