"""DoG, L-DoG and DoWG against Optax."""

from collections.abc import Callable
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import Draw, Tree, assert_agree, check_run, log, problem, run, settings


def exact(draw: Draw) -> Draw:
    """A number that is exact in float32, in which links take the numbers that their first state needs."""
    return lambda rng: float(np.float32(draw(rng)))


SHARED = {"learning_rate": log(0.3, 2.0), "r_eps": exact(log(1e-3, 1e-1)), "weight_decay": log(1e-4, 1e-1)}


def optax_dog(init: str, r_eps: Any, **hyper: Any) -> Any:
    """DoG by Optax's way to say where it begins."""
    return optax.contrib.dog(init_step=(init, r_eps), **hyper)


def relative_dog(**hyper: Any) -> Any:
    """From r_ε(1 + ‖θ₀‖)."""
    return optax_dog("heuristic", **hyper)


def absolute_dog(**hyper: Any) -> Any:
    """From r_ε."""
    return optax_dog("distance", **hyper)


def optax_dowg(r_eps: Any, **hyper: Any) -> Any:
    """DoWG from the square of r_ε."""
    return optax.contrib.dowg(init_estim_sq_dist=r_eps**2, **hyper)


def leaf_by_leaf(build: Callable[..., Any], hyper: dict[str, Any], params: Tree, grads: Tree) -> Tree:
    """The trajectory of each leaf alone."""
    return {n: run_optax(build, hyper, {n: params[n]}, {n: grads[n]})[n] for n in params}


CASES: dict[str, tuple[Callable[..., cx.chain], dict[str, Any], Callable[..., Any], Callable[..., Tree], Any]] = {
    "dog": (cx.dog, {}, relative_dog, run_optax, log(1e-8, 1e-1)),
    "dog absolute": (cx.dog, {"relative": False}, absolute_dog, run_optax, log(1e-8, 1e-1)),
    "ldog": (cx.ldog, {}, relative_dog, leaf_by_leaf, log(1e-8, 1e-1)),
    "dowg": (cx.dowg, {}, optax_dowg, run_optax, log(1e-6, 1e-1)),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_optax(name: str, x64: None) -> None:
    """Every hyperparameter means what it means in Optax, whose ε is the published code's; L-DoG is DoG on each leaf."""
    ours, static, theirs, runner, eps = CASES[name]
    for i, hyper in enumerate(settings({**SHARED, "eps": eps}, 5)):
        params, grads = problem(seed=i)
        expected = runner(theirs, hyper, params, grads)
        check_run(ours(**hyper, **static), params, grads, expected, constant_too=i == 0)


def test_defaults(x64: None) -> None:
    """The papers' suggestions, and for DoWG what Optax begins with."""
    params, grads = problem(seed=0)
    optax_defaults = {"r_eps": 1e-2, "eps": 0.0, "learning_rate": 1.0}
    for tx, theirs, hyper in ((cx.dog(), optax.contrib.dog, {}), (cx.dowg(), optax_dowg, optax_defaults)):
        expected = run_optax(theirs, hyper, params, grads)
        assert_agree(run(tx, params, grads, closed_over=True), expected, 1e-9)


@pytest.mark.parametrize("tx", (cx.dog(), cx.ldog(), cx.dowg()), ids=repr)
def test_the_length_of_a_path_does_not_depend_on_the_scale_of_the_loss(tx: cx.chain) -> None:
    """Gradients a thousand times as large give the same steps."""
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    ends = []
    for scale in (1.0, 1000.0):
        moved, state = params, tx.init(params)
        for _ in range(5):
            moved, state = tx.step(moved, state, jax.tree.map(lambda x: scale * x, moved))  # noqa: B023
        ends.append(moved)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), *ends)
    assert ends[0]["b"] < 0.5


@pytest.mark.parametrize("tx", (cx.scale_by_dog(), cx.scale_by_dowg()), ids=repr)
def test_the_distance_is_that_of_all_leaves(tx: cxe.Link) -> None:
    """Also at a step where the one that has moved farthest has no gradient."""
    params = {"far": jnp.array([1.0, -2.0]), "near": jnp.array([0.5])}
    moved = {"far": jnp.array([4.0, 2.0]), "near": jnp.array([0.5])}
    update = {"far": None, "near": jnp.array([0.1])}
    _, state = tx.update(update, tx.init(params), moved)
    np.testing.assert_allclose(state.links[type(tx).__name__]["distance"], 5.0)


def test_zero_gradients_at_first_leave_the_parameters() -> None:
    """Without ε DoWG divides 0 by 0 there; then the next gradient counts as the first."""
    tx, params = cx.dowg(), jnp.array([1.0, 2.0])
    still, state = tx.step(params, tx.init(params), jnp.zeros(2))
    np.testing.assert_array_equal(still, params)
    moved, _ = tx.step(still, state, params)
    np.testing.assert_allclose(moved, tx.step(params, tx.init(params), params)[0])
