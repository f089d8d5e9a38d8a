"""The law of meshes: a step equals that on one device, and what comes out lies where it lay."""

import functools
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import REGISTRY, given, in_pairs, quickly

pytestmark = pytest.mark.long

SHAPES = {"row": (8, 4), "conv": (3, 3, 2, 16), "bias": (8,), "scalar": (), "one": (1, 1), "codes": (16, 512)}
"""Small leaves, and one that is stored in codes."""

SPECS = {"row": P("x", "y"), "conv": P(None, None, None, "x"), "bias": P(("x", "y")), "codes": P("x", "y")}
MESHES: dict[str, tuple[AxisType, AxisType]] = {
    "explicit": (AxisType.Explicit, AxisType.Explicit),
    "automatic": (AxisType.Auto, AxisType.Auto),
    "mixed": (AxisType.Explicit, AxisType.Auto),
}


def mesh(kind: str) -> Mesh:
    """Eight devices on two axes."""
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=MESHES[kind])


def shardings(kind: str, devices: Mesh) -> dict[str, NamedSharding]:
    """How each parameter is sharded: along both axes, along one of them, or not at all."""
    specs = {name: SPECS.get(name, P()) for name in SHAPES}
    if kind == "mixed":  # JAX keeps no sharding of one dimension along axes of both kinds
        specs |= {"bias": P("x"), "conv": P(None, None, None, "y")}
    return {name: NamedSharding(devices, spec) for name, spec in specs.items()}


def problem(seed: int, dtype: Any) -> dict[str, jax.Array]:
    """Parameters or gradients."""
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


def same(got: Any, want: Any) -> None:
    """Compare all arrays."""
    wide = functools.partial(jnp.asarray, dtype=jnp.float32)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(wide(x), wide(y), rtol=1e-4, atol=2e-6), got, want)


FAMILIES: dict[str, Any] = {
    "sgd": cx.sgd(0.1, momentum=0.9),
    "adamw": cx.adamw(0.1),
    "adafactor": cx.adafactor(momentum=0.9, min_dim_size_to_factor=2),
    "lamb": cx.lamb(),
    "lion": cx.lion(),
    "adam_mini": cx.adam_mini(),
    "sm3": cx.sm3(0.1),
    "lbfgs": cx.chain(cx.scale_by_lbfgs(memory_size=1), cx.scale_by_lr(0.1)),
    "galore": cx.chain(cx.scale_by_galore(cx.scale_by_adam(), rank=2), cx.scale_by_lr(0.1)),
    "flatten": cx.flatten(cx.sgd(0.1, momentum=0.9)),
    "pack": cx.pack(cx.sgd(0.1, momentum=0.9)),
    "prodigy": cx.prodigy(estim_lr0=0.1),
    "dadapt": cx.dadapt_adamw(estim_lr0=0.1),
    "mechanize": cx.mechanize(cx.adamw(1.0), s_init=0.1),
    "schedule_free": cx.schedule_free_adamw(0.1),
    "accumulate": cx.accumulate(cx.adam(0.1), 2),
    "guard": cx.chain(cx.skip_nonfinite(), cx.clip_by_global_norm(1.0), cx.adam(0.1)),
    "partition": cx.partition(cx.by_path({"bias": cx.sgd(0.1, momentum=0.9)}, default=cx.adam(0.1))),
    "noise": cx.chain(cx.add_noise(), cx.scale_by_lr(0.1)),
    "average": cx.chain(cx.adam(0.1), cx.ema_params(0.9)),
    "lookahead": cx.chain(cx.adam(0.1), cx.slow_weights(2.0)),
    "sharpness": given(cx.sharpness_aware()),
    "centralize": cx.chain(cx.centralize(), cx.sgd(0.1)),
    "per example": in_pairs(cx.clip_per_example(1.0)),
    "int8": cx.store(cx.adamw(0.1), cx.int8()),
    "int4": cx.store(cx.adamw(0.1), cx.int4()),
    "float8": cx.store(cx.adamw(0.1), cx.float8()),
    "companded8": cx.store(cx.lamb(), cx.companded8()),
    "codes behind a guard": cx.chain(cx.skip_nonfinite(), cx.store(cx.adamw(0.1), cx.int8())),
    "bfloat16": cx.store(cx.adamw(0.1), "bfloat16"),
    "stochastic": cx.chain(cx.sgd(0.1, momentum=0.9), cx.apply_update("stochastic")),
    "kahan": cx.chain(cx.sgd(0.1, momentum=0.9), cx.apply_update("kahan")),
}


@functools.cache
def on_one_device(name: str) -> Any:
    """The parameters and the state after the step."""
    tx, dtype = FAMILIES[name], jnp.bfloat16 if name in ("stochastic", "kahan") else jnp.float32
    p, g = problem(0, dtype), problem(1, dtype)
    return p, g, quickly(lambda p, g: tx.step(p, tx.init(p), g))(p, g)


SOME = {
    "int8": ("explicit", "mixed"),
    "int4": ("automatic", "mixed"),
    "float8": ("mixed",),
    "codes behind a guard": ("automatic",),
    "lbfgs": ("automatic", "mixed"),
}
"""The kinds of meshes for what takes long to compile. `test_mesh.py` has codes on explicit axes."""

CASES = [
    (name, kind, (i + j) % 2 == 0)
    for i, name in enumerate(FAMILIES)
    for j, kind in enumerate(MESHES)
    if kind in SOME.get(name, MESHES)
]


@pytest.mark.parametrize(("name", "kind", "jitted"), CASES)
def test_every_family_on_every_kind_of_mesh(name: str, kind: str, jitted: bool) -> None:
    """Jitted and eager in turns."""
    tx, (p, g, want), devices = FAMILIES[name], on_one_device(name), mesh(kind)
    with jax.set_mesh(devices):
        p, g = jax.device_put((p, g), (shardings(kind, devices),) * 2)
        state = tx.init(p)
        got = (quickly(tx.step) if jitted else tx.step)(p, state, g)
        same(got, want)
        jax.tree.map(check_place, (p, state), got)
        if kind == "explicit":
            assert jax.tree.map(jax.typeof, got) == jax.tree.map(jax.typeof, (p, state))


def check_place(old: jax.Array, new: jax.Array) -> None:
    """Raise if an array has moved."""
    assert new.sharding.is_equivalent_to(old.sharding, old.ndim), f"{old.sharding} → {new.sharding}"


@pytest.mark.parametrize("tx", REGISTRY, ids=repr)
def test_types_of_slots_are_derived(tx: Any) -> None:
    """Under `jax.eval_shape`, a slot of its parameter's shape has its sharding."""
    devices = mesh("explicit")
    where = shardings("explicit", devices)
    tx = tx.replace(over="x") if isinstance(tx, cx.zero1) else tx  # the registry's names an axis of other tests
    with jax.set_mesh(devices):
        p = {n: jax.ShapeDtypeStruct(s, jnp.float32, sharding=where[n]) for n, s in SHAPES.items()}
        state = jax.eval_shape(tx.init, p)
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        like = p.get(getattr(path[-1], "key", ""))
        if like is not None and x.shape == like.shape:
            assert jax.typeof(x).sharding.spec == jax.typeof(like).sharding.spec, jax.tree_util.keystr(path)


@pytest.mark.parametrize("form", (cx.int8(), cx.int4(), cx.float8(), cx.companded8(), "bfloat16"), ids=repr)
def test_types_of_codes_are_derived(form: Any) -> None:
    """Codes and scales are sharded as the parameter is, if no shard cuts a block."""
    devices = mesh("explicit")
    with jax.set_mesh(devices):
        p = jax.ShapeDtypeStruct((16, 512), jnp.float32, sharding=NamedSharding(devices, P("x", "y")))
        state = jax.eval_shape(cx.store(cx.adamw(0.1), form).init, p)
    for x in jax.tree.leaves(state.links):
        assert jax.typeof(x).sharding.spec == P("x", "y")


CUT: dict[str, tuple[tuple[int, ...], P]] = {
    "whole rows": ((512, 64), P("x")),
    "whole columns": ((16, 2048), P(None, "x")),
    "cut columns": ((64, 512), P(None, "x")),
    "cut rows": ((1048, 12), P("x")),
    "odd": ((64, 193), P("x")),
}


@pytest.mark.parametrize("form", (cx.int8(), cx.int4()), ids=repr)
@pytest.mark.parametrize("case", CUT)
def test_codes_on_axes_of_both_kinds(case: str, form: Any) -> None:
    """Formats with a table for CPUs too, whose lookups JAX cannot shard, whether or not shards hold whole blocks."""
    (shape, spec), tx, devices = CUT[case], cx.store(cx.adamw(0.5, b1=0.5, b2=0.5), form), mesh("mixed")
    rng = np.random.default_rng(0)
    p, g = ({"w": jnp.asarray(rng.normal(size=shape), jnp.float32)} for _ in range(2))
    want = jax.jit(tx.step)(p, jax.jit(tx.init)(p), g)
    with jax.set_mesh(devices):
        p, g = jax.device_put((p, g), NamedSharding(devices, spec))
        state = jax.jit(tx.init)(p)
        got = jax.jit(tx.step)(p, state, g)
        jax.tree.map(check_place, (p, state), got)
    same(got, want)


def test_leaves_of_one_shape_may_be_sharded_apart() -> None:
    """XLA moves none of them on automatic axes, though they share a leaf function with a loop over tiles."""
    devices, tx = mesh("automatic"), cx.store(cx.adamw(0.5), cx.int4())
    specs = {"a": P("x"), "b": P(None, "y"), "c": P("x", "y"), "d": P()}
    with jax.set_mesh(devices):
        p = {name: jax.device_put(jnp.ones((64, 512)), NamedSharding(devices, spec)) for name, spec in specs.items()}
        state = tx.init(p)
        jax.tree.map(check_place, (p, state), quickly(tx.step)(p, state, p))
