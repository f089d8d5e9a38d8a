"""Sharded parameters: meshes with explicit axes, and shards under `jax.shard_map`."""

import re
from collections.abc import Callable
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.core.engine import walk
from chainax.core.values.tree import flatten
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import REGISTRY, quickly

SHAPES = {"row": (8, 4), "conv": (3, 3, 2, 16), "bias": (8,)}
SPECS = {"row": P("d"), "conv": P(None, None, None, "d"), "bias": P("d")}


def mesh() -> jax.sharding.Mesh:
    """Eight devices, on one explicit axis as `jax.make_mesh` makes it."""
    return jax.make_mesh((8,), ("d",))


def problem(seed: int, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """Parameters or gradients."""
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def loss(p: Any) -> jax.Array:
    """A bowl."""
    return sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(p)), jnp.zeros(()))


def given(tx: Any, g: Any, value_fn: Callable = loss) -> dict[str, Any]:
    """The extra arguments that a chain reads."""
    known = {"value": 2.0, "grad": g, "value_fn": value_fn, "hessian": jax.tree.map(jnp.ones_like, g)}
    return {name: known[name] for link in tx.links.values() for name in link.extra}


WHOLE = {
    "clip": cx.chain(cx.clip_by_global_norm(1.0), cx.sgd(0.1)),
    "guard": cx.chain(cx.skip_nonfinite(), cx.scale(1e20), cx.skip_nonfinite(), cx.scale(1e-20), cx.adam(0.1)),
    "accumulate": cx.accumulate(cx.adam(0.1), 1),
    "prodigy": cx.prodigy(estim_lr0=0.1),
    "dadapt": cx.dadapt_adamw(estim_lr0=0.1),
    "dog": cx.dog(r_eps=0.1),
    "momo": cx.momo_adam(),
    "mechanize": cx.mechanize(cx.adamw(1.0), s_init=0.1),
    "lbfgs": cx.lbfgs(memory_size=2),
    "record": cx.chain(cx.record("norm", "max"), cx.sgd(0.1)),
    "lamb": cx.lamb(0.1),
    "lars": cx.lars(0.1, trust_coefficient=0.5),
    "ldog": cx.ldog(r_eps=0.1),
    "norms of a leaf": cx.chain(
        cx.orthogonal_grad(),
        cx.normalize_by_block_norm(),
        cx.scale_by_param_block_norm(),
        cx.clip_by_block_rms(0.5),
        cx.scale_by_param_block_rms(),
        cx.scale_by_running_norm(),
        cx.cautious(),
        cx.scale_by_lr(0.1),
    ),
}


@pytest.mark.parametrize("tx", WHOLE.values(), ids=WHOLE)
def test_explicit_axes(tx: Any) -> None:
    """A step equals that on one device, and what comes out lies where it lay."""
    p, g, devices = problem(0), problem(1), mesh()
    where = {name: NamedSharding(devices, spec) for name, spec in SPECS.items()}
    with jax.set_mesh(devices):
        sharded = jax.device_put(p, where), jax.device_put(g, where)
        step = quickly(lambda p, g: tx.step(p, tx.init(p), g, **given(tx, g)))
        got, state = step(*sharded)
        assert jax.typeof(got["conv"]).sharding.spec == P(None, None, None, "d")
    want, alone = tx.step(p, tx.init(p), g, **given(tx, g))
    for ours, theirs in ((got, want), (state, alone)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), ours, theirs)


@pytest.mark.long
@pytest.mark.parametrize("tx", REGISTRY, ids=repr)
def test_every_link_and_chain_on_explicit_axes(tx: Any, x64: None) -> None:
    """A step equals that on one device, and no parameter moves. Bases of matrices are too uncertain in float32."""
    p, g, devices = problem(0, jnp.float64), problem(1, jnp.float64), mesh()
    where = {name: NamedSharding(devices, spec) for name, spec in SPECS.items()}

    def steps(p: Any, g: Any) -> Any:
        return tx.step(p, tx.init(p), g)

    with jax.set_mesh(devices):
        placed = jax.device_put(p, where)
        got = quickly(steps)(placed, jax.device_put(g, where))
        assert jax.tree.map(jax.typeof, got[0]) == jax.tree.map(jax.typeof, placed)
    want = quickly(steps)(p, g)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9), got, want)


@pytest.mark.parametrize("tx", REGISTRY, ids=repr)
def test_updates_on_explicit_axes_lie_as_their_parameters(tx: Any) -> None:
    """Those of `update`, which takes another way through the engine than a step where a link rejects it."""
    devices = mesh()
    where = {name: NamedSharding(devices, spec) for name, spec in SPECS.items()}
    with jax.set_mesh(devices):
        p, g = (jax.device_put(problem(seed), where) for seed in (0, 1))
        updates, _ = jax.eval_shape(lambda p, g: tx.update(g, tx.init(p), p), p, g)
    assert {name: x.sharding for name, x in updates.items()} == {name: jax.typeof(x).sharding for name, x in p.items()}


SHARDED = {
    "rows": ((512, 512), P("x"), True),
    "columns": ((16, 2048), P(None, ("x", "y")), True),
    "both": ((8, 1024), P("x", "y"), True),
    "blocks across rows": ((256, 64), P("x"), True),
    "a vector": ((8192,), P(("x", "y")), True),
    "cut columns": ((64, 512), P(None, ("x", "y")), False),
    "cut rows": ((1048, 12), P("x"), False),
}


@pytest.mark.parametrize("form", (cx.companded8(), cx.int4()), ids=repr)
@pytest.mark.parametrize("case", SHARDED)
def test_codes_on_explicit_axes(form: Any, case: str) -> None:
    """Each device computes its shards, without communication unless a block is cut. Bits are those of one device."""
    (shape, spec, whole), tx = SHARDED[case], cx.store(cx.adamw(0.5, b1=0.5, b2=0.5), form)
    rng = np.random.default_rng(0)
    p, g = ({"w": jnp.asarray(rng.normal(size=shape), jnp.float32)} for _ in range(2))
    step = jax.jit(tx.step)
    want = step(p, jax.jit(tx.init)(p), g)
    devices = jax.make_mesh((4, 2), ("x", "y"))
    with jax.set_mesh(devices):
        placed = jax.device_put((p, g), NamedSharding(devices, spec))
        state = jax.jit(tx.init)(placed[0])
        got = step(placed[0], state, placed[1])
        assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, (placed[0], state))
        text = step.lower(placed[0], state, placed[1]).compile().as_text() or ""
    assert (("all-gather" in text) or ("all-to-all" in text)) != whole
    jax.tree.map(np.testing.assert_array_equal, got[1], want[1])
    np.testing.assert_allclose(got[0]["w"], want[0]["w"], rtol=1e-6, atol=1e-7)
    assert ("the shards of 'w' do not hold whole blocks" in tx.describe(placed[0])) != whole


def test_codes_on_axes_of_both_kinds() -> None:
    """Along explicit axes of a mesh that has automatic ones too, XLA divides plain operations."""
    tx, p = cx.store(cx.adamw(0.5, b1=0.5, b2=0.5), cx.companded8()), {"w": problem(0)["row"].repeat(2048, 1)}
    want = jax.jit(tx.step)(p, jax.jit(tx.init)(p), p)
    devices = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit, AxisType.Auto))
    with jax.set_mesh(devices):
        placed = jax.device_put(p, NamedSharding(devices, P("x")))
        got = jax.jit(tx.step)(placed, jax.jit(tx.init)(placed), placed)
        assert jax.typeof(got[0]["w"]) == jax.typeof(placed["w"])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), got, want)


@pytest.mark.parametrize("form", (cx.int8(), cx.companded8()), ids=repr)
@pytest.mark.parametrize("sizes", ((4, 1), (1, 4), (1, 1)), ids=str)
def test_codes_along_axes_of_size_one(sizes: tuple[int, int], form: Any) -> None:
    """Types contain them too; blocks within rows, across rows and in vectors."""
    tx = cx.store(cx.adamw(0.5, b1=0.5, b2=0.5), form)
    shapes = {"rows": ((16, 2048), P("x", "y")), "across": ((256, 64), P("x", "y")), "vector": ((8192,), P(("x", "y")))}
    rng = np.random.default_rng(0)
    p = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, (shape, _) in shapes.items()}
    want = jax.jit(tx.step)(p, jax.jit(tx.init)(p), p)
    devices = jax.make_mesh(sizes, ("x", "y"), devices=jax.devices()[: sizes[0] * sizes[1]])
    with jax.set_mesh(devices):
        placed = {name: jax.device_put(x, NamedSharding(devices, shapes[name][1])) for name, x in p.items()}
        state = tx.init(placed)
        assert state.links["scale_by_adam"]["mu"]["rows"]["scale"].sharding.spec == P("x", "y")
        got = jax.jit(tx.step)(placed, state, placed)
        assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, (placed, state))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), got, want)


DRAWING = {
    "noise": (cx.chain(cx.add_noise(1.0), cx.scale_by_lr(0.1)), jnp.float32),
    "stochastic rounding": (cx.chain(cx.scale_by_lr(1.234e-3), cx.apply_update("stochastic")), jnp.bfloat16),
}


@pytest.mark.parametrize(("tx", "dtype"), DRAWING.values(), ids=DRAWING)
@pytest.mark.parametrize("kind", (AxisType.Explicit, AxisType.Auto), ids=str)
def test_each_device_draws_its_own_numbers_alone(kind: AxisType, tx: Any, dtype: Any) -> None:
    """The same as on one device, without communication and without an array of the whole leaf's."""
    p = jnp.ones((64, 24), dtype)
    want, _ = jax.jit(tx.step)(p, tx.init(p), p)
    devices = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    with jax.set_mesh(devices):
        placed = jax.device_put(p, NamedSharding(devices, P("d")))
        step = jax.jit(tx.step)
        args = placed, tx.init(placed), placed
        text = step.lower(*args).compile().as_text() or ""
        got, _ = step(*args)
    assert "[8,24]" in text
    assert not {"[64,24]", "[1536]"} & {*re.findall(r"\[[\d,]+\]", text)}
    np.testing.assert_allclose(got.astype(jnp.float32), want.astype(jnp.float32), rtol=1e-6)


def test_each_device_draws_its_own_signs_alone() -> None:
    """Of `hutchinson`'s probe, along explicit axes."""

    def bowl(p: jax.Array) -> jax.Array:
        return jnp.sum(p**4)

    devices = jax.make_mesh((8,), ("d",))
    want = cx.hutchinson(bowl, jnp.ones((64, 24)), jax.random.key(0))
    with jax.set_mesh(devices):
        p = jax.device_put(jnp.ones((64, 24)), P("d"))
        probe = jax.jit(lambda p: cx.hutchinson(bowl, p, jax.random.key(0)))
        text = probe.lower(p).compile().as_text() or ""
        np.testing.assert_allclose(probe(p), want, rtol=1e-6)
    assert not {"[64,24]", "[1536]"} & {*re.findall(r"\[[\d,]+\]", text)}


def mapped(tx: Any, **options: Any) -> Callable:
    """Two steps under `jax.shard_map`, each device with a part of every leaf."""

    def summed(p: Any) -> jax.Array:
        return jax.lax.psum(loss(p), "d")

    def steps(p: Any, g: Any) -> Any:
        state = tx.init(p)
        for _ in range(2):
            p, state = tx.step(p, state, g, **given(tx, g, summed))
        return p

    return quickly(jax.shard_map(steps, mesh=mesh(), in_specs=(SPECS, SPECS), out_specs=SPECS, **options))


@pytest.mark.parametrize("tx", WHOLE.values(), ids=WHOLE)
def test_norms_of_shards_are_those_of_the_whole(tx: Any) -> None:
    """A norm of a shard would be too small by √8 on 8 devices."""
    p, g = problem(0), problem(1)
    where = {name: NamedSharding(mesh(), spec) for name, spec in SPECS.items()}
    got = mapped(tx)(jax.device_put(p, where), jax.device_put(g, where))
    want, state = p, tx.init(p)
    for _ in range(2):
        want, state = tx.step(want, state, g, **given(tx, g))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), got, want)


def test_links_are_looked_at_once_for_leaves_of_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they mix a leaf's numbers: it takes two traces."""
    looked = []
    monkeypatch.setattr(walk, "mixing_link", lambda *args: looked.append(args))
    where, tx = NamedSharding(mesh(), P("d")), cx.adamw(0.1)
    p = {f"w{i}": jax.device_put(jnp.ones((8, 2)), where) for i in range(5)}
    jax.shard_map(lambda p: tx.step(p, tx.init(p), p)[0], mesh=mesh(), in_specs=P("d"), out_specs=P("d"))(p)
    assert len(looked) == 1


def lone() -> jax.Array:
    """Ones on 8 devices."""
    return jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh(), P("d")))


def on_shards(f: Callable, *arrays: jax.Array) -> Any:
    """``f`` under `jax.shard_map`."""
    specs = tuple(jax.typeof(x).sharding.spec for x in arrays)
    return quickly(jax.shard_map(f, mesh=mesh(), in_specs=specs, out_specs=specs[0]))(*arrays)


def test_what_is_recorded_is_of_the_whole() -> None:
    """Norm, root mean square and largest number of a leaf, of which each device has a part."""
    tx, x = cx.chain(cx.record("norm", "rms", "max", "ratio"), cx.sgd(0.1)), jnp.arange(32.0).reshape(8, 4)
    where = NamedSharding(mesh(), P("d"))

    def slots(x: jax.Array) -> Any:
        return tx.update(x, tx.init(x), x)[1].links["record"]

    got = jax.shard_map(slots, mesh=mesh(), in_specs=P("d"), out_specs=P())(jax.device_put(x, where))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, slots(x))


UNTYPED = {
    "clip_by_global_norm": cx.clip_by_global_norm(1.0),
    "scale_by_trust_ratio": cx.lamb(0.1),
    "scale_by_factored_rms": cx.chain(cx.scale_by_factored_rms(min_dim_size_to_factor=8)),
    "add_noise": cx.add_noise(1.0),
    "apply_update": cx.apply_update("stochastic"),
    "scale_by_dog": cx.accumulate(cx.dog(), 1),
}


@pytest.mark.parametrize("name", UNTYPED)
def test_without_types_links_say_what_they_take_for_the_whole(name: str) -> None:
    """Elementwise ones say nothing."""
    p, g = lone(), lone()

    def run(tx: Any) -> None:
        step = jax.shard_map(
            lambda p, g: tx.step(p, tx.init(p), g)[0], mesh=mesh(), in_specs=P("d"), out_specs=P("d"), check_vma=False
        )
        jax.eval_shape(step, p, g)

    with pytest.warns(cx.ChainWarning, match=rf"along 'd': norms.* of link '{name}' are .*pass check_vma=True"):
        run(UNTYPED[name])
    run(cx.adamw(0.1))


@pytest.mark.filterwarnings("ignore:without check_vma")
def test_without_types_the_norm_is_that_of_the_shard() -> None:
    """As the documentation of ``check_vma=False`` says: nothing tells the engine of the other shards."""
    tx = cx.chain(cx.clip_by_global_norm(1.0), cx.scale_by_lr(1.0))

    def step(x: jax.Array) -> jax.Array:
        return tx.update(x, tx.init(x))[0]

    def run(**options: Any) -> np.ndarray:
        return np.asarray(
            quickly(jax.shard_map(step, mesh=mesh(), in_specs=P("d"), out_specs=P("d"), **options))(lone())
        )

    np.testing.assert_allclose(run(check_vma=False), 8**0.5 * run(), rtol=1e-6)


RANDOM = {
    "noise": (cx.add_noise(1.0), jnp.float32),
    "stochastic rounding": (cx.chain(cx.scale_by_lr(1.234e-3), cx.apply_update("stochastic")), jnp.bfloat16),
}


@pytest.mark.parametrize(("tx", "dtype"), RANDOM.values(), ids=RANDOM)
def test_draws_differ_from_shard_to_shard(tx: Any, dtype: Any) -> None:
    """Each part of a leaf has a key of its own."""
    wide = jax.device_put(jnp.ones((8, 400), dtype), NamedSharding(mesh(), P("d")))
    rows = np.asarray(on_shards(lambda x: tx.step(x, tx.init(x), x)[0], wide).astype(jnp.float32))
    assert len({row.tobytes() for row in rows}) == 8


def test_two_leaves_of_one_path_draw_apart() -> None:
    """As do any two whose paths have the same checksum; a lone one draws what it drew."""
    tx, x = cx.add_noise(1.0), jnp.ones(5)
    both = {"a/b": x, "a": {"b": x}}
    noise = tx.update(both, tx.init(both))[0]
    assert not np.allclose(noise["a/b"], noise["a"]["b"])
    single = {"a": {"b": x}}
    np.testing.assert_array_equal(tx.update(single, tx.init(single))[0]["a"]["b"], noise["a"]["b"])


REFUSED = {
    "scale_by_factored_rms": cx.chain(
        cx.scale_by_factored_rms(min_dim_size_to_factor=8)
    ),  # a shard would not be factored
    "scale_by_adam_mini": cx.adam_mini(),
    "centralize": cx.chain(cx.centralize()),
    "flatten": cx.flatten(cx.sgd(0.1)),
    "scale_by_galore": cx.chain(cx.scale_by_galore(cx.scale(1.0), rank=1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_link_that_would_take_a_shard_for_the_whole_is_refused(name: str) -> None:
    """Its norm, mean or factor would be the shard's."""
    tx, x = REFUSED[name], lone()
    with pytest.raises(
        TypeError, match=rf"Link '{name}' computes with several numbers of .* along 'd': call step outside"
    ):
        on_shards(lambda x: tx.step(x, tx.init(x), x)[0], x)


def test_a_gradient_that_was_not_averaged_is_refused() -> None:
    """Each device would move its copy of the parameter by another gradient."""
    tx = cx.sgd(0.1)

    def step(p: jax.Array, g: jax.Array) -> jax.Array:
        return tx.step(p, tx.init(p), g[0])[0]

    with pytest.raises(TypeError, match=r"differs from device to device along 'd', the parameter does not: average"):
        on_shards(step, jax.device_put(jnp.ones(4), NamedSharding(mesh(), P(None))), lone())


# Where the state lies


PLACED = {
    "w": ((512, 512), P("data", "model")),  # square: its rows and columns cannot be told apart by their shapes
    "long": ((4096,), P(("data", "model"))),
    "conv": ((3, 3, 64, 64), P(None, None, "model", "data")),
    "bias": ((8,), P()),
}
KINDS = {
    "explicit": (AxisType.Explicit, AxisType.Explicit),
    "auto": (AxisType.Auto, AxisType.Auto),
    "mixed": (AxisType.Explicit, AxisType.Auto),
}


def placed(kinds: tuple[AxisType, ...]) -> dict[str, jax.Array]:
    """Parameters on a mesh of 4 × 2 devices."""
    devices = jax.make_mesh((4, 2), ("data", "model"), axis_types=kinds)
    return {
        name: jax.device_put(jnp.ones(shape), NamedSharding(devices, spec)) for name, (shape, spec) in PLACED.items()
    }


def specs(state: Any) -> dict[str, P]:
    """The spec of each array, or sharding, by path."""
    found = {path: x for path, x in flatten(state).items() if x is not None}
    return {path: (x if isinstance(x, NamedSharding) else x.sharding).spec for path, x in found.items()}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_the_state_lies_as_it_is_derived(kinds: tuple[AxisType, ...]) -> None:
    """Of arrays, shapes and, in eager `init`, of the state itself, for axes of any kind."""
    p = placed(kinds)
    tx = cx.partition(
        cx.by_path(
            {"w": cx.adafactor(0.1), "long": cx.store(cx.adamw(0.1), cx.int8()), "conv": cx.lbfgs(memory_size=2)},
            default=cx.accumulate(cx.adam(0.1), 2),
        )
    )
    shardings = tx.state_sharding(p)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), p)
    assert tx.state_sharding(shapes) == shardings
    got = specs(shardings)
    want = {
        "w/links/scale_by_factored_rms/nu_row/w": P("data"),
        "w/links/scale_by_factored_rms/nu_col/w": P("model"),
        "long/links/scale_by_adam/mu/long/int8": P(("data", "model")),
        "long/links/scale_by_adam/mu/long/scale": P(("data", "model")),
        "conv/links/scale_by_lbfgs/s/conv": P(None, None, None, "model", "data"),
        "w/step": P(),
    }
    assert {name: got[f"links/partition/{name}"] for name in want} == want
    state = tx.init(p)
    same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, shardings)
    assert all(jax.tree.leaves(same))
    abstract = tx.abstract_state(p)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    jitted = jax.jit(tx.init, out_shardings=shardings)(p)
    jax.tree.map(np.testing.assert_array_equal, state, jitted)


def test_axes_that_a_slot_declares() -> None:
    """Of another shape, as for the statistics of a matrix."""
    p = placed(KINDS["explicit"])["w"]
    spec = {
        axes: jax.typeof(cxe.slot_like(p, axes=axes, shape=shape)).sharding.spec
        for axes, shape in {
            (0,): None,
            (None, 0, 1): (5, 512, 512),
            (0, 0): (512, 512),
            (1, None): (512, 3),
            (0, 1): (6, 512),
        }.items()
    }
    assert spec == {
        (0,): P("data"),
        (None, 0, 1): P(None, "data", "model"),
        (0, 0): P("data", None),
        (1, None): P("model", None),
        (0, 1): P(None, "model"),
    }
    with pytest.raises(ValueError, match="give a length for each axis"):
        cxe.slot_like(p, axes=(0, None))


def test_without_a_mesh_the_state_lies_with_the_parameters() -> None:
    """On one device."""
    device = jax.devices()[3]
    p = jax.device_put({"w": jnp.ones((2, 3)), "n": jnp.int32(1), "none": None, "half": 0.5}, device)
    shardings = cx.adam(0.1).state_sharding({**p, "text": "kept"})
    assert {next(iter(s.device_set)) for s in jax.tree.leaves(shardings)} == {device}


UNKNOWN = {
    "a shape": (jax.ShapeDtypeStruct((2,), jnp.float32), "the shape of 'w' has no sharding: give jax.ShapeDtypeStruct"),
    "two meshes": (
        [
            jax.device_put(jnp.ones(4), NamedSharding(jax.make_mesh((n,), ("d",), devices=jax.devices()[:n]), P("d")))
            for n in (2, 4)
        ],
        r"several meshes: 'w/0' on Mesh\(d: 2\) of devices \[0, 1\], 'w/1' on Mesh\(d: 4\) of devices \[0, 1, 2, 3\]",
    ),
}


@pytest.mark.parametrize(("p", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_sharding_that_is_not_known_is_refused(p: Any, message: str) -> None:
    """Shapes need one, and a state lies on one mesh."""
    with pytest.raises(ValueError, match=message):
        cx.adam(0.1).state_sharding({"w": p})


def test_automatic_axes_are_not_known_under_jit() -> None:
    """Types do not carry them."""
    p = placed(KINDS["auto"])
    sharding: Any = p["w"].sharding
    with jax.set_mesh(sharding.mesh), pytest.raises(ValueError, match="along automatic axes is not known while"):
        jax.eval_shape(lambda p: cx.adam(0.1).state_sharding(p) and p, p)
