"""Chains for groups of parameters against Optax, and parameters that are frozen."""

from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import Tree, assert_agree, problem, run

GROUPS = {"matrix": "a", "vector": "a", "scalar": "b", "cube": "c", "empty": "c"}
MODEL = {"embed": {"table": jnp.ones((3, 2))}, "layer": {"bias": jnp.array([-0.0, 1.0]), "kernel": jnp.ones((2, 2))}}


def test_agrees_with_optax(x64: None) -> None:
    """The same as `multi_transform`, whose groups clip by norms of their own too, with one that is frozen."""

    def theirs(learning_rate: Any) -> Any:
        clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(learning_rate, momentum=0.9))
        chains = {"a": clipped, "b": optax.adam(1e-2), "c": optax.set_to_zero()}
        return optax.multi_transform(chains, lambda params: {n: GROUPS[n] for n in params})

    clipped = cx.chain(cx.clip_by_global_norm(1.0), cx.sgd(0.1, momentum=0.9))
    tx = cx.partition(cx.by_path({"matrix|vector": clipped, "scalar": cx.adam(1e-2)}, default=cx.freeze()))
    params, grads = problem(seed=0)
    expected = run_optax(theirs, {"learning_rate": 0.1}, params, grads)
    assert_agree(run(tx, params, grads), expected, 1e-9)
    assert_agree(run(cx.chain(tx, cx.scale(1.0)), params, grads), expected, 1e-9)


def test_an_empty_chain_is_a_mask(x64: None) -> None:
    """A group with no links has its updates as they come: Optax's `masked`."""

    def theirs() -> Any:
        mask = {n: n != "cube" for n in GROUPS}
        return optax.chain(optax.masked(optax.scale_by_adam(), mask), optax.scale(-1e-2))

    params, grads = problem(seed=0)
    masked = cx.partition(cx.by_path({"cube": cx.chain()}, default=cx.scale_by_adam()))
    ours = run(cx.chain(masked, cx.scale_by_lr(1e-2)), params, grads)
    assert_agree(ours, run_optax(theirs, {}, params, grads), 1e-9)


def test_groups_are_chains_of_their_own(x64: None) -> None:
    """Each is what its chain makes of its parameters alone; the first pattern that is found decides."""
    params, grads = problem(seed=0)
    first, rest = (
        cx.adamw(cx.linear_schedule(1e-2, 0.0, 50)),
        cx.adamw(1e-3, weight_decay=cx.by_path({"cube": 0.0}, 1.0)),
    )
    ours = run(cx.partition(cx.by_path({"a": first, "matrix|vector": cx.sgd(0.1)}, default=rest)), params, grads)
    for tx, names in ((first, ("matrix", "scalar")), (cx.sgd(0.1), ("vector",)), (rest, ("cube", "empty"))):
        some: list[Tree] = [{n: tree[n] for n in names} for tree in (params, grads)]
        assert_agree({n: ours[n] for n in names}, run(tx, *some), 1e-9)


def test_frozen_parameters_stay_to_the_bit_and_cost_nothing() -> None:
    """−0 stays −0, NaN gradients and decay of others notwithstanding; in the state there is nothing of them."""
    tx = cx.partition(cx.by_path({"embed|bias": cx.freeze()}, default=cx.adamw(0.1, weight_decay=0.1)))
    state, params = tx.init(MODEL), MODEL
    names = [name for name in tx.state_dict(state) if "embed" in name or "bias" in name]
    assert names == []
    assert sum(x.nbytes for x in jax.tree.leaves(state.links)) == 2 * MODEL["layer"]["kernel"].nbytes + 4
    step = cx.make_step(tx, donate=False)
    grads = jax.tree.map(lambda p: p * jnp.nan, MODEL)
    grads["layer"]["kernel"] = jnp.ones((2, 2))
    for _ in range(3):
        params, state = step(params, state, grads)
    for old, new in (
        (MODEL["embed"]["table"], params["embed"]["table"]),
        (MODEL["layer"]["bias"], params["layer"]["bias"]),
    ):
        assert np.asarray(old).tobytes() == np.asarray(new).tobytes()
    assert not np.array_equal(params["layer"]["kernel"], MODEL["layer"]["kernel"])
    updates, _ = tx.update(grads, state, params)
    moved = cx.apply_updates(params, updates)
    assert np.signbit(moved["layer"]["bias"]).tolist() == [True, False]


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16, jnp.complex64))
def test_freeze_is_a_link(dtype: Any) -> None:
    """Outside of a partition too nothing moves, whatever the gradient is, and −0 stays −0."""
    params = jnp.asarray([-0.0, 0.0, 1.5, jnp.inf], dtype)
    for tx in (cx.freeze(), cx.chain(cx.sgd(0.1), cx.freeze())):
        new, _ = cx.make_step(tx, donate=False)(params, tx.init(params), params * jnp.asarray(jnp.nan, dtype))
        assert np.asarray(new).tobytes() == np.asarray(params).tobytes()


def test_whole_numbers_need_no_chain() -> None:
    """No pattern need match them, and they stay."""
    tx = cx.partition(cx.by_path({"layer": cx.sgd(0.1)}))
    params = {"layer": jnp.ones(2), "count": jnp.arange(2)}
    moved, _ = tx.step(params, tx.init(params), {"layer": jnp.ones(2), "count": None})
    chex.assert_trees_all_close(moved, {"layer": jnp.full(2, 0.9), "count": jnp.arange(2)})


def test_a_pattern_that_decides_for_nothing_warns() -> None:
    """Also where an earlier one has taken all its parameters; `describe` is silent."""
    for table in ({"embedd": cx.sgd(0.1)}, {"embed": cx.sgd(0.1), "table": cx.sgd(0.2)}):
        tx = cx.partition(cx.by_path(table, default=cx.sgd(0.1)))
        with pytest.warns(cx.ChainWarning, match=rf"the pattern '{list(table)[-1]}' decides for no parameter"):
            tx.init(MODEL)
        tx.describe()


def test_extra_arguments_go_to_the_chains_that_read_them() -> None:
    """One group reads the loss, another searches a line of the whole function, and the third takes neither."""
    tx = cx.partition(cx.by_path({"embed": cx.polyak_sgd(), "kernel": cx.lbfgs()}, default=cx.sgd(0.1)))

    def f(params: Any) -> jax.Array:
        return sum((jnp.sum(jnp.square(x - 3)) for x in jax.tree.leaves(params)), jnp.zeros(()))

    assert set(tx.extra) == {"value", "grad", "value_fn"}
    params, state, values = MODEL, tx.init(MODEL), []
    for _ in range(12):
        value, grad = jax.value_and_grad(f)(params)
        params, state = tx.step(params, state, grad, value=value, grad=grad, value_fn=f)
        values.append(float(value))
    assert values[-1] < 0.01 * values[0]
    with pytest.raises(TypeError, match=r"Link 'partition' reads 'value'"):
        tx.step(MODEL, tx.init(MODEL), MODEL)


def test_a_guard_refuses_for_its_group_alone() -> None:
    """The other group moves on."""
    guarded = cx.chain(cx.skip_nonfinite(), cx.sgd(0.1))
    tx = cx.partition(cx.by_path({"embed": guarded}, default=cx.sgd(0.1)))
    grads = jax.tree.map(jnp.ones_like, MODEL)
    grads["embed"]["table"] = jnp.full((3, 2), jnp.nan)
    params, state = tx.step(MODEL, tx.init(MODEL), grads)
    chex.assert_trees_all_equal(params["embed"], MODEL["embed"])
    np.testing.assert_allclose(params["layer"]["kernel"], 0.9)
    assert (state.links["partition"]["embed"].step, state.links["partition"]["default"].step) == (0, 1)


def test_a_parameter_that_joins_needs_a_state() -> None:
    """The message is that of the group's chain; `add_param_group` makes the state."""
    tx = cx.partition(cx.by_path({"embed|bias": cx.adam(0.1)}, default=cx.freeze()))
    state = tx.init({**MODEL, "embed": {"table": None}})
    with pytest.raises(
        TypeError, match=r"no slot 'mu' of link 'scale_by_adam' for parameter 'embed/table'.*add_param_g"
    ):
        tx.step(MODEL, state, MODEL)
    state = tx.add_param_group(MODEL, state)
    assert tx.step(MODEL, state, MODEL)[1].step == 1
