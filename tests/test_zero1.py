"""`zero1`: state and arithmetic spread over data axes, on meshes of every kind, against one device."""

import json
import re
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.transforms.wrappers import zero1 as module
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import quickly

LEAVES = {
    "matrix": ((16, 32), P(None, "model")),
    "square": ((64, 64), P("model")),
    "vector": ((32,), P("model")),
    "bias": ((8,), P()),
    "odd": ((7, 5), P()),
    "large": ((512, 256), P()),
    "turned": ((4, 256), P()),  # along two axes of 2, the second array axis is divided first
}
SPECS = cx.by_path({f"^{name}$": spec for name, (_, spec) in LEAVES.items()})
KINDS = {
    "explicit": (AxisType.Explicit, AxisType.Explicit),
    "auto": (AxisType.Auto, AxisType.Auto),
    "mixed": (AxisType.Explicit, AxisType.Auto),
    "mixed the other way": (AxisType.Auto, AxisType.Explicit),
}


def problem(seed: int) -> dict[str, Any]:
    """Parameters or gradients."""
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, (shape, _) in LEAVES.items()}


def mesh_of(kinds: tuple[AxisType, AxisType] = KINDS["explicit"]) -> jax.sharding.Mesh:
    """Four devices for data, two for the model."""
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=kinds)


def placed(tree: dict[str, Any], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """The tree on the mesh."""
    return {name: jax.device_put(x, NamedSharding(mesh, LEAVES[name][1])) for name, x in tree.items()}


def collectives(f: Callable, *args: Any) -> dict[str, int]:
    """How many there are in the compiled function, by name."""
    text = jax.jit(f).lower(*args).compile().as_text() or ""
    return {
        name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in ("all-gather", "all-reduce", "reduce-scatter")
    }


CHAINS = {
    "clip and AdamW": cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(0.1)),
    "the rest": cx.partition(
        cx.by_path(
            {
                "matrix": cx.chain(cx.adafactor(0.1, min_dim_size_to_factor=8)),
                "square|vector": cx.lamb(0.1),
                "large": cx.store(cx.adamw(0.1, b1=0.5), cx.companded8()),
            },
            default=cx.accumulate(cx.sgd(0.1, momentum=0.9), 2),
        )
    ),
}


@pytest.mark.parametrize("tx", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_steps_are_those_of_one_device(kinds: tuple[AxisType, AxisType], tx: Any) -> None:
    """Parameters and state stay where they are, and the state is spread."""
    mesh = mesh_of(kinds)
    spread = cx.zero1(tx, specs=SPECS if AxisType.Auto in kinds else None)
    with jax.set_mesh(mesh):
        p = placed(problem(0), mesh)
        where = jax.tree.map(lambda x: x.sharding, p), spread.state_sharding(p)
        state = spread.init(p)
        step = quickly(spread.step)
        for i in range(3):
            p, state = step(p, state, placed(problem(i + 1), mesh))
            stays = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), (p, state), where)
            assert all(jax.tree.leaves(stays))
    alone, old = problem(0), tx.init(problem(0))
    step = quickly(tx.step)
    for i in range(3):
        alone, old = step(alone, old, problem(i + 1))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), p, alone)
    local = {x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state) if x.shape == (512, 256)}
    assert local == {(128, 256)}


def test_eager_steps_equal_jitted_ones() -> None:
    """On a mesh of each kind, outside jit."""
    tx = CHAINS["clip and AdamW"]
    want = tx.step(problem(0), tx.init(problem(0)), problem(1))[0]
    for kinds in KINDS.values():
        mesh, spread = mesh_of(kinds), cx.zero1(tx, specs=SPECS if AxisType.Auto in kinds else None)
        with jax.set_mesh(mesh):
            p = placed(problem(0), mesh)
            got, _ = spread.step(p, spread.init(p), placed(problem(1), mesh))
        assert all(jax.tree.leaves(jax.tree.map(lambda x, y: x.sharding.is_equivalent_to(y.sharding, x.ndim), got, p)))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), got, want)


def test_every_part_of_a_chain_finds_its_place() -> None:
    """Before other links, after a guard, around an average, with a function of the parameters, in low precision."""
    mesh = mesh_of()

    def bowl(p: Any) -> jax.Array:
        return sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(p)), jnp.zeros(()))

    chains = {
        "first": (cx.chain(cx.zero1(cx.scale_by_adam()), cx.scale_by_lr(0.1)), {}),
        "guarded": (cx.chain(cx.skip_nonfinite(), cx.zero1(cx.adam(0.1))), {}),
        "average": (cx.zero1(cx.chain(cx.adam(0.1), cx.ema_params(0.5))), {}),
        "line search": (
            cx.zero1(cx.chain(cx.sgd(0.1), cx.scale_by_backtracking_linesearch())),
            {"value_fn": bowl, "value": True, "grad": True},
        ),
        "within": (cx.accumulate(cx.zero1(cx.adam(0.1)), 1), {}),
    }
    for name, (tx, needs) in chains.items():

        def extra(p: Any, g: Any, needs: Any = needs) -> dict[str, Any]:
            known = {"value_fn": bowl, "value": bowl(p), "grad": g}
            return {key: known[key] for key in needs}

        def step(p: Any, g: Any, tx: Any = tx, extra: Any = extra) -> Any:
            return tx.step(p, tx.init(p), g, **extra(p, g))

        with jax.set_mesh(mesh):
            p, state = quickly(step)(placed(problem(0), mesh), placed(problem(1), mesh))
            average = cx.read_average(tx, p, state) if name == "average" else p
        want, other = quickly(step)(problem(0), problem(1))
        assert jax.typeof(average["square"]).sharding.spec[0] == "model", name
        other = cx.read_average(tx, want, other) if name == "average" else want
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), average, other)


def test_residuals_are_spread() -> None:
    """Those of `apply_update`, at the end of the chain within."""
    mesh, tx = mesh_of(), cx.chain(cx.sgd(1e-3), cx.apply_update("kahan"))
    p, g = (jax.tree.map(lambda x: x.astype(jnp.bfloat16), problem(i)) for i in range(2))
    want = quickly(lambda p, g: tx.step(p, tx.init(p), g))(p, g)
    spread = cx.zero1(tx)
    with jax.set_mesh(mesh):
        p = placed(p, mesh)
        got, state = quickly(lambda p, g: spread.step(p, spread.init(p), g))(p, placed(g, mesh))
    inner = state.links["zero1"]["tx"].links
    (residuals,) = inner["apply_update"].values()
    assert "data" in residuals["matrix"].sharding.spec
    assert got["matrix"].dtype == jnp.bfloat16
    jax.tree.map(np.testing.assert_array_equal, (got, inner), (want[0], want[1].links))


def test_several_axes_one_after_the_other() -> None:
    """Of a mesh of three; an axis that does not fit is left out."""
    mesh = jax.make_mesh((2, 2, 2), ("pod", "data", "model"))
    tx = cx.chain(cx.clip_by_global_norm(1.0), cx.adam(0.1))
    spread = cx.zero1(tx, over=("pod", "data"))
    with jax.set_mesh(mesh):
        p = placed({**problem(0), "odd": jnp.ones((6, 5))}, mesh)
        got, state = quickly(lambda p: spread.step(p, spread.init(p), p))(p)
        mu = {k: x.sharding.spec for k, x in state.links["zero1"]["tx"].links["scale_by_adam"]["mu"].items()}
        text = spread.describe(p)
    assert mu == {
        "matrix": P(("pod", "data"), "model"),
        "square": P(("model", "data"), "pod"),
        "vector": P(("model", "pod", "data")),
        "bias": P(("pod", "data")),
        "odd": P("pod", None),
        "large": P("pod", "data"),
        "turned": P("data", "pod"),
    }
    assert "zero1: not spread, since no axis is a multiple of the 2 shards along 'data': odd [6, 5]" in text
    alone = jax.tree.map(np.asarray, p)
    want, _ = tx.step(alone, tx.init(alone), alone)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), got, want)


@pytest.mark.parametrize("kinds", (KINDS["explicit"], KINDS["auto"]), ids=("explicit", "auto"))
def test_small_leaves_share_a_gather(kinds: tuple[AxisType, AxisType]) -> None:
    """One for all, of each dtype."""
    mesh, tx = mesh_of(kinds), cx.zero1(cx.sgd(0.1, momentum=0.9))
    with jax.set_mesh(mesh):
        p = jax.device_put({f"w{i}": jnp.full(24 + 4 * i, float(i)) for i in range(30)}, NamedSharding(mesh, P()))
        state = tx.init(p)
        assert collectives(tx.step, p, state, p)["all-gather"] == 1
        got, _ = jax.jit(tx.step)(p, state, p)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, 0.9 * y, rtol=1e-6), got, p)


def test_gradients_may_come_as_they_lie() -> None:
    """Spread already, or not yet reduced, as the types say."""
    mesh, tx = mesh_of(), cx.zero1(cx.sgd(0.1))
    with jax.set_mesh(mesh):
        w = jax.device_put(jnp.ones((16, 4)), P())
        x = jax.device_put(jnp.arange(128.0).reshape(8, 16), P("data"))

        def loss(w: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.square(jnp.einsum("bi,ij->bj", x, w)))

        def steps(w: jax.Array, x: jax.Array) -> list[jax.Array]:
            whole = jax.grad(loss)(w, x)
            unreduced = jax.grad(loss)(jax.sharding.reshard(w, P(None, None, reduced={"data"})), x)
            assert jax.typeof(unreduced).sharding.spec.unreduced == {"data"}
            spread = jax.sharding.reshard(whole, P("data"))
            return [tx.step(w, tx.init(w), g)[0] for g in (whole, unreduced, spread)]

        one, *others = jax.jit(steps)(w, x)
    for other in others:
        assert other.sharding == one.sharding
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_value_like_any_other() -> None:
    """It prints, compares, nests and goes through JSON; it names axes, and no mesh."""
    tx = cx.zero1(cx.adamw(0.1), over=("pod", "data"), specs=cx.by_path({"w": P(None, "model")}, default=P()))
    assert cx.from_config(json.loads(json.dumps(cx.to_config(tx)))) == tx
    assert repr(cx.zero1(cx.scale(1.0), over="batch")) == "zero1(scale(1), over='batch')"
    assert "specs=by_path({'w': spec((None, 'model'))}, default=spec(()))" in repr(tx)
    assert tx.replace(over=["data"]) == tx.replace(over="data") != tx
    assert hash(tx) == hash(cx.zero1(tx.tx, over=("pod", "data"), specs=tx.specs))
    stored = cx.store(tx, cx.int8())
    assert stored.tx["scale_by_adam"].formats is not None
    namespace = {"zero1": cx.zero1, "chain": cx.chain, "by_path": cx.by_path, **vars(cx)}
    assert eval(repr(tx), namespace) == tx


WRONG = {
    "no axis": (lambda: cx.zero1(cx.sgd(0.1), over=()), r"`zero1.over` must name axes of a mesh, such as 'data'"),
    "twice": (lambda: cx.zero1(cx.sgd(0.1), over=("a", "a")), r"must name axes of a mesh.*got \('a', 'a'\)"),
    "a mesh": (lambda: cx.zero1(cx.sgd(0.1), over=mesh_of()), r"`zero1.over` must name axes of a mesh"),
    "specs": (lambda: cx.zero1(cx.sgd(0.1), specs=cx.by_path({"w": 0.1})), r"`zero1.specs` must be by_path\(\{pattern"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_fields_are_refused(make: Callable, message: str) -> None:
    """With the remedy."""
    with pytest.raises(ValueError, match=message):
        make()


MISPLACED = {
    "unknown axis": (
        cx.zero1(cx.sgd(0.1), over="batch"),
        "explicit",
        "names the axis 'batch', but the mesh has 'data'",
    ),
    "no specs": (
        cx.zero1(cx.sgd(0.1)),
        "auto",
        r"the parameter 'matrix' is sharded by P\(None, 'model'\), but `zero1.specs` says P\(\)",
    ),
    "other specs": (
        cx.zero1(cx.sgd(0.1), specs=cx.by_path({"matrix": P("model")}, default=P())),
        "explicit",
        r"sharded by P\(None, 'model'\), but `zero1.specs` says P\('model',\)",
    ),
    "specs of another mesh": (
        cx.zero1(cx.sgd(0.1), specs=cx.by_path({"matrix": P("tensor")}, default=P())),
        "auto",
        "`zero1.specs` shards 'matrix' along 'tensor', but the mesh has 'data', 'model'",
    ),
    "specs of a tensor": (
        cx.zero1(cx.sgd(0.1), specs=cx.by_path({"matrix": P(None, None, "model")}, default=P())),
        "auto",
        "for 'matrix', which has 2 axes",
    ),
    "kinds": (
        cx.zero1(cx.sgd(0.1), over=("data", "model")),
        "mixed",
        "explicit and automatic axes.*give axes of one kind",
    ),
}


@pytest.mark.parametrize(("tx", "kinds", "message"), MISPLACED.values(), ids=MISPLACED)
def test_parameters_that_lie_elsewhere_are_refused(tx: Any, kinds: str, message: str) -> None:
    """By eager `init` and by `state_sharding`, before a step moves them."""
    p = placed(problem(0), mesh_of(KINDS[kinds]))
    for call in (tx.init, tx.state_sharding):
        with pytest.raises(ValueError, match=message):
            call(p)


def test_nothing_is_spread_without_a_mesh() -> None:
    """The link says so, as it does within `jax.shard_map`."""
    tx, p = cx.zero1(cx.sgd(0.1)), {"w": jnp.ones((8, 2))}
    with pytest.warns(cx.ChainWarning, match="spreads nothing over 'data' without a mesh: call init and step under"):
        state = tx.init(p)
    assert "zero1: without a mesh nothing is spread" in tx.describe(p)
    with pytest.warns(cx.ChainWarning, match=r"nothing over 'data' within jax.shard_map over this axis: call step"):
        jax.shard_map(lambda p: tx.step(p, state, p)[0], mesh=mesh_of(), in_specs=P(), out_specs=P())(p)


@pytest.mark.parametrize(
    ("names", "over", "along"),
    ((("data",), "data", "an axis that spans all devices"), (("pod", "data"), ("pod", "data"), "several axes")),
    ids=("one axis", "two axes"),
)
def test_tpus_reduce_over_all_devices_by_all_reduces(
    names: Any, over: Any, along: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step says so, unless the gradients arrive reduced."""
    monkeypatch.setattr(module, "platform", lambda mesh: "tpu")
    tx, mesh = cx.zero1(cx.sgd(0.1), over), jax.make_mesh((8,) if len(names) == 1 else (4, 2), names)
    with jax.set_mesh(mesh):
        p = jax.device_put({"w": jnp.ones((16, 8))}, P())
        state = tx.init(p)
        with pytest.warns(cx.ChainWarning, match=rf"along {along} by all-reduces.*cx.reduce_grads\(grads, over="):
            jax.eval_shape(tx.step, p, state, p)
        jax.eval_shape(tx.step, p, state, jax.device_put(p, P(over)))
        beside = jax.make_mesh((4, 2), ("data", "model"))
    with jax.set_mesh(beside):
        p = jax.device_put({"w": jnp.ones((16, 8))}, P())
        spread = cx.zero1(cx.sgd(0.1))
        jax.eval_shape(spread.step, p, spread.init(p), p)


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_leaves_that_are_not_trained_stay(kinds: tuple[AxisType, AxisType]) -> None:
    """Integers, keys and holes, in `init`, in a jitted step and in `state_sharding`."""
    mesh, tx = mesh_of(kinds), cx.zero1(cx.adam(0.1))
    with jax.set_mesh(mesh):
        p = jax.device_put({"w": jnp.ones(8), "n": jnp.arange(4), "key": jax.random.key(0)}, NamedSharding(mesh, P()))
        p = {**p, "none": None}
        state = tx.init(p)
        assert jax.tree.structure(tx.state_sharding(p)) == jax.tree.structure(state)
        got, _ = jax.jit(tx.step)(p, state, {"w": jnp.ones(8), "n": None, "key": None, "none": None})
    np.testing.assert_allclose(got["w"], 0.9, rtol=1e-5)
    np.testing.assert_array_equal(got["n"], p["n"])
    assert cx.adam(0.1).init(p).links["scale_by_adam"]["mu"]["key"] is None


@pytest.mark.parametrize("kinds", (KINDS["explicit"], KINDS["auto"]), ids=("explicit", "auto"))
def test_parameters_need_not_be_on_the_mesh_yet(kinds: tuple[AxisType, AxisType]) -> None:
    """Under `jax.set_mesh`, eager `init` and `step` put NumPy arrays there; derivatives pass through an eager step."""
    tx, p = cx.zero1(cx.sgd(0.1, momentum=0.9)), {"w": np.ones((8, 4), np.float32)}
    with jax.set_mesh(mesh_of(kinds)):
        got, state = tx.step(p, tx.init(p), p)
        assert "data" in state.links["zero1"]["tx"].links["trace"]["trace"]["w"].sharding.spec
        there = jax.device_put(p, P())
        slope = jax.grad(lambda p: jnp.sum(tx.step(p, tx.init(p), there)[0]["w"]))(there)
    np.testing.assert_allclose(got["w"], 0.9, rtol=1e-6)
    np.testing.assert_array_equal(slope["w"], 1.0)


def test_the_description_looks_into_tables() -> None:
    """A link in a `partition` sees its own parameters."""
    tx = cx.partition(cx.by_path({"odd": cx.zero1(cx.adam(0.1)), "bias": cx.freeze()}, default=cx.sgd(0.1)))
    text = tx.describe(placed(problem(0), mesh_of()))
    assert "zero1: not spread, since no axis is a multiple of the 4 shards along 'data': odd [7, 5]\n" in f"{text}\n"


def test_a_sweep_spreads_chains_and_not_their_state() -> None:
    """Its mesh has no axis for it."""

    def train(tx: Any) -> jax.Array:
        p = jnp.ones(8)
        return tx.step(p, tx.init(p), p)[0]

    for rates in ((0.1,), (0.1, 0.2)):
        grid = [cx.zero1(cx.sgd(rate)) for rate in rates]
        table = cx.sweep(train, grid, progress=False)
        np.testing.assert_allclose(table["result"][:, 0], 1 - np.array(rates), rtol=1e-6)


def test_states_with_births_stay_spread() -> None:
    """After a group has joined, XLA is still told where each array lies."""
    mesh = mesh_of(KINDS["auto"])
    tx = cx.zero1(cx.partition(cx.by_path({"a": cx.adam(0.1)}, default=cx.sgd(0.1, momentum=0.9))))
    with jax.set_mesh(mesh):
        few = jax.device_put({"a": jnp.ones(8), "c": jnp.ones(8)}, NamedSharding(mesh, P()))
        more = {**few, "aa": few["a"]}
        _, state = jax.jit(tx.step)(few, tx.init(few), few)
        state = tx.add_param_group(more, state)
        text = jax.jit(tx.step).lower(more, state, more).as_text()
        fresh = jax.jit(tx.step).lower(more, tx.init(more), more).as_text()
    assert text.count("sharding_constraint") == fresh.count("sharding_constraint") > 10


# Gradients that their owner averages


def sines(p: Any, x: jax.Array) -> jax.Array:
    """A loss of a batch."""
    return (
        sum((jnp.sum(jnp.sin(a[None] * x.reshape(-1, *[1] * a.ndim))) for a in jax.tree.leaves(p)), jnp.zeros(()))
        / x.size
    )


MESHES = {
    "all axes": (("pod", "data"), ("pod", "data"), (4, 2), AxisType.Explicit),
    "beside a model": (("pod", "data"), ("pod", "data", "model"), (2, 2, 2), AxisType.Explicit),
    "beside an automatic one": (("pod", "data"), ("pod", "data", "model"), (2, 2, 2), AxisType.Auto),
    "one axis": ("data", ("data", "model"), (4, 2), AxisType.Explicit),
}


@pytest.mark.parametrize(("over", "names", "sizes", "kind"), MESHES.values(), ids=MESHES)
def test_reduced_gradients_are_the_mean(over: Any, names: Any, sizes: Any, kind: AxisType) -> None:
    """Divided as `zero1` wants them, by a reduce-scatter for each axis; a leaf that does not fit is averaged whole."""
    mesh = jax.make_mesh(sizes, names, axis_types=(kind,) * len(names))
    leaves = {k: (s, spec if "model" in names else P()) for k, (s, spec) in LEAVES.items()}
    table = cx.by_path({f"^{k}$": spec for k, (_, spec) in leaves.items()})
    specs = table if kind == AxisType.Auto else None
    x = jnp.asarray(np.random.default_rng(0).normal(size=16), jnp.float32)
    want = jax.grad(sines)(problem(0), x)
    with jax.set_mesh(mesh):
        p = {k: jax.device_put(a, NamedSharding(mesh, leaves[k][1])) for k, a in problem(0).items()}

        def mean(p: Any, x: jax.Array) -> Any:
            mine = jax.lax.pcast(p, over, to="varying")
            return cx.reduce_grads(jax.grad(sines)(mine, x), over, specs)

        f = jax.shard_map(
            mean,
            in_specs=({k: P() for k in p}, P(over)),
            out_specs=cx.reduced_specs(p, over, specs),
            axis_names={over} if isinstance(over, str) else {*over},
        )
        args = p, jax.device_put(x, P(over))
        got = jax.jit(f)(*args)
        tx = cx.zero1(cx.adam(0.1), over, specs)
        step = jax.jit(tx.step, out_shardings=(jax.tree.map(lambda x: x.sharding, p), tx.state_sharding(p)))
        moved, _ = step(p, tx.init(p), got)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-7), got, want)
    count = len([over] if isinstance(over, str) else over)
    assert len(axes := [name for name in jax.tree.leaves([*got["large"].sharding.spec]) if name != "model"]) == count, (
        axes
    )
    assert collectives(f, *args)["reduce-scatter"] >= count
    signs = jax.tree.map(lambda new, old, g: np.mean(np.sign(new - old) == -np.sign(g)), moved, problem(0), want)
    assert min(jax.tree.leaves(signs)) > 0.99


def test_gradients_that_are_summed_already_are_refused() -> None:
    """JAX sums those of parameters that do not vary."""
    mesh = jax.make_mesh((8,), ("data",))

    def reduced(p: jax.Array, x: jax.Array) -> jax.Array:
        return cx.reduce_grads(jax.grad(sines)(p, x), "data")

    summed = pytest.raises(ValueError, match=r"already summed it: differentiate with .*pcast\(params")
    with jax.set_mesh(mesh), summed:
        batch = jax.device_put(jnp.ones(8), P("data"))
        jax.shard_map(reduced, in_specs=(P(), P("data")), out_specs=P("data"))(jnp.ones(8), batch)
    with pytest.raises(ValueError, match=r"reduced_specs found no mesh: call it under jax.set_mesh"):
        cx.reduced_specs({"w": np.ones(8)}, "data")

    def of_parts(w: jax.Array) -> jax.Array:
        return cx.reduce_grads({"w": jax.lax.pcast(w, "data", to="varying")}, "data")["w"]

    sees_a_part = pytest.raises(ValueError, match=r"a part of 'w' along 'model'.*axis_names=\{'data'\}")
    with jax.set_mesh(mesh_of()), sees_a_part:
        w = jax.device_put(jnp.ones((8, 8)), P("model"))
        jax.shard_map(of_parts, in_specs=P("model"), out_specs=P("model", "data"))(w)
    with pytest.raises(ValueError, match=r"averages along 'data' only within jax.shard_map over this axis"):
        cx.reduce_grads(jnp.ones(8), "data")
