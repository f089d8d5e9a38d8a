"""Parameters in any pytree: containers, holes, non-float leaves, odd shapes, other libraries' modules."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import chainax as cx
import chex
import equinox as eqx
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

TX = cx.chain(cx.clip_by_global_norm(10.0), cx.adamw(0.1))


class Layer(NamedTuple):
    """A layer as a NamedTuple."""

    weight: Any
    bias: Any


TREES: dict[str, Any] = {
    "nested": {"a": [jnp.ones(2), (jnp.ones((2, 2)), {"b": jnp.ones(())})]},
    "NamedTuple": Layer(jnp.ones((2, 3)), None),
    "empty dict": {},
    "only holes": {"a": None, "b": [None, {}]},
    "an array": jnp.ones(3),
    "a scalar array": jnp.ones(()),
    "a Python float": 1.0,
    "a NumPy array": np.ones((2, 3), np.float32)[:, ::2],
    "zero-size": {"a": jnp.ones((0,)), "b": jnp.ones((2, 0, 3))},
    "integers and booleans": {"w": jnp.ones(2), "i": jnp.arange(3), "t": jnp.array(True), "n": 3, "flag": True},
    "functions and strings": {"w": jnp.ones(2), "f": jax.nn.relu, "name": "dense"},
    "mixed precision": {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.float16), "c": jnp.ones(2)},
    "many": {f"p{i}": jnp.full((i % 3 + 1,), 1.0) for i in range(300)},
    "large": jnp.ones(1 << 20),
    "keys with slashes": {"a/b": jnp.ones(2), "a": {"b": jnp.ones(3)}},
}


def is_float(x: Any) -> bool:
    """Whether an optimizer should move this leaf."""
    return isinstance(x, float) or (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating))


@pytest.mark.parametrize("kind", TREES)
def test_any_pytree(kind: str) -> None:
    """Floats move by Adam's first step, which is the learning rate and the decay; all else stays the same object."""
    params = TREES[kind]
    grads = jax.tree.map(lambda p: jnp.ones_like(p) if is_float(p) else None, params)
    state = TX.init(params)
    moved, after = TX.step(params, state, grads)
    assert jax.tree.structure(moved) == jax.tree.structure(params)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(moved), strict=True):
        if is_float(old):
            np.testing.assert_allclose(np.asarray(new, np.float32), np.asarray(old, np.float32) - 0.101, rtol=1e-2)
        else:
            assert new is old
    updates, _ = TX.update(grads, state, params)
    chex.assert_trees_all_close(
        jax.tree.leaves(cx.apply_updates(params, updates)), jax.tree.leaves(moved), rtol=1e-2
    ) if kind not in ("functions and strings",) else None


def test_a_state_prints_shapes() -> None:
    """No numbers, which would be many, and a few entries of each container; also where arrays are traced or deleted."""
    params = {"a": Layer(jnp.ones((2, 3)), None), "b": [jnp.ones(4), (jnp.ones(()),)]}
    state = cx.chain(cx.trace(0.9), cx.from_optax(optax.trace(0.9))).init(params)
    layers = "'a': Layer(weight=float32[2, 3], bias=None), 'b': [float32[4], (float32[])]"
    links = f"{{'from_optax': TraceState(trace={{{layers}}}), 'trace': {{'trace': {{{layers}}}}}}}"
    shown = f"State(step=int32[], links={links}, born={{}})"
    assert repr(state) == shown
    assert repr(jax.eval_shape(lambda: state)) == shown
    seen = []
    jax.eval_shape(lambda s: seen.append(repr(s)), state)
    assert seen == [shown]
    jax.tree.map(lambda x: x.delete(), state)
    assert repr(state) == shown
    many = cx.adam(1e-3).init({f"layer_{i}": {"bias": jnp.ones(()), "kernel": jnp.ones(())} for i in range(1000)})
    assert len(repr(many)) < 2000
    assert "... and 992 more" in repr(many)


def test_float0_gradients_leave_integers_alone() -> None:
    """`jax.grad(..., allow_int=True)` gives float0 for integers."""
    params = {"w": jnp.ones(2), "i": jnp.arange(2)}
    grads = jax.grad(lambda p: p["w"].sum(), allow_int=True)(params)
    moved, _ = TX.step(params, TX.init(params), grads)
    chex.assert_trees_all_equal(moved["i"], params["i"])
    assert (moved["w"] != params["w"]).all()
    updates, _ = cx.adam(0.1).update(grads, cx.adam(0.1).init(params))
    assert updates["i"] is grads["i"]
    with pytest.raises(TypeError, match=r"The update at 'w' is .*float0.*\[2\], where the parameter is float32\[2\]"):
        TX.step(params, TX.init(params), {**grads, "w": grads["i"]})  # the gradient of something else


def test_a_missing_gradient_freezes_parameter_and_slots() -> None:
    """Where the gradient is ``None`` neither the parameter nor its slots move."""
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    moved, state = TX.step(params, TX.init(params), {"a": jnp.ones(2), "b": None})
    chex.assert_trees_all_equal(moved["b"], params["b"])
    chex.assert_trees_all_equal(state.links["scale_by_adam"]["mu"]["b"], jnp.zeros(2))
    assert (moved["a"] != params["a"]).all()


@pytest.mark.parametrize("name", ("SGD", "Adam"))
def test_gradients_of_complex_parameters_are_conjugated(name: str, x64: None) -> None:
    """With JAX's gradients conjugated the run is PyTorch's; as they are, they lead away from the minimum."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    A, b, start = (rng.normal(size=shape) + 1j * rng.normal(size=shape) for shape in ((6, 4), 6, 4))
    tx = cx.sgd(0.01, momentum=0.9) if name == "SGD" else cx.adam(0.01)
    settings = {"momentum": 0.9} if name == "SGD" else {}
    z = torch.nn.Parameter(torch.tensor(start))
    optimizer = getattr(torch.optim, name)([z], lr=0.01, **settings)
    for _ in range(20):
        optimizer.zero_grad()
        (torch.tensor(A) @ z - torch.tensor(b)).abs().square().sum().backward()
        optimizer.step()

    def loss(z: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(jnp.abs(A @ z - b)))

    def run(turned: Callable) -> jax.Array:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            return tx.step(params, state, jax.tree.map(turned, jax.grad(loss)(params))), None

        return jax.lax.scan(step, (jnp.asarray(start), tx.init(jnp.asarray(start))), length=20)[0][0]

    np.testing.assert_allclose(run(jnp.conj), z.detach().numpy(), rtol=1e-9)
    assert loss(run(lambda g: g)) > loss(jnp.asarray(start))


def test_double_precision(x64: None) -> None:
    """With x64 on, float64 is computed in float64 beside float32 in float32, schedules included."""
    params = {"double": jnp.ones(2), "single": jnp.ones(2, jnp.float32)}
    tx = cx.adamw(cx.cosine_decay_schedule(0.1, 10))
    state = tx.init(params)
    moved, after = tx.step(params, state, params)
    chex.assert_trees_all_equal_dtypes((moved, after), (params, state))
    assert state.links["scale_by_adam"]["nu"]["double"].dtype == jnp.float64
    np.testing.assert_allclose(moved["double"], 1 - 0.1 * (1 / (1 + 1e-8) + 0.01), rtol=1e-15)


def test_step_counter_stops_at_the_largest_integer() -> None:
    """After 2³¹ − 1 steps the counter stays, where adding would make it negative."""
    last = jnp.iinfo(jnp.int32).max
    state = TX.init(jnp.ones(2))._replace(step=jnp.array(last))
    assert int(TX.update(jnp.ones(2), state, jnp.ones(2))[1].step) == last


def test_equinox_module() -> None:
    """A module goes in whole, activation functions and all, and comes back a module."""
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    grads = eqx.filter_grad(lambda m, x: m(x).sum())(model, jnp.ones(2))
    moved, state = eqx.filter_jit(TX.step)(model, TX.init(model), grads)
    assert moved.activation is model.activation
    assert moved(jnp.ones(2)) < model(jnp.ones(2))
    assert jax.tree.structure(state) == jax.tree.structure(TX.init(model))


def test_flax_nnx_optimizer() -> None:
    """`nnx.Optimizer` takes a chain unchanged, and `init` and `update` see the same paths."""
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tx = cx.sgd(1.0, momentum=0.9, weight_decay=cx.by_path({"^bias$": 0.0, "^kernel$": 0.5}))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    kernel, zero = model.kernel[...], jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    optimizer.update(model, zero)
    np.testing.assert_allclose(model.kernel[...], 0.5 * kernel)


def test_flax_train_state_and_serialization() -> None:
    """`TrainState` takes a chain unchanged, and its state survives `to_bytes`."""
    params = {"w": jnp.ones(3)}
    state = TrainState.create(apply_fn=None, params=params, tx=TX).apply_gradients(grads=params)
    np.testing.assert_allclose(state.params["w"], 0.899, rtol=1e-6)
    restored = flax.serialization.from_bytes(state.opt_state, flax.serialization.to_bytes(state.opt_state))
    chex.assert_trees_all_equal(restored, state.opt_state)


def test_to_optax_passes_on_what_the_chain_reads() -> None:
    """And ignores the rest, as Optax's own transformations do. Flax and `MultiSteps` take it."""
    params, tx = {"w": jnp.array([1.0, -2.0])}, cx.chain(cx.scale_by_polyak(), cx.sgd(1.0))
    both: Any = optax.chain(optax.scale(2.0), tx.to_optax(), optax.scale_by_backtracking_linesearch(1))
    grads = jax.tree.map(lambda p: p / 4, params)
    extra = {"value": jnp.array(3.0), "grad": grads, "value_fn": lambda p: 0.0 * p["w"].sum()}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        state: Any
        updates, state = both.update(grads, both.init(params), params, **extra)
        halves = optax.MultiSteps(tx.to_optax(), 1)
        same, _ = halves.update(jax.tree.map(lambda p: p / 2, params), halves.init(params), params, **extra)
    expected, kept = tx.update(jax.tree.map(lambda p: p / 2, params), tx.init(params), params, value=jnp.array(3.0))
    chex.assert_trees_all_close(updates, expected)
    chex.assert_trees_all_close(same, expected)
    chex.assert_trees_all_equal(state[1], kept)


def test_to_optax_without_optax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says what is missing."""
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ModuleNotFoundError, match="`to_optax` needs Optax: pip install optax"):
        TX.to_optax()


@pytest.mark.parametrize("jit", (True, False))
def test_optax_takes_chains_and_chains_take_optax(jit: bool) -> None:
    """`optax.chain`, `MultiSteps` and `optax.tree.get` work on a chain; `from_optax` is a link."""
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.ones(())}
    reference = optax.adam(0.1)
    mine = (
        optax.chain(cx.scale_by_adam(), optax.scale(-0.1)),
        optax.MultiSteps(cx.adam(0.1), 1),
        cx.chain(cx.from_optax(optax.scale_by_adam()), cx.scale_by_lr(0.1)),
        cx.chain(
            cx.scale(1.0), cx.from_optax(optax.chain(optax.identity(), optax.scale_by_adam())), cx.scale_by_lr(0.1)
        ),
        cx.from_optax(optax.adam(0.1)),
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for tx in mine:
            update = jax.jit(tx.update) if jit else tx.update
            p, state, q, expected = params, tx.init(params), params, reference.init(params)
            for _ in range(3):
                updates, state = update(p, state, p)
                p = cx.apply_updates(p, updates)
                updates, expected = reference.update(q, expected, q)
                q = optax.apply_updates(q, updates)
            chex.assert_trees_all_close(p, q, rtol=1e-5)
    chex.assert_trees_all_equal(optax.tree.get(cx.adam(0.1).init(params), "mu"), jax.tree.map(jnp.zeros_like, params))


class Boxed(NamedTuple):
    """A leaf and something beside it, under a name that boxes use."""

    value: Any
    other: Any


def test_a_field_called_value_keeps_its_name_beside_others() -> None:
    """Only a box's one content goes by the box's name."""
    params = {"w": Boxed(jnp.ones(2), jnp.ones(2))}
    tx = cx.sgd(cx.by_path({"w/value$": 1.0, "w/other$": 0.0}))
    moved, _ = tx.step(params, tx.init(params), params)
    assert moved["w"].value.tolist() == [0.0, 0.0]
    assert moved["w"].other.tolist() == [1.0, 1.0]


def test_state_dict_refuses_paths_that_collide() -> None:
    """Two parameters of the same path would share a name."""
    with pytest.raises(ValueError, match="two arrays of the state have the name 'scale_by_adam/mu/a/b'"):
        TX.state_dict(TX.init(TREES["keys with slashes"]))
