"""Trajectories, as in `reference`, by Optax and by pytorch_optimizer."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
from reference import STEPS, Tree
from registry import quickly


def run_optax(build: Callable[..., Any], hyper: dict[str, Any], params: Tree, grads: Tree, **extra: Any) -> Tree:
    """The trajectory of an Optax optimizer; ``extra`` are stacks of extra arguments."""
    with jax.numpy_dtype_promotion("standard"):
        return _run_optax(build, hyper, params, grads, extra)


@functools.partial(quickly, static_argnums=0)
def _run_optax(build: Callable[..., Any], hyper: dict[str, Any], params: Tree, grads: Tree, extra: Tree) -> Tree:
    tx = build(**hyper)

    def step(carry: tuple, given: tuple) -> tuple:
        (p, state), (g, extra) = carry, given
        u, state = tx.update(g, state, p, **extra)
        p = optax.apply_updates(p, u)
        return (p, state), p

    return jax.lax.scan(step, (params, tx.init(params)), (grads, extra))[1]


def run_pytorch_optimizer(
    new: Callable[[list[dict[str, Any]]], Any],
    params: Tree,
    grads: Tree,
    *,
    groups: dict[str, dict[str, Any]] | None = None,
    rate: Callable[[int], float] | None = None,
    filtered: Callable[[list[Any]], None] | None = None,
) -> Tree:
    """The trajectory of the optimizer that ``new`` makes of parameter groups, one for each leaf.

    ``groups`` has their own settings, ``rate(k)`` is the learning rate after k steps, and ``filtered``
    changes the gradients in place before a step.
    """
    torch = pytest.importorskip("torch")
    leaves = {n: torch.nn.Parameter(torch.tensor(p)) for n, p in params.items()}
    opt = new([{"params": [leaves[n]], **(groups or {}).get(n, {})} for n in params])
    trajectory: dict[str, list] = {n: [] for n in params}
    for k in range(STEPS):
        if rate:
            for group in opt.param_groups:
                group["lr"] = rate(k)
        for n, p in leaves.items():
            p.grad = torch.tensor(grads[n][k])
        if filtered:
            filtered(list(leaves.values()))
        opt.step()
        for n, p in leaves.items():
            trajectory[n].append(p.detach().numpy().copy())
    return {n: np.stack(points) for n, points in trajectory.items()}
