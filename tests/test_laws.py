"""Laws that hold for every link and every chain."""

import functools
import json
import pickle
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import registry
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import REGISTRY, grads, tree

every = pytest.mark.parametrize("tx", REGISTRY, ids=repr)
every_dtype = pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16, jnp.float16, jnp.complex64))
close = functools.partial(chex.assert_trees_all_close, rtol=2e-5, atol=1e-6)
# A β₂ of 0.999 that is traced is rounded to float32, and 1 − β₂ is then off by 1.3e-5 of itself.
close_traced = functools.partial(chex.assert_trees_all_close, rtol=2e-5, atol=1e-4)


def run(tx: Any, params: Any, *, steps: int = 3, dtype: Any = jnp.float32) -> Any:
    """A short training run on given gradients."""
    state = tx.init(params)
    for i in range(steps):
        params, state = tx.step(params, state, grads(i + 1, dtype))
    return params, state


@functools.cache
def jitted_run(tx: Any) -> Any:
    """The run with the chain closed over, shared by the laws that compare with it."""
    return jax.jit(functools.partial(run, tx))(tree(0))


@every
@every_dtype
def test_avals_never_change(tx: Any, dtype: Any) -> None:
    """State and parameters keep tree, shapes, dtypes and weak types, under `update` and under `step`."""
    params, gradients = tree(0, dtype), grads(1, dtype)
    state = jax.eval_shape(tx.init, params)
    updates, after_update = jax.eval_shape(tx.update, gradients, state, params)
    moved, after_step = jax.eval_shape(tx.step, params, state, gradients)
    avals = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype, x.weak_type))
    assert avals(after_update) == avals(after_step) == avals(state)
    assert avals(moved) == avals(jax.eval_shape(lambda: params))
    assert avals(updates) == avals(jax.eval_shape(lambda: {**params, "steps": None}))


@every
def test_slots_are_float32_for_low_precision(tx: Any) -> None:
    """Slots of bfloat16 parameters are float32: 0.999·ν rounds back to ν in bfloat16. Counts are whole numbers."""
    state = jax.eval_shape(tx.init, tree(0, jnp.bfloat16))
    assert {x.dtype for x in jax.tree.leaves(state.links)} <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


@every
def test_jit_equals_no_jit(tx: Any) -> None:
    """Compiled and interpreted op by op, the results agree."""
    with jax.disable_jit():
        plain = run(tx, tree(0))
    close(jitted_run(tx), plain)


@every
def test_step_is_update_then_apply(tx: Any) -> None:
    """In float32, where nothing is rounded in between, `step` equals `update` with `apply_updates`."""
    params = tree(0)
    state = tx.init(params)
    for i in range(2):
        updates, after = tx.update(grads(i + 1), state, params)
        stepped = tx.step(params, state, grads(i + 1))
        params, state = cx.apply_updates(params, updates), after
        close((params, state), stepped)


@every
def test_chain_as_argument_equals_closed_over_and_compiles_once(tx: Any) -> None:
    """Traced hyperparameters give the constants' results, and other numbers do not trace again."""
    traces = 0

    @jax.jit
    def train(tx: Any, params: Any) -> Any:
        nonlocal traces
        traces += 1
        return run(tx, params)

    close_traced(train(tx, tree(0)), jitted_run(tx))
    train(jax.tree.map(lambda x: 0.5 * x, tx), tree(0))
    assert traces == 1


@every
def test_vmap_over_hyperparameters_equals_separate_runs(tx: Any) -> None:
    """A stack of chains trained by one `vmap` is the chains trained one by one."""
    chains = [tx, jax.tree.map(lambda x: 0.5 * x, tx)]
    if not jax.tree.leaves(tx):
        with pytest.raises(ValueError, match="has no numbers to be stacked"):
            cx.stack(chains)
        return
    grid = cx.stack(chains)
    together = jax.jit(lambda params: jax.vmap(run, (grid.axes(), None))(grid, params))(tree(0))
    for i, one in enumerate(chains):
        close_traced(jax.tree.map(lambda x, i=i: x[i], together), jitted_run(one))


@every
def test_no_retrace_and_step_donates(tx: Any) -> None:
    """One trace serves all steps, and the buffers of parameters and state are reused."""
    step, params = cx.make_step(tx), tree(0)
    state = tx.init(params)
    for i in range(3):
        old = params["layer"]["kernel"]
        params, state = step(params, state, grads(i + 1))
        assert old.is_deleted()
    assert step._cache_size() == 1
    assert int(state.step) == 3


@every
def test_scan_and_cond(tx: Any) -> None:
    """A run as one `scan` is the run step by step; a `cond` can skip a step."""
    gradients = jax.tree.map(lambda *g: jnp.stack(g), *(grads(i + 1) for i in range(3)))

    def body(carry: Any, g: Any) -> Any:
        skipped = jax.lax.cond(True, lambda: tx.step(*carry, g), lambda: carry)
        return skipped, None

    params = tree(0)
    scanned, _ = jax.jit(functools.partial(jax.lax.scan, body))((params, tx.init(params)), gradients)
    close(scanned, jitted_run(tx))


@every
def test_value_round_trips(tx: Any) -> None:
    """Pickle, JSON and `repr` give the same value back, with the same hash."""
    config = json.loads(json.dumps(cx.to_config(tx)))
    copies = pickle.loads(pickle.dumps(tx)), cx.from_config(config), eval(repr(tx), {**vars(cx), **vars(registry)})
    for copy in copies:
        assert copy == tx
        assert hash(copy) == hash(tx)
    leaves, treedef = jax.tree.flatten(tx)
    assert jax.tree.unflatten(treedef, leaves) == tx
    assert all(isinstance(leaf, float) for leaf in leaves)


@every
def test_complex_equals_split_real(tx: Any) -> None:
    """A complex parameter behaves as its real and imaginary parts side by side, as in PyTorch."""
    if any(link.treewise for link in tx.links.values()):
        pytest.skip("a whole-tree link gets complex numbers as they are")
    params, gradients = ({"layer": tree(i, jnp.complex64)["layer"]} for i in (0, 1))
    split = functools.partial(jax.tree.map, lambda z: jnp.stack([z.real, z.imag], -1))
    parts, state, parts_state = split(params), tx.init(params), tx.init(split(params))
    for _ in range(2):
        params, state = tx.step(params, state, gradients)
        parts, parts_state = tx.step(parts, parts_state, split(gradients))
    close(split(params), parts)


@every
def test_leaves_do_not_mix(tx: Any) -> None:
    """What is not float stays; each leaf of the tree gets what it gets in a tree of its own."""
    params, _ = jitted_run(tx)
    chex.assert_trees_all_equal(params["steps"], jnp.arange(3))
    assert params["hole"] is None
    if any(link.needs_all_updates or link.treewise for link in tx.links.values()):
        pytest.skip("a link that needs the whole tree mixes the leaves by design")
    alone = tree(0)["layer"], [grads(i + 1)["layer"] for i in range(3)]
    layer, state = {"layer": alone[0]}, tx.init({"layer": alone[0]})
    for g in alone[1]:
        layer, state = tx.step(layer, state, {"layer": g})
    close(layer["layer"], params["layer"])


@every
def test_sharding_is_derived(tx: Any) -> None:
    """Slots lie where their parameters lie, and a step on 8 devices equals one on a single device."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    params, gradients = ({"bias": jnp.linspace(-i, 2.0, 16), "kernel": jnp.ones((8, 3)) * i} for i in (1, 2))
    where = {"bias": NamedSharding(mesh, P("d")), "kernel": NamedSharding(mesh, P("d", None))}
    sharded, sharded_grads = jax.device_put(params, where), jax.device_put(gradients, where)
    state = tx.init(sharded)
    for entry in (state.links[name] for name, link in tx.links.items() if link.slots):
        for slot in entry.values():
            for name, x in slot.items():
                assert x.ndim == 0 or x.sharding == where[name]
    got, after = cx.make_step(tx, donate=False)(sharded, state, sharded_grads)
    close(got, tx.step(params, tx.init(params), gradients)[0])
    assert got["kernel"].sharding.is_equivalent_to(where["kernel"], 2)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


@every
def test_shard_map(tx: Any) -> None:
    """Data parallel under `shard_map`: gradients averaged over devices, parameters replicated."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    params = {"bias": jnp.linspace(-1.0, 2.0, 5), "kernel": jnp.ones((4, 3))}
    batches = jax.tree.map(lambda p: jnp.stack([p * i for i in range(8)]), params)

    def step(params: Any, state: Any, batch: Any) -> Any:
        g = jax.tree.map(lambda x: jax.lax.pmean(x[0], "d"), batch)
        return tx.step(params, state, g)

    state = tx.init(params)
    mapped = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(P(), P(), P("d")), out_specs=(P(), P())))
    mean = jax.tree.map(lambda b: b.mean(0), batches)
    close(mapped(params, state, batches), tx.step(params, state, mean))


@every
def test_exports_for_every_platform(tx: Any) -> None:
    """The step lowers to StableHLO for CPU, CUDA and TPU on a machine that has none of the latter."""
    params = tree(0)
    exported = jax.export.export(jax.jit(tx.step), platforms=("cpu", "cuda", "tpu"))(params, tx.init(params), grads(1))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    close(
        jax.tree.leaves(exported.call(params, tx.init(params), grads(1))[0]),
        jax.tree.leaves(tx.step(params, tx.init(params), grads(1))[0]),
    )


@every
def test_equation_names_every_hyperparameter(tx: Any) -> None:
    """The symbol of each hyperparameter stands in its link's equation, and `describe` shows its value."""
    for name, link in tx.links.items():
        for field in link.__dataclass_fields__.values():
            if "range" in field.metadata:
                symbol = field.metadata["range"].symbol
                assert symbol
                assert symbol in link.equation
                assert f"{symbol}=" in tx.describe()
        assert name in tx.describe()


@every
def test_differentiable_at_zero_gradients(tx: Any) -> None:
    """Hypergradients are finite even for coordinates whose gradient has always been exactly 0."""
    gradient = jnp.zeros(2)
    params = {"bias": jnp.array([1.0, 2.0])}

    def loss(tx: Any, scale: jax.Array) -> jax.Array:
        moved, state = params, tx.init(params)
        for _ in range(2):
            moved, state = tx.step(moved, state, {"bias": gradient * scale})
        return jnp.sum(jnp.square(moved["bias"]))

    slopes = jax.grad(loss, argnums=(0, 1))(tx, jnp.array(1.0))
    assert all(np.isfinite(x) for x in jax.tree.leaves(slopes))
