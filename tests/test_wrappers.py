"""What holds for every link that holds a chain: nesting, checkpoints, storage, sharding, functions, and edits."""

import pickle
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from reference import assert_agree, problem, run

ADAM = cx.chain(cx.clip_by_global_norm(1.0), cx.adam(1e-2))
GROUPS = cx.partition(cx.by_path({"matrix": ADAM, "cube": cx.freeze()}, default=cx.sgd(0.1, momentum=0.9)))
WRAPPED = {
    "accumulate": cx.accumulate(ADAM, 3),
    "restart": cx.restart(ADAM, 4),
    "partition": GROUPS,
    "flatten": cx.flatten(ADAM),
    "accumulated groups": cx.accumulate(GROUPS, 3),
    "groups that accumulate": cx.partition(cx.by_path({"matrix": cx.accumulate(ADAM, 3)}, default=ADAM)),
    "averaged": cx.chain(cx.clip(0.5), cx.accumulate(cx.chain(GROUPS, cx.ema_params(0.9)), 3)),
    "deep": cx.conditionally_transform(cx.accumulate(cx.chain(cx.flatten(ADAM), cx.slow_weights(2)), 2)),
}
every = pytest.mark.parametrize("tx", WRAPPED.values(), ids=WRAPPED)


def train(tx: Any, params: Any, state: Any, grads: list[Any]) -> Any:
    """Some steps."""
    step = cx.make_step(tx, donate=False)
    for g in grads:
        params, state = step(params, state, g)
    return params, state


@pytest.fixture
def run_of_ten() -> tuple[Any, list[Any]]:
    """Parameters and ten gradients."""
    params, grads = jax.tree.map(jnp.float32, problem(seed=0))
    return params, [{n: g[k] for n, g in grads.items()} for k in range(10)]


@every
def test_checkpoints_continue_in_the_middle(tx: Any, run_of_ten: Any) -> None:
    """Stored as a flat dict after five steps, loaded and pickled, the run goes on as if nothing had been."""
    params, grads = run_of_ten
    whole = train(tx, params, tx.init(params), grads)
    params, state = train(tx, params, tx.init(params), grads[:5])
    copy = pickle.loads(pickle.dumps(tx))
    loaded, report = copy.load_state_dict(params, tx.state_dict(pickle.loads(pickle.dumps(state))))
    assert (report.missing, report.unexpected, report.mismatched) == ([], [], [])
    chex.assert_trees_all_equal(train(copy, params, loaded, grads[5:]), whole)


@pytest.mark.filterwarnings("ignore:.* averages the parameters")  # the other link comes after it on purpose
@every
def test_a_wrapper_in_a_chain_is_itself(tx: Any, x64: None) -> None:
    """Followed by a link that does nothing it gives updates, and the chain adds them: the same trajectory."""
    params, grads = problem(seed=0)
    assert_agree(run(cx.chain(tx, cx.scale(1.0)), params, grads), run(tx, params, grads), 1e-9)


@every
def test_the_inner_state_lies_where_the_parameters_lie(tx: Any) -> None:
    """On 8 devices nothing is gathered, but for one vector of all; the step is that of a single device."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    params = {"matrix": jnp.linspace(-1.0, 2.0, 24).reshape(8, 3), "vector": jnp.ones(16), "cube": jnp.ones((8, 2, 1))}
    where = NamedSharding(mesh, P("d"))
    sharded = jax.device_put(params, where)
    state = tx.init(sharded)
    arrays = [x for x in jax.tree.leaves(state.links) if x.ndim]
    assert arrays
    assert "flatten" in repr(tx) or all(x.sharding.is_equivalent_to(where, x.ndim) for x in arrays)
    got, after = cx.make_step(tx, donate=False)(sharded, state, sharded)
    chex.assert_trees_all_close(got, tx.step(params, tx.init(params), params)[0], rtol=1e-6)
    assert got["matrix"].sharding.is_equivalent_to(where, 2)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@every
def test_leaves_of_any_kind_pass_through(tx: Any) -> None:
    """Strings, functions and whole numbers among the parameters are as they were, and so are holes."""
    rest = {"name": "model", "call": len, "n": 3, "hole": None}
    params = {"matrix": jnp.ones((2, 2)), "cube": jnp.ones(2), "vector": jnp.ones(3)}
    state = tx.init({**params, **rest})
    for _ in range(6):
        grads = {**jax.tree.map(jnp.ones_like, params), **dict.fromkeys(rest)}
        moved, state = tx.step({**params, **rest}, state, grads)
        assert {name: moved[name] for name in rest} == rest
        params = {name: moved[name] for name in params}
    assert float(params["matrix"][0, 0]) < 1


@every
def test_low_precision_is_widened_inside(tx: Any) -> None:
    """Slots of bfloat16 parameters are float32, and no dtype changes from step to step."""
    params = {name: jnp.ones((2, 2), jnp.bfloat16) for name in ("matrix", "cube", "vector")}
    state = jax.eval_shape(tx.init, params)
    assert {x.dtype.name for x in jax.tree.leaves(state)} <= {"float32", "int32"}
    after = jax.eval_shape(tx.step, params, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, (params, state))


@pytest.mark.parametrize("name", ("accumulate", "restart", "flatten", "deep"))
def test_store_reaches_the_links_inside(name: str) -> None:
    """Slots of the inner chain are stored as asked, and read by its own links."""
    tx, params = cx.store(WRAPPED[name], nu="bfloat16"), {"w": jnp.ones(3)}
    state = tx.init(params)
    dtypes = {path.split("/")[-2]: x.dtype.name for path, x in tx.state_dict(state).items() if "scale_by_adam" in path}
    assert dtypes == {"mu": "float32", "nu": "bfloat16"}
    moved, _ = tx.step(params, state, params)
    chex.assert_trees_all_close(moved, WRAPPED[name].step(params, WRAPPED[name].init(params), params)[0], rtol=1e-4)


def test_functions_get_the_whole_tree() -> None:
    """A line search inside calls the function with all parameters: whole numbers and other groups too."""
    params = {"matrix": jnp.zeros((2, 2)), "vector": jnp.zeros(3), "power": 2}

    def f(there: Any) -> jax.Array:
        terms = [jnp.sum(jnp.abs(there[n] - 3) ** there["power"]) for n in ("matrix", "vector")]
        return terms[0] + terms[1]

    for tx in (
        cx.accumulate(cx.lbfgs(), 1),
        cx.restart(cx.lbfgs(), 3),
        cx.accumulate(cx.flatten(cx.partition(cx.by_path({"float": cx.lbfgs()}))), 1),
    ):
        assert set(tx.extra) == {"value", "grad", "value_fn"}
        end = cx.minimize(tx, f, params, max_steps=5)
        assert float(end.value) < 1e-6
        assert end.params["power"] == 2


def test_a_wrapper_has_the_role_of_its_chain() -> None:
    """So an order that is almost certainly a mistake is seen from outside."""
    roles = {"descend": ADAM, "precondition": cx.scale_by_adam(), "clip": cx.clip(1.0), "other": cx.chain()}
    assert [cx.accumulate(tx, 2).role for tx in roles.values()] == list(roles)
    with pytest.warns(cx.ChainWarning, match="'accumulate' and 'scale_by_lr' each flip the sign"):
        cx.chain(cx.accumulate(ADAM, 2), cx.scale_by_lr(0.1))
    with pytest.warns(cx.ChainWarning, match="'add_decayed_weights' comes after 'scale_by_lr' in 'partition' has"):
        cx.chain(GROUPS, cx.add_decayed_weights(0.1))


def test_wrappers_are_edited_as_values() -> None:
    """Another chain inside, and what is different then."""
    tx = cx.chain(cx.clip(1.0), cx.accumulate(cx.sgd(0.1), 2))
    other = tx.replace("accumulate", tx=cx.sgd(0.2))
    assert tx.diff(other) == "accumulate/scale_by_lr.learning_rate: 0.1 → 0.2"
    assert jax.tree.leaves(other) == [1.0, 0.2]
    assert "accumulate" in tx.describe({"w": jnp.ones(3)})


def test_apply_update_belongs_inside() -> None:
    """Where a wrapper moves the parameters, how they are rounded is said in the chain that it runs."""
    params = jnp.ones(1000, jnp.bfloat16)
    rounding = cx.apply_update("stochastic")
    outside = cx.chain(cx.accumulate(cx.sgd(1e-3), 1), rounding)
    with pytest.raises(TypeError, match=r"'accumulate' moves the parameters itself: put 'apply_update' into the chain"):
        outside.step(params, outside.init(params), params)
    for tx in (
        cx.accumulate(cx.chain(cx.sgd(1e-3), rounding), 1),
        cx.conditionally_mask(cx.accumulate(cx.chain(cx.sgd(1e-3), rounding), 1)),
        cx.partition(cx.by_path({".*": cx.chain(cx.sgd(1e-3), rounding)})),
    ):
        moved, _ = tx.step(params, tx.init(params), params)
        assert moved.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(moved, np.float32).mean(), 0.999, atol=2e-4)
        assert len(np.unique(np.asarray(moved, np.float32))) == 2


@pytest.mark.parametrize(
    "wrap", (cx.flatten, cx.pack, cx.split_complex, cx.mechanize, cx.schedule_free, cx.scale_by_galore)
)
def test_apply_update_belongs_outside(wrap: Any) -> None:
    """Where a wrapper does not let its chain move the parameters, nor a chain in it, that is said when it is built."""
    chain = cx.chain(cx.scale_by_lr(1.0), cx.apply_update("kahan"))
    for inner in (chain, cx.partition(cx.by_path({".*": chain}))):
        with pytest.raises(ValueError, match=rf"`{wrap.__name__}.tx`: 'apply_update' .* the end of the outer chain"):
            wrap(inner)
    tx, params = cx.chain(wrap(cx.scale_by_lr(1.0)), cx.apply_update("kahan")), jnp.ones((2, 2), jnp.bfloat16)
    assert tx.step(params, tx.init(params), params)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("rounding", ("kahan", "ecc", "master"))
@pytest.mark.parametrize(
    "wrap",
    (
        lambda tx: cx.accumulate(tx, every=1),
        lambda tx: cx.partition(cx.by_path({"w": tx})),
        lambda tx: cx.conditionally_transform(tx, lambda step: step >= 0),
    ),
    ids=("accumulate", "partition", "conditionally_transform"),
)
def test_an_inner_chain_rounds_the_parameters_as_they_are(wrap: Any, rounding: str) -> None:
    """Parameters in bfloat16 come to it unwidened, so that what rounding takes has its slot."""
    inner = cx.chain(cx.scale_by_lr(1e-3), cx.apply_update(rounding))
    tx, grads = wrap(inner), {"w": jnp.ones(4, jnp.bfloat16)}
    params = plain = {"w": jnp.ones(4, jnp.bfloat16)}
    state, plain_state = tx.init(params), inner.init(params)
    for _ in range(5):
        params, after = tx.step(params, state, grads)
        chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
        plain, plain_state = inner.step(plain, plain_state, grads)
        state = after
    chex.assert_trees_all_equal(params, plain)
    assert any(x.shape == (4,) for x in jax.tree.leaves(state.links))


def test_store_reaches_the_chains_inside() -> None:
    """Through wrappers and through tables of chains."""
    tx = cx.accumulate(cx.partition(cx.by_path({"e": cx.sgd(0.1, momentum=0.9)}, default=cx.adam(0.1))), every=2)
    stored = cx.store(tx, trace="bfloat16", nu=cx.int8(min_size=0))
    state = stored.init({"e": jnp.ones(4), "w": jnp.ones(4)})
    groups = state.links["accumulate"]["tx"].links["partition"]
    assert groups["e"].links["trace"]["trace"]["e"].dtype == jnp.bfloat16
    assert set(groups["default"].links["scale_by_adam"]["nu"]["w"]) == {"int8", "scale"}
    with pytest.raises(ValueError, match=r"no link has a slot 'sum'.*; those of .* are mu, nu, trace"):
        cx.store(tx, sum="bfloat16")


def test_describe_shows_the_chains_inside() -> None:
    """Below the wrapper, indented; with what each of them does to the weights, and what schedules are in words."""
    rate = cx.linear_schedule(0.1, 0.0, 10)
    tx = cx.chain(cx.clip(1.0), cx.accumulate(cx.partition(cx.by_path({"e": cx.sgd(rate)}, default=cx.adamw(0.1))), 8))
    lines = tx.describe().splitlines()
    assert [line.split(" ū =")[0].split("  u ←")[0].rstrip() for line in lines[:4]] == [
        "clip",
        "accumulate",
        "  partition",
        "    'e'",
    ]
    assert lines[1].endswith("every=8")
    assert any(line.startswith("      scale_by_adam ") for line in lines)
    assert f"scale_by_lr.learning_rate: {rate.describe()}" in lines
    decoupled = "decoupled (after the preconditioner), scaled by the learning rate"
    assert f"accumulate: partition 'default': weight decay: {decoupled}" in lines
    assert "weight decay: none" not in lines
