"""Sweeps: equal to separate runs, one trace and compilation a structure, and a table that tells chains apart."""

import builtins
import io
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chainax.sweeping import group
from chainax.sweeping.devices import layout
from jax.core import Tracer
from jax.experimental import io_callback
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

ADAMW = cx.adamw(1e-3)
COUPLED = ADAMW.move("add_decayed_weights", before="scale_by_adam")
OVER = {"scale_by_lr.learning_rate": [1e-3, 1e-2, 0.1], "add_decayed_weights.weight_decay": [0.1, 0.3]}
START = jnp.array([0.5, -1.0, 2.0])


class Training:
    """A short run, and what it saw of the chains when it was traced."""

    def __init__(self) -> None:
        self.traces: list[Any] = []

    def __call__(self, tx: Any, start: Any, steps: int = 5) -> dict[str, Any]:
        """The last loss and the path to it."""
        self.traces.append(tx)

        def body(carry: Any, _: None) -> tuple[Any, Any]:
            params, state = carry
            params, state = tx.step(params, state, jnp.cos(params))
            return (params, state), jnp.sum(jnp.sin(params))

        _, losses = jax.lax.scan(body, (start, tx.init(start)), length=steps)
        return {"loss": losses[-1], "losses": losses}


@pytest.fixture
def compilations(monkeypatch) -> list[None]:
    """Grows by one with every compilation that is asked for."""
    done, compile = [], jax.stages.Lowered.compile
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *args: done.append(None) or compile(*args))
    return done


@pytest.mark.usefixtures("x64")
def test_sweep_equals_separate_runs(compilations):
    """Chains of two structures in any order: each row is what that chain gives alone, at one trace a structure."""
    start = jnp.asarray(START, jnp.float64)
    pairs = zip(cx.grid(ADAMW, OVER), cx.grid(COUPLED, OVER))
    chains = [tx for pair in pairs for tx in pair]
    train = Training()
    table = cx.sweep(train, chains, start)
    assert (len(train.traces), len(compilations)) == (2, 2)
    assert table["losses"].shape == (12, 5)
    for i, tx in enumerate(chains):
        alone = jax.jit(lambda tx=tx: Training()(tx, start))()
        np.testing.assert_allclose(table["loss"][i], alone["loss"], rtol=1e-12)
        np.testing.assert_allclose(table["losses"][i], alone["losses"], rtol=1e-12)
    assert len(np.unique(table["loss"])) == 12  # no row stands for another


@pytest.mark.parametrize(("batch_size", "sizes"), ((1, [1] * 6), (2, [2] * 3), (4, [3] * 2), (5, [3] * 2), (9, [6])))
def test_batches_give_the_same(monkeypatch, compilations, batch_size, sizes):
    """However many run at once, the table is the same, and one trace and one compilation serve all batches."""
    chains = cx.grid(ADAMW, OVER)
    batches, batch = [], group.Group.batch
    monkeypatch.setattr(group.Group, "batch", lambda *args: batches.append(batch(*args)) or batches[-1])
    train = Training()
    table = cx.sweep(train, chains, START, batch_size=batch_size)
    assert (len(train.traces), len(compilations)) == (1, 1)
    (_, *run) = batches  # the first one is only looked at
    assert [len(arrays[0]) for arrays in run] == sizes
    np.testing.assert_allclose(table["loss"], cx.sweep(Training(), chains, START)["loss"], rtol=1e-6)


def test_a_ragged_last_batch_is_filled_up(compilations):
    """Seven chains in batches of three: no trace and no row more than there are chains."""
    chains, train = [cx.sgd(rate) for rate in np.geomspace(1e-3, 1, 7)], Training()
    table = cx.sweep(train, chains, START, batch_size=3)
    assert (len(train.traces), len(compilations)) == (1, 1)
    assert {len(column) for column in table.values()} == {7}
    np.testing.assert_allclose(table["loss"], [Training()(tx, START)["loss"] for tx in chains], rtol=1e-6)


def test_as_many_run_at_once_as_fit_into_memory(monkeypatch):
    """Where the compiler counts more bytes than are free, fewer chains run at once, with the same results."""

    def train(tx, start):
        wide = jnp.outer(start, jnp.arange(1000.0))
        params, _ = tx.step(wide, tx.init(wide), jnp.cos(wide))
        return jnp.sort(params, axis=1)

    def sizes() -> list[int]:
        return [size for size, _ in looked]

    looked: list[tuple[int, float]] = []
    memory = group.memory
    chains = [cx.sgd(rate) for rate in (0.1, 0.2, 0.3, 0.4, 0.5)]

    def look(compiled):
        needed, free = memory(compiled)
        looked.append((jax.tree.leaves(compiled.out_info)[0].shape[0], needed))
        return needed, free

    monkeypatch.setattr(group, "memory", look)
    whole = cx.sweep(train, chains, START)["result"]
    assert sizes() == [5]
    assert looked[0][1] >= whole.nbytes
    monkeypatch.setattr(group, "free_bytes", lambda device: 0.7 * looked[0][1])
    np.testing.assert_array_equal(cx.sweep(train, chains, START)["result"], whole)
    assert sizes() == [5, 5, 3]
    monkeypatch.setattr(group, "free_bytes", lambda device: 1.0)
    np.testing.assert_array_equal(cx.sweep(train, chains, START)["result"], whole)
    assert sizes()[3:] == [5, 1]
    cx.sweep(train, chains, START, batch_size=4)  # whoever says how many is taken at their word
    assert sizes()[5:] == [3]


def test_free_memory_is_a_share_of_what_there_is(monkeypatch):
    """Of an accelerator what is not in use; of a computer its own; without limit where nobody knows."""

    class Device:
        stats: Any = None

        def memory_stats(self) -> Any:
            return self.stats

    device = Device()
    assert 1e8 < group.free_bytes(device) < 1e14
    device.stats = {"bytes_limit": 100, "bytes_in_use": 60}
    assert group.free_bytes(device) == pytest.approx(36)
    device.stats = None
    monkeypatch.delattr(os, "sysconf")
    assert group.free_bytes(device) == float("inf")


def test_what_chains_share_stays_constant():
    """Only the numbers that differ are traced; so with arguments that are no arrays."""
    train = Training()
    table = cx.sweep(train, cx.grid(ADAMW, {"scale_by_adam.b2": [0.9, 0.99]}), START, 7)
    (seen,) = train.traces
    assert isinstance(seen["scale_by_adam"].b2, Tracer)
    assert (seen["scale_by_adam"].b1, seen["scale_by_lr"].learning_rate) == (0.9, 1e-3)
    assert table["losses"].shape == (2, 7)


def test_equal_chains_run_once():
    """They may be given more than once, and need no number that differs."""
    train = Training()
    table = cx.sweep(train, {"one": ADAMW, "two": ADAMW}, START, batch_size=1)
    assert len(train.traces) == 1
    assert list(table) == ["name", "loss", "losses"]
    assert table["loss"].tolist() == [table["loss"][0]] * 2
    np.testing.assert_allclose(table["loss"][0], Training()(ADAMW, START)["loss"], rtol=1e-6)
    assert isinstance(train.traces[0]["scale_by_lr"].learning_rate, float)
    assert cx.sweep(Training(), iter([cx.chain(cx.scale(-0.5))]), START)["name"].tolist() == ["chain(scale(-0.5))"]


def settings(chains: Any) -> dict[str, list]:
    """The columns of the chains."""
    table = cx.sweep(lambda tx: 0.0, chains)
    assert table.pop("result").tolist() == [0] * len(chains)
    return {name: column.tolist() for name, column in table.items()}


def test_columns_are_the_fields_that_differ():
    """Numbers as numbers, NaN where a chain has no such link; the links where they differ; a short name."""
    table = settings([cx.adamw(1e-3, weight_decay=0.25), cx.adam(0.1), cx.adamw(1e-3, weight_decay=0.5)])
    decays = table.pop("add_decayed_weights.weight_decay")
    np.testing.assert_array_equal(decays, [0.25, np.nan, 0.5])
    assert table == {
        "name": [
            "scale_by_adam → add_decayed_weights → scale_by_lr, weight_decay=0.25, learning_rate=0.001",
            "scale_by_adam → scale_by_lr, learning_rate=0.1",
            "scale_by_adam → add_decayed_weights → scale_by_lr, weight_decay=0.5, learning_rate=0.001",
        ],
        "links": [
            "scale_by_adam → add_decayed_weights → scale_by_lr",
            "scale_by_adam → scale_by_lr",
            "scale_by_adam → add_decayed_weights → scale_by_lr",
        ],
        "scale_by_lr.learning_rate": [1e-3, 0.1, 1e-3],
    }


def test_columns_of_values_within_fields():
    """Schedules, tables by path, chains within links and static fields have columns of their own."""
    line = cx.linear_schedule(0.5, 0.0, 8)
    assert settings([cx.sgd(line), cx.sgd(line.replace(init_value=0.25))]) == {
        "name": ["init_value=0.5", "init_value=0.25"],
        "scale_by_lr.learning_rate.init_value": [0.5, 0.25],
    }
    assert settings([cx.sgd(line), cx.sgd(0.5)]) == {
        "name": ["learning_rate=linear_schedule(0.5, 0, 8)", "learning_rate=0.5"],
        "scale_by_lr.learning_rate": ["linear_schedule(0.5, 0, 8)", "0.5"],
    }
    assert settings([cx.sgd(cx.by_path({"bias": x}, default=0.5)) for x in (0.0, 0.25)]) == {
        "name": ["learning_rate.'bias'=0", "learning_rate.'bias'=0.25"],
        "scale_by_lr.learning_rate.'bias'": [0.0, 0.25],
    }
    tables = [cx.by_path({"bias": 0.0}, default=0.5), cx.by_path({"norm": 0.0}, default=0.5)]
    assert list(settings([cx.sgd(table) for table in tables])) == ["name", "scale_by_lr.learning_rate"]
    assert settings([cx.sgd(0.5 * line), cx.sgd(0.25 * line)])["scale_by_lr.learning_rate.factors.0"] == [0.5, 0.25]
    assert settings([cx.sgd(0.5 * line), cx.sgd(0.5 * line * line)])["scale_by_lr.learning_rate.factors"] == [
        "(0.5, linear_schedule(0.5, 0, 8))",
        "(0.5, linear_schedule(0.5, 0, 8), linear_schedule(0.5, 0, 8))",
    ]
    inner = [cx.sgd(0.5), cx.sgd(0.25), cx.sgd(0.25, momentum=0.5)]
    assert settings([cx.chain(cx.accumulate(tx, 2)) for tx in inner]) == {
        "name": [
            "scale_by_lr, learning_rate=0.5",
            "scale_by_lr, learning_rate=0.25",
            "trace → scale_by_lr, learning_rate=0.25",
        ],
        "accumulate.tx.links": ["scale_by_lr", "scale_by_lr", "trace → scale_by_lr"],
        "accumulate.tx.scale_by_lr.learning_rate": [0.5, 0.25, 0.25],
    }
    assert settings([cx.trace(0.5, nesterov=x) for x in (False, True)]) == {
        "name": ["nesterov=False", "nesterov=True"],
        "nesterov": [False, True],
    }
    assert settings([cx.accumulate(cx.sgd(0.5), k) for k in (2, 4)])["name"] == ["every=2", "every=4"]


def test_columns_of_other_links_by_the_same_name():
    """A link of another type is shown as code; where last names are the same, whole paths tell them apart."""
    chains = [cx.chain(pre=link, lr=cx.scale_by_lr(0.5)) for link in (cx.scale_by_sign(), cx.scale(2.0))]
    assert settings(chains) == {"name": ["pre=scale_by_sign()", "pre=scale(2)"], "pre": ["scale_by_sign()", "scale(2)"]}
    chains = [cx.chain(cx.trace(0.5), cx.trace(x), cx.scale(y)) for x, y in ((0.5, 1.0), (0.25, 1.00001))]
    assert settings(chains)["name"] == ["momentum=0.5, step_size=1", "momentum=0.25, step_size=1.00001"]
    chains = [cx.chain(cx.trace(x), cx.trace(x / 2)) for x in (0.5, 0.25)]
    assert settings(chains)["name"] == [
        "trace.momentum=0.5, trace_2.momentum=0.25",
        "trace.momentum=0.25, trace_2.momentum=0.125",
    ]
    assert settings([cx.scale(0.0), cx.scale(-0.0), cx.chain(cx.scale(3.0))])["scale.step_size"] == [0, 0, 3]
    mixed = settings([cx.sgd(jnp.float32(0.5)), cx.sgd(0.25)])
    assert mixed["scale_by_lr.learning_rate"] == [0.5, 0.25]


def test_results_are_named_by_their_paths():
    """Any tree comes out as columns; holes have none."""
    table = cx.sweep(lambda tx, x: {"a": (x, 2), "b": {"c": None, "d": x > 1}}, [ADAMW], jnp.arange(3))
    assert list(table)[1:] == ["a/0", "a/1", "b/d"]
    assert table["a/0"].tolist() == [[0, 1, 2]]
    assert table["a/1"].tolist() == [2]
    assert table["b/d"].dtype == bool
    assert all(type(column) is np.ndarray for column in table.values())


# Devices


@pytest.fixture
def groups(monkeypatch) -> list[group.Group]:
    """The groups of the sweeps, when they have been compiled."""
    seen, compile = [], group.Group.compile
    monkeypatch.setattr(group.Group, "compile", lambda self, *a, **k: compile(self, *a, **k) or seen.append(self))
    return seen


def scaled(tx: Any, x: jax.Array) -> jax.Array:
    """One step of size ``learning_rate``."""
    return jnp.sum(tx.step(x, tx.init(x), jnp.cos(x))[0])


def fitted(tx: Any, x: jax.Array, y: jax.Array) -> dict[str, Any]:
    """A short run on data, with all that line searches need."""

    def loss(params: Any) -> jax.Array:
        return jnp.mean(jnp.square(jnp.tanh(x @ params["w"]) @ jnp.linspace(0.5, -0.6, 16) - y))

    def body(carry: Any, _: None) -> tuple[Any, Any]:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grads, "value_fn": loss} if "scale_by_zoom_linesearch" in tx.names else {}
        return tx.step(params, state, grads, **extra), value

    start = {"w": jnp.linspace(-0.4, 0.5, 128).reshape(8, 16)}
    (params, _), losses = jax.lax.scan(body, (start, tx.init(start)), length=4)
    return {"losses": losses, "w": params["w"]}


RATES = np.geomspace(1e-3, 0.1, 16).tolist()
NOISY = cx.chain(
    cx.clip_by_global_norm(0.1), cx.add_noise(0.1, seed=jnp.int32(0)), cx.scale_by_adam(), cx.scale_by_lr(0.1)
)
SPREAD = {
    "norms, noise and codes": [
        cx.store(tx, cx.int8(min_size=0)) for tx in cx.grid(NOISY, {"add_noise.seed": list(jnp.arange(16))})
    ],
    "conditions": [cx.chain(cx.skip_nonfinite(), cx.accumulate(cx.adamw(rate), 2)) for rate in RATES],
    "loops": [cx.lbfgs(10 * rate) for rate in RATES],
}


LONG = ("conditions", "loops")


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.long] * (case in LONG)) for case in SPREAD])
def test_rows_do_not_depend_on_the_devices(groups, case):
    """Sixteen chains, two a device: bit for bit what one device gives with two at once, without communication."""
    x = jnp.sin(jnp.arange(256.0)).reshape(32, 8)
    data = x, jnp.cos(x[:, 0])
    table = cx.sweep(fitted, SPREAD[case], *data)
    with jax.default_device(jax.devices()[3]):
        alone = cx.sweep(fitted, SPREAD[case], *data, batch_size=2)
    assert [(g.mesh.size, g.size) for g in groups] == [(8, 16), (1, 2)]
    assert len(np.unique(table["losses"][:, -1])) == 16
    for name in ("losses", "w"):
        np.testing.assert_array_equal(table[name], alone[name])
    collectives = r"all-reduce|all-gather|all-to-all|reduce-scatter|collective"
    assert not re.search(collectives, groups[0].compiled.as_text())


def test_each_device_holds_its_chains(groups):
    """An eighth of the bytes, and all devices together what one device needs for all."""
    wide = jnp.zeros((64, 256))

    def train(tx, x):
        return jax.lax.scan(lambda c, _: (tx.step(*c, jnp.cos(c[0])), 0), (x, tx.init(x)), length=3)[0][0]

    chains = [cx.adamw(rate) for rate in RATES]
    cx.sweep(train, chains, wide)
    with jax.default_device(jax.devices()[0]):
        cx.sweep(train, chains, wide)
    (spread, alone) = (g.compiled.memory_analysis() for g in groups)
    slots = 2 * wide.nbytes * 16
    assert alone.temp_size_in_bytes + alone.output_size_in_bytes >= slots
    for name in ("temp_size_in_bytes", "output_size_in_bytes"):
        assert getattr(spread, name) == pytest.approx(getattr(alone, name) / 8, rel=0.02, abs=256)
    assert group.memory(groups[0].compiled)[0] == pytest.approx(group.memory(groups[1].compiled)[0], rel=0.02, abs=4096)


@pytest.mark.parametrize("devices", (1, 3, 8))
def test_layouts(devices):
    """No more chains than asked for, no idle device and no batch that could be left out."""
    for runs in range(1, 40):
        for most in range(1, 50):
            count, each = layout(runs, most, devices)
            size = count * each
            assert 1 <= count <= devices
            assert size <= most
            batches = -(-runs // size)
            assert batches * size - runs < count + batches * each  # padding
            assert batches * each <= -(-runs // min(devices, most, runs)) + each - 1  # time of the busiest device
        assert layout(runs, runs + -runs % devices, devices)[1] == -(-runs // devices)  # all at once


def test_fewer_chains_at_once_leave_no_accelerator_idle(monkeypatch):
    """Where each device has its own memory, one chain a device is the least; a host's memory is shared."""
    sizes, batch = [], group.Group.batch
    monkeypatch.setattr(group.Group, "batch", lambda self, start: sizes.append(self.size) or batch(self, start))
    monkeypatch.setattr(group, "free_bytes", lambda device: 1.0)
    chains = [cx.sgd(rate) for rate in RATES]
    expected = cx.sweep(scaled, chains, START)["result"]
    assert set(sizes[1:]) == {1}
    sizes.clear()
    monkeypatch.setattr(group, "is_host", lambda device: False)
    np.testing.assert_array_equal(cx.sweep(scaled, chains, START)["result"], expected)
    assert sizes == [16, 8, 8, 8]


@pytest.mark.parametrize("axes", (AxisType.Explicit, AxisType.Auto))
def test_devices_of_the_callers_mesh(groups, axes):
    """Those of the mesh, whatever its axes and wherever the arguments are; keys of chains may be on it too."""
    x = jnp.linspace(-1, 1, 16)
    chains = [cx.sgd(rate) for rate in RATES]
    keys = cx.grid(NOISY, {"add_noise.seed": list(jax.vmap(jax.random.key)(jnp.arange(3)))})
    expected = [cx.sweep(scaled, list_, x)["result"] for list_ in (chains, keys)]
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(axes,) * 2, devices=jax.devices()[4:])
    sharded = jax.device_put(x, NamedSharding(mesh, P("a")))
    with jax.set_mesh(mesh):
        found = [cx.sweep(scaled, list_, sharded)["result"] for list_ in (chains, keys)]
        assert jax.sharding.get_mesh() == mesh
    outside = cx.sweep(scaled, chains, sharded)["result"]
    for a, b in zip([*found, outside], [*expected, expected[0]]):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    devices = [[device.id for device in g.mesh.devices.flat] for g in groups]
    assert devices == [[*range(8)], [0, 1, 2], [4, 5, 6, 7], [4, 5, 6], [*range(8)]]


def test_devices_without_a_mesh(groups, monkeypatch):
    """The default device or platform if there is one; no more devices than chains; a mesh of others is refused."""
    chains = [cx.sgd(rate) for rate in RATES[:3]]
    for default in (jax.devices()[5], "cpu", None):
        with jax.default_device(default):
            cx.sweep(scaled, chains, jax.device_put(START, jax.devices()[6]))
    cx.sweep(scaled, chains[:1], START)
    assert [[d.id for d in g.mesh.devices.flat] for g in groups] == [[5], [0, 1, 2], [0, 1, 2], [0]]

    class Elsewhere:
        empty, local_devices = False, ()

    monkeypatch.setattr(jax.sharding, "get_mesh", Elsewhere)
    with pytest.raises(ValueError, match=r"the mesh set by jax\.set_mesh has none of them"):
        cx.sweep(scaled, chains, START)


def test_arguments_are_copied_once(monkeypatch):
    """Structures share the copies."""
    copied, put = [], jax.device_put

    def device_put(x: Any, where: Any) -> Any:
        copied.extend([x] if np.shape(x) == (7,) and x.sharding != where else [])
        return put(x, where)

    monkeypatch.setattr(jax, "device_put", device_put)
    cx.sweep(scaled, [make(rate) for make in (cx.sgd, cx.adam) for rate in RATES], jnp.ones(7))
    assert len(copied) == 1


@pytest.mark.parametrize("axes", (AxisType.Explicit, AxisType.Auto))
def test_a_mesh_within_the_training_is_refused(axes):
    """Each chain is on one device; the error says so. Likewise for arrays with explicit axes that come in otherwise."""
    mesh = jax.make_mesh((8,), ("a",), axis_types=(axes,))
    where = NamedSharding(mesh, P("a"))
    chains, closed_over = [cx.sgd(rate) for rate in RATES], jax.device_put(jnp.ones(8), where)

    def moving(tx, x):
        put = jax.sharding.reshard if axes is AxisType.Explicit else jax.lax.with_sharding_constraint
        return scaled(tx, put(x, where))

    trains = [moving] + [lambda tx, x: scaled(tx, closed_over)] * (axes is AxisType.Explicit)
    for train in trains:
        with jax.set_mesh(mesh), pytest.raises((ValueError, NotImplementedError)) as caught:
            cx.sweep(train, chains, jnp.ones(8))
        assert "there is no mesh within `train`" in caught.value.__notes__[-1]


def test_lapack_runs_for_one_chain_at_a_time_on_a_host(groups):
    """Batches of matrices, of several devices or decompositions, would wait for each other's threads for ever."""
    x = jnp.cos(jnp.arange(12.0) ** 2).reshape(4, 3)
    chains = [cx.scale(size) for size in RATES]
    table = cx.sweep(lambda tx, x: jnp.linalg.svd(tx.step_size * x, compute_uv=False), chains, x)
    assert [(g.mesh.size, g.size) for g in groups] == [(1, 1)]
    expected = np.linalg.svd(np.asarray(x, np.float64), compute_uv=False)
    np.testing.assert_allclose(table["result"], np.outer(RATES, expected), rtol=1e-4)


# The grid


def test_grid_is_the_product():
    """The last key varies fastest; the rest of the chain is as it was."""
    chains = cx.grid(ADAMW, {"scale_by_lr.learning_rate": (0.1, 0.2), "scale_by_adam.b2": np.array([0.9, 0.5])})
    assert chains == [cx.adamw(rate, b2=b2) for rate in (0.1, 0.2) for b2 in (0.9, 0.5)]


def test_grid_reaches_into_values():
    """Schedules, wrapped chains, whole links; a link alone; fields that only go together."""
    line = cx.linear_schedule(0.5, 0.25, 8)
    assert cx.grid(cx.sgd(line), {"scale_by_lr.learning_rate.init_value": [1.0]}) == [
        cx.sgd(line.replace(init_value=1.0))
    ]
    wrapped = cx.chain(cx.accumulate(cx.sgd(0.5), 2))
    assert cx.grid(wrapped, {"accumulate.tx.scale_by_lr.learning_rate": [0.25]}) == [
        cx.chain(cx.accumulate(cx.sgd(0.25), 2))
    ]
    assert cx.grid(cx.adam(0.1), {"scale_by_adam": [cx.scale_by_sign()], "scale_by_lr.learning_rate": [line]}) == [
        cx.chain(cx.scale_by_sign(), cx.scale_by_lr(line))
    ]
    assert cx.grid(cx.sgd(0.5 * line), {"scale_by_lr.learning_rate.factors.0": [0.25]}) == [cx.sgd(0.25 * line)]
    by_path = [cx.sgd(cx.by_path({"bias": x, "norm": 0.5}, default=y)) for x, y in ((0.0, 0.5), (0.25, 0.75))]
    paths = {f"scale_by_lr.learning_rate.{part}": [x] for part, x in (("'bias'", 0.25), ("default", 0.75))}
    assert cx.grid(by_path[0], paths) == by_path[1:]
    odd = "a.b|'c'.\"d\""
    quoted = [cx.sgd(cx.by_path({odd: x}, default=0.5)) for x in (0.0, 0.25)]
    assert cx.grid(quoted[0], {f"scale_by_lr.learning_rate.{odd!r}": [0.25]}) == quoted[1:]
    dots = [cx.sgd(cx.by_path({"layers.0": x, "it's.*": y})) for x, y in ((0.0, 0.5), (0.25, 0.5), (0.0, 0.75))]
    assert cx.grid(dots[0], {"scale_by_lr.learning_rate.'layers.0'": [0.25]}) == dots[1:2]
    assert cx.grid(dots[0], {'scale_by_lr.learning_rate."it\'s.*"': [0.75]}) == dots[2:]
    assert cx.grid(cx.trace(0.5), {"momentum": [0.25, 0.75]}) == [cx.trace(0.25), cx.trace(0.75)]
    joined = cx.join_schedules((0.1, 0.2), (4,))
    fields = {"schedules": [(0.1, 0.2, 0.3)], "boundaries": [(4, 8)]}
    assert cx.grid(cx.sgd(joined), {f"scale_by_lr.learning_rate.{k}": v for k, v in fields.items()}) == [
        cx.sgd(cx.join_schedules((0.1, 0.2, 0.3), (4, 8)))
    ]


# Mistakes

MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "lists": (
        lambda: cx.sweep(Training(), {"a": [ADAMW] * 9}),
        TypeError,
        "`sweep.over['a']` must be a chain, got a list of 9",
    ),
    "no function": (lambda: cx.sweep(ADAMW, [ADAMW]), TypeError, "`sweep.train` must be a function of a chain, got"),
    "one chain": (lambda: cx.sweep(Training(), ADAMW), TypeError, "`sweep.over` is one chain: give a list"),
    "a number": (lambda: cx.sweep(Training(), 3), TypeError, "`sweep.over` must be a list of chains or a table"),
    "no chains": (lambda: cx.sweep(Training(), []), ValueError, "`sweep.over` is empty"),
    "no chain in a list": (
        lambda: cx.sweep(Training(), [ADAMW, 1e-3]),
        TypeError,
        "`sweep.over[1]` must be a chain, got 0.001",
    ),
    "optax in a table": (
        lambda: cx.sweep(Training(), {"theirs": optax.sgd(0.1)}),
        TypeError,
        "wrap an Optax transformation in from_optax",
    ),
    "a stack": (
        lambda: cx.sweep(Training(), [cx.stack([cx.sgd(0.1), cx.sgd(0.2)])]),
        ValueError,
        "`sweep.over[0]` is a stack of chains: give the chains one by one",
    ),
    "no batches": (lambda: cx.sweep(Training(), [ADAMW], batch_size=0), ValueError, "`sweep.batch_size` must be"),
    "half a batch": (lambda: cx.sweep(Training(), [ADAMW], batch_size=0.5), ValueError, "number from 1, or None, got"),
    "a flag": (lambda: cx.sweep(Training(), [ADAMW], batch_size=True), ValueError, "or None, got True"),
    "no results": (lambda: cx.sweep(lambda tx: None, [ADAMW]), ValueError, "`train` returns no arrays: return what"),
    "a name twice": (
        lambda: cx.sweep(lambda tx: {"a/b": 1.0, "a": {"b": 2.0}}, [ADAMW]),
        ValueError,
        "`train` returns several arrays by one name: a/b, a/b",
    ),
    "a taken name": (
        lambda: cx.sweep(lambda tx: {"name": 1.0}, [ADAMW]),
        ValueError,
        "`train` returns 'name', which is a column of the chains: give it another name",
    ),
    "the name of the errors": (
        lambda: cx.sweep(lambda tx: {"exception": 1.0}, [ADAMW]),
        ValueError,
        "`train` returns 'exception', which is a column of the chains: give it another name",
    ),
    "results of two kinds": (
        lambda: cx.sweep(lambda tx: {"loss": jnp.zeros(len(tx))}, {"a": ADAMW, "b": cx.sgd(0.1)}),
        ValueError,
        "shapes and dtypes for all chains, got {'loss': 'float32[1]'} for 'b' and {'loss': 'float32[3]'} for 'a'",
    ),
    "a grid of nothing": (lambda: cx.grid(ADAMW, {}), ValueError, '`grid.over` must be a table {"link.field": [val'),
    "a grid of a function": (lambda: cx.grid(cx.adamw, OVER), TypeError, "`grid.tx` must be a chain or a link, got"),
    "a grid of no values": (
        lambda: cx.grid(ADAMW, {"scale_by_adam.b2": []}),
        ValueError,
        "`grid.over['scale_by_adam.b2']` must be a list of values, at least one, got []",
    ),
    "a number for a list": (lambda: cx.grid(ADAMW, {"scale_by_adam.b2": 0.9}), ValueError, "at least one, got 0.9"),
    "a text for a list": (lambda: cx.grid(ADAMW, {"scale_by_adam.b2": "0.9"}), ValueError, "at least one, got '0.9'"),
    "an array for a list": (
        lambda: cx.grid(ADAMW, {"scale_by_adam.b2": jnp.array(0.5)}),
        ValueError,
        "at least one, got jnp.float32(0.5)",
    ),
    "an unknown link": (
        lambda: cx.grid(ADAMW, {"scale_by_adma.b2": [0.9]}),
        KeyError,
        "no link named 'scale_by_adma' (did you mean 'scale_by_adam'?)",
    ),
    "an unknown field": (
        lambda: cx.grid(ADAMW, {"scale_by_adam.beta2": [0.9]}),
        TypeError,
        "`scale_by_adam` has no field 'beta2'",
    ),
    "a field of a number": (
        lambda: cx.grid(ADAMW, {"scale_by_lr.learning_rate.init_value": [0.9]}),
        TypeError,
        "`scale_by_lr.learning_rate` is 0.001, which has no field 'init_value'",
    ),
    "out of range": (
        lambda: cx.grid(ADAMW, {"scale_by_adam.b2": [0.9, 1.5]}),
        ValueError,
        "`scale_by_adam.b2` must lie in [0, 1), got 1.5",
    ),
    "a key within another": (
        lambda: cx.grid(ADAMW, {"scale_by_adam.b2": [0.9], "scale_by_adam": [cx.scale_by_sign()]}),
        ValueError,
        "`grid.over`: 'scale_by_adam.b2' lies within 'scale_by_adam': replace one or the other",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case):
    """The message names the argument, what came and the remedy."""
    run, error, message = MISTAKES[case]
    with pytest.raises(error, match=re.escape(message)):
        run()


def test_nothing_runs_before_all_structures_compile():
    """A result that does not fit in is found before the first chain has been trained."""
    ran = []

    def train(tx):
        jax.debug.callback(lambda: ran.append(1))
        return dict.fromkeys(tx.names, 0.0)

    with pytest.raises(ValueError, match="the same names, shapes and dtypes"):
        cx.sweep(train, [cx.sgd(0.1), ADAMW])
    jax.effects_barrier()
    assert ran == []


def test_errors_of_the_training_say_where():
    """Errors keep their type, and say for which chains; those of tracing and of memory have a remedy."""

    def branching(tx):
        return 1.0 if tx["scale_by_lr"].learning_rate > 0.1 else 2.0

    chains = [cx.sgd(rate) for rate in (0.1, 0.2, 0.3, 0.4)]
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        cx.sweep(branching, chains)
    notes = "\n".join(caught.value.__notes__)  # some are of JAX
    assert "In `sweep`, for structure 1 of 1: learning_rate=0.1, and 3 more.\n" in notes
    assert "do not turn them into Python numbers, nor branch on them" in notes

    def full(tx):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        cx.sweep(full, chains, batch_size=3)
    assert "Give `sweep` a smaller batch_size than 2" in caught.value.__notes__[-1]

    def broken(tx):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine") as caught:
        cx.sweep(broken, chains)
    assert caught.value.__notes__[-1] == "In `sweep`, for structure 1 of 1: learning_rate=0.1, and 3 more."


def partly_failing(where: str) -> Callable[..., Any]:
    """A training that fails for chains without momentum, when it is traced or when it runs."""

    def fail() -> Any:
        raise RuntimeError("no momentum\nat all")

    def train(tx: Any, start: Any) -> dict[str, Any]:
        if "trace" not in tx.names and where == "tracing":
            fail()
        found = Training()(tx, start)
        if "trace" not in tx.names:
            io_callback(fail, None)
        return {**found, "steps": 5, "fine": True, "half": found["losses"].astype(jnp.bfloat16)}

    return train


@pytest.mark.parametrize("where", ("tracing", "running"))
def test_one_structure_that_fails_leaves_the_others(where):
    """Its rows are NaN and say why, the others are as they are alone; a warning comes at once."""
    chains = [cx.sgd(0.1), cx.sgd(0.1, momentum=0.9), cx.sgd(0.2), cx.sgd(0.2, momentum=0.9)]
    with warnings.catch_warnings():
        warnings.simplefilter("always", cx.ChainWarning)
        with pytest.warns(cx.ChainWarning) as caught:
            table = cx.sweep(partly_failing(where), chains, START)
    (warning,) = caught
    assert str(warning.message).startswith(
        "`sweep` continues without rows for structure 1 of 2: scale_by_lr, learning_rate="
    )
    assert warning.filename == __file__
    alone = cx.sweep(Training(), chains[1::2], START)
    np.testing.assert_array_equal(table["loss"][1::2], alone["loss"])
    np.testing.assert_array_equal(table["losses"][1::2], alone["losses"])
    for name, shape in (("loss", ()), ("losses", (5,)), ("steps", ()), ("fine", ()), ("half", (5,))):
        assert table[name].shape == (4, *shape)
        np.testing.assert_array_equal(
            np.isnan(table[name].astype(float)).all(tuple(range(1, 1 + len(shape)))), [1, 0, 1, 0]
        )
    assert table["half"].dtype == jnp.bfloat16
    assert (table["steps"][1], table["fine"][1]) == (5, 1)
    assert list(table)[-1] == "exception"
    first, *others = table["exception"].tolist()
    assert others == ["", first, ""]
    assert "no momentum" in first if where == "tracing" else "Error" in first
    assert "\n" not in first
    # JAX raises the error of a callback again at exit, unless another callback has run on its devices since.
    cx.sweep(lambda tx: io_callback(lambda: np.float32(0), jax.ShapeDtypeStruct((), jnp.float32)), chains[::2])


def test_all_structures_that_fail_raise():
    """The first error, which says where; and what no chain can survive raises before any has been traced."""

    def train(tx):
        raise RuntimeError(f"{len(tx)} links")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cx.ChainWarning)
        with pytest.raises(RuntimeError, match="3 links") as caught:
            cx.sweep(train, [ADAMW, cx.sgd(0.1)])
    assert caught.value.__notes__[-1].startswith("In `sweep`, for structure 1 of 2: ")
    with pytest.raises(TypeError, match=r"`sweep\.train` is called as train\(tx, args\[0\], args\[1\]\): too many"):
        cx.sweep(train, [ADAMW, cx.sgd(0.1)], 1.0, 2.0)


# Progress


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


@pytest.fixture
def no_rich(monkeypatch) -> None:
    """As if rich were not installed."""
    real = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)


CHAINS = [cx.sgd(0.1), cx.sgd(0.2), cx.sgd(0.3), cx.scale_by_sign()]


@pytest.mark.usefixtures("no_rich")
def test_progress_without_rich(monkeypatch):
    """A line that is written over: what is done, how many runs are finished, and how long the others will take."""
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    cx.sweep(lambda tx: 0.0, CHAINS, batch_size=2)
    lines = [re.sub(r"\d+ s left", "N s left", line.strip(" ")) for line in shown.getvalue().split("\r")[1:]]
    assert lines == [
        "0/4 runs, compiling structure 1 of 2",
        "0/4 runs, compiling structure 2 of 2",
        "0/4 runs, running structure 1 of 2",
        "2/4 runs, running structure 1 of 2, N s left",
        "3/4 runs, running structure 1 of 2, N s left",
        "3/4 runs, running structure 2 of 2, N s left",
        "4/4 runs, running structure 2 of 2\n",
    ]


def test_progress_with_rich(monkeypatch):
    """A bar on standard error."""
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    cx.sweep(lambda tx: 0.0, CHAINS)
    assert "structure 2 of 2" in shown.getvalue()
    assert "4/4" in shown.getvalue()


@pytest.mark.parametrize("rich", (False, True))
def test_progress_is_silent_when_asked_or_away_from_a_terminal(monkeypatch, request, capfd, rich):
    """Nothing is written to a file or a pipe, nor where ``progress=False``."""
    if not rich:
        request.getfixturevalue("no_rich")
    monkeypatch.setenv("TERM", "xterm")
    cx.sweep(lambda tx: 0.0, CHAINS)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    cx.sweep(lambda tx: 0.0, CHAINS, progress=False)
    assert shown.getvalue() == ""
