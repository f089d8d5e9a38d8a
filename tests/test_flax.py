"""`chainax.flax`, against flax's own classes with Optax, and the functions that read states in flax's forms."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from chainax.core.values.tree import flatten
from chainax.flax import Optimizer, TrainState
from flax import linen as nn
from flax import nnx, serialization, struct
from flax.linen.fp8_ops import OVERWRITE_WITH_GRADIENT
from flax.training import train_state


class Net(nnx.Module):
    """Two layers, a statistic and random numbers: variables of several types, only some of them trained."""

    def __init__(self, dtype: Any = jnp.float32) -> None:
        self.rngs = rngs = nnx.Rngs(0)
        self.first = nnx.Linear(3, 3, rngs=rngs, param_dtype=dtype)
        self.mean = nnx.BatchStat(jnp.zeros(3))
        self.others = nnx.List([nnx.Linear(3, 3, rngs=rngs, param_dtype=dtype)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply it."""
        hidden = self.first(x)
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * jnp.mean(hidden, axis=0).astype(jnp.float32)
        return self.others[0](jnp.tanh(hidden))


X = jax.random.normal(jax.random.key(1), (8, 3))
"""A batch."""


@pytest.fixture(autouse=True)
def flaxs_own_promotion() -> Iterator[None]:
    """Layers of flax and updates of Optax rely on promotion, of ranks and of dtypes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def loss(model: Any) -> jax.Array:
    """Some loss."""
    return jnp.mean((model(X) - 1.0) ** 2)


@nnx.jit
def train_step(model: Net, optimizer: nnx.Optimizer) -> jax.Array:
    """A step as anyone writes it."""
    value, grads = nnx.value_and_grad(loss)(model)
    optimizer.update(model, grads)
    return value


def trained(tx: Any, steps: int = 3, kind: Any = Optimizer, dtype: Any = jnp.float32) -> tuple[Net, Any]:
    """A model and its optimizer after some steps."""
    model = Net(dtype)
    optimizer = kind(model, tx, wrt=nnx.Param)
    for _ in range(steps):
        train_step(model, optimizer)
    return model, optimizer


def params_of(model: nnx.Module) -> dict[str, jax.Array]:
    """The trained parameters by path."""
    return dict(flatten(nnx.as_pure(nnx.state(model, nnx.Param))).items())


# nnx


def test_an_nnx_optimizer_takes_the_steps_of_optax() -> None:
    """AdamW for 100 steps, compared with flax's own optimizer and Optax; statistics go on as there."""
    own, optimizer = trained(cx.adamw(1e-2, weight_decay=0.1), 100)
    theirs, reference = trained(optax.adamw(1e-2, weight_decay=0.1), 100, nnx.Optimizer)
    chex.assert_trees_all_close(params_of(own), params_of(theirs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own.mean[...], theirs.mean[...], rtol=1e-4)
    assert optimizer.step[...] == reference.step[...] == 100
    assert isinstance(optimizer, nnx.Optimizer)


@pytest.mark.parametrize("rounding", ("nearest", "stochastic", "kahan"))
def test_low_precision_parameters_move_in_nnx(rounding: str) -> None:
    """100 steps of 1e-3 take 1 to 0.9. Rounding to nearest loses them all."""
    model = nnx.Linear(4, 64, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16, kernel_init=nnx.initializers.ones)
    optimizer = Optimizer(model, cx.chain(cx.sgd(1e-3), cx.apply_update(rounding)), wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        optimizer.update(model, grads)

    for _ in range(100):
        step(model, optimizer)
    assert model.kernel.dtype == jnp.bfloat16
    expected = 1.0 if rounding == "nearest" else 0.9
    np.testing.assert_allclose(jnp.mean(model.kernel[...].astype(jnp.float32)), expected, atol=4e-3)


def test_slots_of_every_form_live_in_nnx() -> None:
    """Codes with scales, rows and columns, inner chains, guards: the same as by `step`, through split and merge too."""
    tx = cx.chain(
        cx.skip_nonfinite(3),
        cx.accumulate(cx.chain(cx.store(cx.scale_by_adam(), cx.int8()), cx.scale_by_lr(0.1), cx.ema_params(0.9)), 2),
    )
    model = nnx.Linear(64, 64, rngs=nnx.Rngs(0))
    optimizer, start = Optimizer(model, tx, wrt=nnx.Param), jax.tree.map(jnp.copy, nnx.as_pure(nnx.state(model)))
    params, state, step = start, tx.init(start), jax.jit(tx.step)
    grads = jax.tree.map(jnp.cos, nnx.state(model, nnx.Param))
    update = nnx.jit(lambda model, optimizer, grads: optimizer.update(model, grads), donate_argnums=(0, 1))
    for factor in (1.0, np.nan, 1.0, 1.0):
        scaled = jax.tree.map(functools.partial(jnp.multiply, factor), grads)
        update(model, optimizer, scaled)
        params, state = step(params, state, nnx.as_pure(scaled))
        graphdef, variables = nnx.split((model, optimizer))
        model, optimizer = nnx.merge(graphdef, variables)
    chex.assert_trees_all_equal(tx.state_dict(optimizer.opt_state), tx.state_dict(state))
    chex.assert_trees_all_equal(params_of(model), dict(flatten(params).items()))
    assert not np.array_equal(model.kernel[...], start["kernel"])
    assert cx.recorded(tx, optimizer.opt_state)["skip_nonfinite"]["skipped"] == 1
    boxes = jax.tree.leaves(optimizer.opt_state, is_leaf=lambda x: isinstance(x, nnx.Variable))
    assert {type(x) for x in boxes} == {nnx.OptArray, nnx.training.optimizer.OptVariable}


def test_extra_arguments_reach_the_chain_in_nnx() -> None:
    """Values, and functions of the parameters."""
    model, tx = (
        nnx.Linear(3, 1, rngs=nnx.Rngs(0)),
        cx.chain(cx.sharpness_aware(0.05), cx.scale_by_polyak(), cx.sgd(1.0)),
    )
    start = nnx.as_pure(nnx.state(model, nnx.Param))
    optimizer, graphdef = Optimizer(model, tx, wrt=nnx.Param), nnx.graphdef(model)

    def value_fn(params: Any) -> jax.Array:
        return loss(nnx.merge(graphdef, params))

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads, value=value, grad_fn=jax.grad(value_fn))

    step(model, optimizer)
    value, grads = jax.value_and_grad(value_fn)(start)
    expected, _ = tx.step(start, tx.init(start), grads, value=value, grad_fn=jax.grad(value_fn))
    chex.assert_trees_all_close(params_of(model), dict(flatten(expected).items()), rtol=1e-6)
    before = params_of(model)
    with pytest.raises(TypeError, match=r"Link 'sharpness_aware' reads 'grad_fn'"):
        optimizer.update(model, nnx.grad(loss)(model), value=0.0)
    chex.assert_trees_all_equal(params_of(model), before)
    assert optimizer.step[...] == optimizer.opt_state.step[...] == 1


def test_numbers_that_are_arrays_can_be_edited_without_a_trace() -> None:
    """An optimizer of nnx refuses a chain with arrays; here they are data, like the state."""
    traces = []

    @nnx.jit
    def step(model: Any, optimizer: Any) -> None:
        traces.append(0)
        optimizer.update(model, nnx.grad(loss)(model))

    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    optimizer = Optimizer(model, cx.sgd(jnp.float32(0.1)), wrt=nnx.Param)
    step(model, optimizer)
    optimizer.tx = optimizer.tx.replace("scale_by_lr", learning_rate=jnp.float32(0.0))
    before = params_of(model)
    step(model, optimizer)
    chex.assert_trees_all_equal(params_of(model), before)
    assert len(traces) == 1


def test_the_chain_of_a_run_is_edited_in_nnx() -> None:
    """The new optimizer goes on from the old one's state."""
    model, optimizer = trained(cx.adam(1e-2))
    edited = optimizer.tx.insert(cx.clip(0.1), before="scale_by_adam")
    opt_state, report = edited.adopt(nnx.state(model, nnx.Param), optimizer.opt_state)
    again = Optimizer(model, edited, wrt=nnx.Param, opt_state=opt_state)
    assert report.missing == []
    assert again.step[...] == again.opt_state.step[...] == 3
    chex.assert_trees_all_equal(edited.state_dict(again.opt_state), optimizer.tx.state_dict(optimizer.opt_state))
    assert jax.tree.structure(nnx.state(again)) == jax.tree.structure(nnx.state(optimizer))
    train_step(model, again)
    assert again.step[...] == 4


def test_orbax_restores_model_and_optimizer(tmp_path: Path) -> None:
    """The run goes on with the same numbers."""
    tx = cx.chain(cx.adamw(cx.linear_schedule(1e-2, 0.0, 10)), cx.apply_update("kahan"))
    model, optimizer = trained(tx, dtype=jnp.bfloat16)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", nnx.state((model, optimizer)))
    other = Net(jnp.bfloat16)
    graphdef, like = nnx.split((other, Optimizer(other, tx, wrt=nnx.Param)))
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "run", like)
    again = nnx.merge(graphdef, restored)
    chex.assert_trees_all_equal(nnx.as_pure(nnx.state(again)), nnx.as_pure(nnx.state((model, optimizer))))
    assert train_step(model, optimizer) == train_step(*again)
    chex.assert_trees_all_equal(params_of(again[0]), params_of(model))


def test_slots_keep_the_metadata_of_their_parameters() -> None:
    """For shardings by name; a slot of another shape has none."""
    init = nnx.with_partitioning(nnx.initializers.ones, ("in", "out"))
    with nnx.use_eager_sharding(False):
        model = nnx.Linear(256, 256, rngs=nnx.Rngs(0), kernel_init=init)
    tx = cx.chain(cx.scale_by_adam(), cx.scale_by_factored_rms(), cx.scale_by_lr(0.1))
    links = Optimizer(model, tx, wrt=nnx.Param).opt_state.links
    assert links["scale_by_adam"]["mu"]["kernel"].get_metadata()["out_sharding"] == ("in", "out")
    assert "out_sharding" not in links["scale_by_factored_rms"]["nu_row"]["kernel"].get_metadata()


@pytest.mark.parametrize("kind", (Optimizer, nnx.Optimizer), ids=("chainax", "flax"))
def test_readers_take_models_and_states_of_nnx(kind: Any) -> None:
    """As training loops hold them: the results are those for plain trees, in the form of the parameters."""
    tx = cx.chain(
        cx.dynamic_loss_scale(),
        cx.record("norm"),
        cx.adam(cx.linear_schedule(1e-2, 0.0, 10), b1=cx.by_path({"bias": 0.5}, default=0.9)),
        cx.store(cx.ema_params(0.9), cx.by_path({"first/kernel": "bfloat16"}, default="float32")),
    )
    model, optimizer = trained(tx, kind=kind)
    boxed, state = nnx.state(model, nnx.Param), optimizer.opt_state
    params, plain = nnx.as_pure((boxed, state))
    average = cx.read_average(tx, params, plain)
    assert not np.array_equal(average["first"]["kernel"], params["first"]["kernel"])
    chex.assert_trees_all_equal(nnx.as_pure(cx.read_average(tx, boxed, state)), average)
    assert jax.tree.structure(cx.read_average(tx, boxed, state)) == jax.tree.structure(boxed)
    whole = cx.read_average(tx, nnx.state(model), state)
    chex.assert_trees_all_equal(nnx.as_pure(nnx.filter_state(whole, nnx.Param)), average)
    averaged = cx.read_average(tx, model, state)
    assert type(averaged) is Net
    chex.assert_trees_all_equal(params_of(averaged), dict(flatten(average).items()))
    chex.assert_trees_all_equal(averaged.mean[...], model.mean[...])
    chex.assert_trees_all_equal(params_of(model), dict(flatten(params).items()))
    assert np.isfinite(loss(averaged))

    chex.assert_trees_all_equal(cx.recorded(tx, state), cx.recorded(tx, plain))
    assert "loss_scale" in cx.recorded(tx, state)["dynamic_loss_scale"]
    assert cx.loss_scale(state) == cx.loss_scale(plain)
    for form in (boxed, model):
        numbers = tx.hyperparams(state, form)
        chex.assert_trees_all_equal(numbers, tx.hyperparams(plain, params))
        assert not isinstance(numbers["scale_by_lr"]["learning_rate"], nnx.Variable)
        assert {*numbers["scale_by_adam"]["b1"]} == {*params_of(model)}
    chex.assert_trees_all_equal(tx.state_dict(state), tx.state_dict(plain))
    adopted, report = tx.adopt(boxed, state)
    assert report.missing == []
    chex.assert_trees_all_equal(nnx.as_pure(adopted), plain)
    ahead = tx.lookahead(model, state)
    chex.assert_trees_all_equal(params_of(ahead), dict(flatten(tx.lookahead(params, plain)).items()))


def test_schedule_free_evaluates_a_model() -> None:
    """At the mean, with what is not trained as it is."""
    model, optimizer = trained(cx.schedule_free_adamw(1e-2))
    tx, state = optimizer.tx, optimizer.opt_state
    mean = cx.schedule_free_eval_params(tx, nnx.as_pure(nnx.state(model, nnx.Param)), nnx.as_pure(state))
    evaluated = cx.schedule_free_eval_params(tx, model, state)
    chex.assert_trees_all_equal(params_of(evaluated), dict(flatten(mean).items()))
    assert not np.array_equal(evaluated.first.kernel[...], model.first.kernel[...])
    chex.assert_trees_all_equal(evaluated.mean[...], model.mean[...])


def test_shared_weights_stay_shared_in_the_average() -> None:
    """The model has a variable in two places, the optimizer in one."""
    model = Net()
    model.others[0] = model.first
    optimizer = Optimizer(model, cx.chain(cx.sgd(0.1), cx.ema_params(0.9)), wrt=nnx.Param)
    for _ in range(2):
        optimizer.update(model, nnx.grad(loss)(model))
    averaged = cx.read_average(optimizer.tx, model, optimizer.opt_state)
    assert averaged.first is averaged.others[0]
    assert not np.array_equal(averaged.first.kernel[...], model.first.kernel[...])


def test_pending_steps_are_flushed_in_nnx() -> None:
    """Parameters and state return in the forms in which they came."""
    tx = cx.accumulate(cx.adam(1e-2), every=3)
    model, optimizer = trained(tx, steps=4)
    boxed, state = nnx.state(model, nnx.Param), optimizer.opt_state
    params, plain = cx.flush(tx, *nnx.as_pure((boxed, state)))
    moved, flushed = cx.flush(tx, boxed, state)
    assert jax.tree.structure((moved, flushed)) == jax.tree.structure((boxed, state))
    chex.assert_trees_all_equal(nnx.as_pure((moved, flushed)), (params, plain))
    nnx.update(model, moved)
    nnx.update(optimizer.opt_state, nnx.state(flushed))
    chex.assert_trees_all_equal(params_of(model), dict(flatten(params).items()))
    assert optimizer.opt_state.links["accumulate"]["tx"].step[...] == 2


def test_a_line_search_runs_in_nnx() -> None:
    """With the value and gradient that the last step's search has stored."""
    tx, model = cx.lbfgs(), nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    optimizer, graphdef = Optimizer(model, tx, wrt=nnx.Param), nnx.graphdef(model)

    def value_fn(params: Any) -> jax.Array:
        return loss(nnx.merge(graphdef, params))

    @nnx.jit
    def step(model: Any, optimizer: Any) -> jax.Array:
        value, grad = cx.value_and_grad_from_state(tx, loss, model, optimizer.opt_state)
        optimizer.update(model, grad, value=value, grad=grad, value_fn=value_fn)
        return value

    assert step(model, optimizer) > 0.1
    for _ in range(6):
        step(model, optimizer)
    best = np.linalg.lstsq(np.c_[X, np.ones(8)], np.ones(8), rcond=None)[0]
    found = params_of(model)
    np.testing.assert_allclose(np.append(found["kernel"], found["bias"]), best, atol=1e-4)
    boxed = nnx.state(model, nnx.Param)
    for form, own in ((boxed, value_fn), (model, loss)):
        value, grad = cx.value_and_grad_from_state(tx, own, form, optimizer.opt_state)
        assert jax.tree.structure(grad) == jax.tree.structure(boxed)
        np.testing.assert_allclose(value, 0.0, atol=1e-8)


# linen


class Dense(nn.Module):
    """A layer."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply it."""
        return nn.Dense(2, param_dtype=self.dtype)(x)


def linen(kind: Any, tx: Any, steps: int, dtype: Any = jnp.float32, **fields: Any) -> Any:
    """A training state after some steps with donation."""
    model = Dense(dtype)
    state = kind.create(apply_fn=model.apply, params=model.init(jax.random.key(0), X)["params"], tx=tx, **fields)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any) -> Any:
        return state.apply_gradients(
            grads=jax.grad(lambda p: loss(lambda x: state.apply_fn({"params": p}, x)))(state.params)
        )

    for _ in range(steps):
        state = step(state)
    return state


def test_a_linen_state_takes_the_steps_of_optax() -> None:
    """AdamW for 100 steps, compared with flax's own state and Optax."""
    own = linen(TrainState, cx.adamw(1e-2, weight_decay=0.1), 100)
    theirs = linen(train_state.TrainState, optax.adamw(1e-2, weight_decay=0.1), 100)
    chex.assert_trees_all_close(own.params, theirs.params, rtol=1e-4, atol=1e-5)
    assert own.step == theirs.step == own.opt_state.step == 100
    assert isinstance(own, train_state.TrainState)


def test_low_precision_parameters_move_in_linen() -> None:
    """100 steps of 1e-3 in bfloat16 with Kahan summation; the state survives bytes."""
    params = grads = {"w": jnp.ones(3, jnp.bfloat16)}
    tx = cx.chain(cx.sgd(1e-3), cx.apply_update("kahan"))
    state = TrainState.create(apply_fn=None, params=params, tx=tx)
    for _ in range(50):
        state = state.apply_gradients(grads=grads)
    restored: Any = serialization.from_bytes(
        TrainState.create(apply_fn=None, params=params, tx=tx), serialization.to_bytes(state)
    )
    chex.assert_trees_all_equal(restored, state)
    for _ in range(50):
        restored = restored.apply_gradients(grads=grads)
    np.testing.assert_allclose(restored.params["w"].astype(jnp.float32), 0.9, atol=2e-3)


class Fields(TrainState):
    """A state with fields of its own, one of which has the name of an extra argument."""

    statistics: Any = None
    value: Any = struct.field(default=None)


def test_fields_are_replaced_and_other_arguments_reach_the_chain() -> None:
    """And a name that could be either is refused."""
    params = grads = {"w": jnp.ones(3)}
    moved = Fields.create(apply_fn=None, params=params, tx=cx.sgd(0.1)).apply_gradients(
        grads=grads, statistics=7, value=8
    )
    assert (moved.statistics, moved.value, moved.step) == (7, 8, 1)
    tx = cx.chain(cx.scale_by_polyak(), cx.sgd(1.0))
    state = TrainState.create(apply_fn=None, params=params, tx=tx)
    expected, _ = tx.step(params, tx.init(params), grads, value=1.0)
    chex.assert_trees_all_equal(state.apply_gradients(grads=grads, value=1.0).params, expected)
    with pytest.raises(TypeError, match=r"Link 'scale_by_polyak' reads 'value': call tx\.step"):
        state.apply_gradients(grads=grads)
    with pytest.raises(TypeError, match="Unknown extra argument 'statistics'"):
        state.apply_gradients(grads=grads, value=1.0, statistics=7)
    with pytest.raises(
        TypeError, match="Fields has a field 'value', and link 'scale_by_polyak' reads an extra argument"
    ):
        Fields.create(apply_fn=None, params=params, tx=tx).apply_gradients(grads=grads, value=1.0)


def test_a_linen_chain_is_edited() -> None:
    """As the docstring says."""
    state = linen(TrainState, cx.adam(1e-2), 2)
    edited = state.tx.replace("scale_by_lr", learning_rate=0.0)
    before = state.params
    state = state.replace(tx=edited, opt_state=edited.adopt(state.params, state.opt_state)[0])
    moved = state.apply_gradients(grads=state.params)
    chex.assert_trees_all_equal(moved.params, before)
    assert moved.opt_state.step == moved.step == 3


def test_boxes_of_linen_are_read() -> None:
    """Parameters with names of axes go through a step, and averages come back in the same boxes."""
    tx = cx.chain(cx.sgd(0.1, weight_decay=cx.by_path({"^w$": 0.0})), cx.ema_params(0.5))
    params = grads = {"w": nn.Partitioned(jnp.ones((2, 3)), names=("in", "out"))}
    state = TrainState.create(apply_fn=None, params=params, tx=tx)
    for _ in range(2):
        state = state.apply_gradients(grads=grads)
    average = cx.read_average(tx, state.params, state.opt_state)
    assert average["w"].names == ("in", "out")
    np.testing.assert_allclose(average["w"].value, (0.9 * 0.25 + 0.8 * 0.5) / 0.75, rtol=1e-6)


def test_gradients_that_are_values_overwrite() -> None:
    """The scales of linen's fp8 layers, as in flax's own state."""
    params = {"params": {"w": jnp.ones(2)}, OVERWRITE_WITH_GRADIENT: {"scale": jnp.ones(())}}
    grads = {"params": {"w": jnp.ones(2)}, OVERWRITE_WITH_GRADIENT: {"scale": jnp.full((), 5.0)}}
    own = TrainState.create(apply_fn=None, params=params, tx=cx.sgd(0.1)).apply_gradients(grads=grads)
    theirs = train_state.TrainState.create(apply_fn=None, params=params, tx=optax.sgd(0.1)).apply_gradients(grads=grads)
    chex.assert_trees_all_close(own.params, theirs.params)


# Mistakes


@pytest.mark.parametrize(
    "make",
    (
        lambda tx: Optimizer(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), tx, wrt=nnx.Param),
        lambda tx: TrainState.create(apply_fn=None, params={"w": jnp.ones(2)}, tx=tx),
    ),
    ids=("nnx", "linen"),
)
def test_what_is_no_chain_is_refused(make: Any) -> None:
    """With what to write."""
    with pytest.raises(
        TypeError, match=r"got GradientTransformationExtraArgs as tx: write cx\.from_optax\(tx\), or use"
    ):
        make(optax.adam(1e-3))
    with pytest.raises(TypeError, match="got float as tx: give it a chain"):
        make(1e-3)


def test_the_state_of_another_chain_is_refused_at_once() -> None:
    """Not at the first update."""
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    state = cx.sgd(0.1, momentum=0.9).init(nnx.state(model, nnx.Param))
    with pytest.raises(KeyError, match="The state is not of this chain"):
        Optimizer(model, cx.adam(1e-3), wrt=nnx.Param, opt_state=state)
