"""Chains that run at some steps only, against Optax."""

from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import STEPS, Tree, assert_agree, problem, run

INNER = cx.adamw(cx.linear_schedule(1e-2, 0.0, 20), weight_decay=0.1)


def every_third(k: Any) -> Any:
    """Whether a step is the first of three."""
    return k % 3 == 0


def optax_inner() -> Any:
    """The same chain."""
    return optax.adamw(optax.linear_schedule(1e-2, 0.0, 20), weight_decay=0.1)


@pytest.mark.parametrize("kind", ("conditionally_transform", "conditionally_mask"))
def test_agrees_with_optax(kind: str, x64: None) -> None:
    """Elsewhere the update passes, or is 0; moments and schedules see the steps at which the chain runs."""
    params, grads = problem(seed=0)
    # Parameters that the bare gradient moves would go far, so it is scaled.
    expected = run_optax(
        lambda: optax.chain(getattr(optax, kind)(optax_inner(), every_third), optax.scale(0.1)), {}, params, grads
    )
    tx = getattr(cx, kind)(INNER, every_third)
    assert_agree(run(cx.chain(tx, cx.scale(0.1)), params, grads, closed_over=True), expected, 1e-9)


@pytest.mark.parametrize("kind", (cx.conditionally_transform, cx.conditionally_mask))
def test_step_equals_update(kind: Any, x64: None) -> None:
    """Where it ends a chain and moves the parameters itself, nothing is different."""
    params, grads = problem(seed=0)
    ours = run(kind(INNER, every_third), params, grads, closed_over=True)
    assert_agree(ours, run(cx.chain(kind(INNER, every_third), cx.scale(1.0)), params, grads, closed_over=True), 1e-9)


def test_a_schedule_is_a_condition(x64: None) -> None:
    """The chain runs until it falls to 0, and the parameters stay from there on."""
    params, grads = problem(seed=0)
    ours = run(cx.conditionally_mask(INNER, cx.linear_schedule(1.0, 0.0, 10)), params, grads)
    expected: Tree = {n: np.array(x) for n, x in run(INNER, params, grads).items()}
    for x in expected.values():
        x[10:] = x[9]
    assert_agree(ours, expected, 1e-9)


def test_an_extra_argument_is_a_condition(x64: None) -> None:
    """It must hold too, and the chain may read it itself."""
    params, grads = problem(seed=0)
    told = np.random.default_rng(0).uniform(size=STEPS) < 0.5
    tx = cx.conditionally_mask(cx.sgd(0.1), every_third, argument="told")
    assert tx.extra == ("told",)

    def step(carry: tuple, given: tuple) -> tuple:
        return tx.step(*carry, given[0], told=given[1]), None

    def train(params: Tree) -> Any:
        return jax.lax.scan(step, (params, tx.init(params)), (grads, told))[0]

    (ours, state), moves = jax.jit(train)(params), told & (np.arange(STEPS) % 3 == 0)
    assert_agree(ours, {n: p - 0.1 * grads[n][moves].sum(0) for n, p in params.items()}, 1e-9)
    assert int(state.links["conditionally_mask"]["tx"].step) == moves.sum()
    with pytest.raises(TypeError, match="Link 'conditionally_mask' reads 'told'"):
        tx.step(params, tx.init(params), params)
    assert cx.conditionally_mask(cx.polyak_sgd(), argument="value").extra == ("value",)


def test_the_mask_leaves_parameters_as_they_are() -> None:
    """To the bit: −0 is not turned into 0."""
    tx, params = cx.conditionally_mask(cx.sgd(1.0), 0.0), jnp.array([-0.0, 1.0])
    moved, _ = cx.make_step(tx, donate=False)(params, tx.init(params), params)
    assert np.signbit(moved).tolist() == [True, False]


def test_restart_is_a_new_run_with_the_parameters(x64: None) -> None:
    """Moments, and the schedules' steps, begin anew after every tenth step."""
    params, grads = problem(seed=0)
    ours = run(cx.restart(INNER, 10), params, grads)
    now, pieces = params, []
    for k in range(0, STEPS, 10):
        pieces.append(run(INNER, now, {n: g[k : k + 10] for n, g in grads.items()}))
        now = {n: np.asarray(x[-1]) for n, x in pieces[-1].items()}
    assert_agree(ours, {n: np.concatenate([piece[n] for piece in pieces]) for n in params}, 1e-9)


def test_conditions_are_values() -> None:
    """Two with the same function are equal; a table by path is refused, since the chain runs as a whole."""
    assert cx.conditionally_mask(INNER, every_third) == cx.conditionally_mask(INNER, every_third)
    assert repr(cx.conditionally_mask(cx.sgd(1.0), every_third)).endswith("condition=every_third)")
    tx, params = cx.conditionally_mask(INNER, cx.by_path({"a": 0.0}, default=1.0)), {"a": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"`conditionally_mask.condition` cannot be by_path"):
        tx.init(params)


def test_the_condition_may_be_traced() -> None:
    """As an argument of `jit` and under `vmap` both branches give what they give alone."""
    params = jnp.ones(2)

    @jax.jit
    def moved(tx: Any) -> Any:
        return tx.step(params, tx.init(params), params)[0]

    chains = [cx.conditionally_transform(cx.sgd(0.5), c) for c in (0.0, 1.0)]
    alone = jnp.stack([moved(tx) for tx in chains])
    np.testing.assert_allclose(alone, [[2.0, 2.0], [0.5, 0.5]])
    grid = cx.stack(chains)
    chex.assert_trees_all_close(jax.vmap(moved, in_axes=(grid.axes(),))(grid), alone)
