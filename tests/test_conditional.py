"""Chains that run at some steps only, against Optax."""

import collections
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


def in_pieces(tx: cx.chain, params: Tree, grads: Tree) -> Tree:
    """The trajectory of runs of ten steps, each from where the last ended."""
    pieces = []
    for k in range(0, STEPS, 10):
        pieces.append(run(tx, params, {n: g[k : k + 10] for n, g in grads.items()}))
        params = {n: np.asarray(x[-1]) for n, x in pieces[-1].items()}
    return {n: np.concatenate([piece[n] for piece in pieces]) for n in params}


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
    assert_agree(run(cx.restart(INNER, 10), params, grads), in_pieces(INNER, params, grads), 1e-9)


@pytest.mark.parametrize("alone", (False, True), ids=("in a chain", "alone"))
@pytest.mark.parametrize("how", ("step", "update"))
def test_restart_begins_where_the_parameters_are(how: str, alone: bool, x64: None) -> None:
    """A link that keeps where it began does so after the step that ends a piece, wherever it stands."""
    params, grads = problem(seed=0)
    piece = cx.chain(cx.scale_by_cocob(), cx.scale_by_lr(1.0))
    tx = cx.restart(piece, 10) if alone else cx.chain(cx.restart(cx.scale_by_cocob(), 10), cx.scale_by_lr(1.0))

    def step(carry: tuple, g: Tree) -> tuple:
        p, state = carry
        if how == "step":
            p, state = tx.step(p, state, g)
        else:
            u, state = tx.update(g, state, p)
            p = cx.apply_updates(p, u)
        return (p, state), p

    ours = jax.jit(lambda p, g: jax.lax.scan(step, (p, tx.init(p)), g)[1])(*jax.tree.map(jnp.asarray, (params, grads)))
    assert_agree(ours, in_pieces(piece, params, grads), 1e-9)


def test_what_joins_before_a_restart_begins_with_the_rest() -> None:
    """A parameter that joined the run in mid-piece has the age of the others in the next one."""
    tx, one = cx.restart(cx.conditionally_mask(cx.adam(0.1)), 3), jnp.ones(2)
    params, step = {"a": one}, cx.make_step(tx, donate=False)
    params, state = step(params, tx.init(params), params)
    params["b"] = one
    state = tx.add_param_group(params, state)
    for _ in range(2):
        params, state = step(params, state, jax.tree.map(jnp.ones_like, params))
    fresh = tx.init(params)
    for g in (one, -2 * one, 3 * one):
        got, state = step(params, state, {"a": g, "b": g})
        params, fresh = step(params, fresh, {"a": g, "b": g})
        chex.assert_trees_all_equal(got, params)


def test_a_restart_refuses_the_state_of_other_parameters() -> None:
    """In the engine's words, compiled too."""
    tx = cx.restart(cx.sgd(0.1, momentum=0.9), 2)
    for step in (tx.step, cx.make_step(tx)):
        with pytest.raises(TypeError, match=r"Slot 'trace' .* the state belongs to other parameters"):
            step(jnp.ones(3), tx.init(jnp.ones(2)), jnp.ones(3))


IDLE = 40


@pytest.mark.parametrize("rounding", ("stochastic", "kahan", "ecc", "master"))
def test_idle_steps_round_as_the_chain_does(rounding: str) -> None:
    """Steps of 1e-3 away from 1 are not lost in bfloat16 where the chain does not run, nor when it runs again."""
    inner = cx.chain(cx.scale_by_lr(0.0), cx.apply_update(rounding))
    tx, size = cx.conditionally_transform(inner, lambda k: (k == 0) | (k == IDLE + 1)), np.float32(jnp.bfloat16(1e-3))
    params, step = jnp.ones(2000, jnp.bfloat16), cx.make_step(tx, donate=False)
    state = tx.init(params)
    for _ in range(IDLE + 2):
        params, after = step(params, state, jnp.full(2000, 1e-3, jnp.bfloat16))
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        state = after
    assert int(state.links["conditionally_transform"]["tx"].step) == 2
    got = np.asarray(params, np.float32)
    if rounding == "stochastic":  # each draw is one of its own, or all steps would go the same way
        np.testing.assert_allclose(got.mean(), 1 + IDLE * size, atol=2e-3)
        assert 0 < got.std() < 0.03
    else:
        np.testing.assert_array_equal(got, np.float32(jnp.bfloat16(1 + IDLE * size)))


def test_restart_takes_any_dict() -> None:
    """Also one that keeps its order, which is another kind of node."""
    tx, p = cx.restart(cx.sgd(0.1, momentum=0.9), 2), collections.OrderedDict(w=jnp.ones(2), a=jnp.ones(1))
    state, steps = tx.init(p), []
    for _ in range(5):
        p, state = tx.step(p, state, p)
        steps.append(int(state.links["restart"]["tx"].step))
    assert steps == [1, 2, 1, 2, 1]


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
