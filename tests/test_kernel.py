"""A leaf with encoded slots in the forms for other devices than this one, which compute what the form for CPUs does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.core.engine import kernel, one_device
from chainax.core.engine.blocks import Blocks
from chainax.core.engine.codes import (
    dynamic_code,
    dynamic_map,
    dynamic_number,
    float8_code,
    float8_number,
    nearest,
    sixteenth_code,
)
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

FORMATS = (cx.int8(), cx.companded8(), cx.float8(), cx.int4())
SHAPES = {
    "ragged rows": (300, 512),
    "many scales": (40, 4096),
    "three axes": (2, 24, 768),
    "a vector": (8192,),
    "flattened": (64, 384),
}


def exact_code(x: jax.Array, signed: bool, bits: int) -> jax.Array:
    """The table's code without a table, as no kernel may hold one: how many thresholds are below."""
    values = dynamic_map(signed, bits)
    down, up = values[:-1], values[1:]
    risen = (x - float(a) >= float(np.float32(b - a) * np.float32(0.5)) for a, b in zip(down, up))
    return functools.reduce(jnp.add, (x.astype(jnp.int32) for x in risen)).astype(jnp.uint8)


def exact_number(c: jax.Array, signed: bool, bits: int) -> jax.Array:
    """The table's number without a table."""
    chosen = jnp.zeros(c.shape)
    for i, x in enumerate(dynamic_map(signed, bits)):
        chosen = jnp.where(c == i, float(x), chosen)
    return chosen


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Compute in the form for another device: a TPU's kernel is interpreted, with the exact codes if asked."""

    def choose(device: str, exact: bool = False) -> None:
        jax.clear_caches()

        def chosen(*args: Any, default: Any, **forms: Any) -> Any:
            return forms.get(device, default)(*args)

        monkeypatch.setattr(lax, "platform_dependent", chosen)
        monkeypatch.setattr(one_device, "on_one_device", lambda kernel, fallback, *args, **_: kernel(*args))
        monkeypatch.setattr(kernel, "run", functools.partial(kernel.run, interpret=True))
        for form in (cx.int8, cx.int4) if exact else ():
            bits = 8 // form.per_byte
            encode, decode = form.encode, form.decode
            monkeypatch.setattr(
                form,
                "encode",
                lambda f, x, signed, old=encode, bits=bits: (
                    exact_code(x, signed, bits) if signed or bits == 8 else old(f, x, signed)
                ),
            )
            monkeypatch.setattr(
                form,
                "decode",
                lambda f, c, signed, old=decode, bits=bits: (
                    exact_number(c, signed, bits) if signed or bits == 8 else old(f, c, signed)
                ),
            )

    yield choose
    jax.clear_caches()


def steps(tx: Any, shape: tuple[int, ...], dtype: Any = jnp.float32, n: int = 3) -> Any:
    """Parameters and state after a few steps on ill-scaled gradients."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=shape), dtype), "b": jnp.ones(7, dtype)}
    state, step = tx.init(params), jax.jit(tx.step)
    for _ in range(n):
        size = rng.normal(size=shape) * 10.0 ** rng.integers(-6, 3, size=(*shape[:-1], 1))
        params, state = step(params, state, {"w": jnp.asarray(size, dtype), "b": jnp.ones(7, dtype)})
    return params, state


def check_same(found: Any, expected: Any) -> None:
    """The same codes, and the same numbers but for how XLA contracts sums of products."""
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(found)[0], jax.tree.leaves(expected), strict=True):
        ulp = float(jnp.finfo(x.dtype).eps) if jnp.issubdtype(x.dtype, jnp.floating) else 0.0
        near = {"rtol": 2 * ulp, "atol": ulp / 16}  # parameters are about 1
        np.testing.assert_allclose(np.float64(x), np.float64(y), **near, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(("signed", "bits"), ((True, 8), (False, 8), (True, 4)))
def test_computed_codes_differ_only_at_thresholds(signed: bool, bits: int) -> None:
    """Of 4 million numbers of all sizes, and 40 floats around each threshold; and the numbers by less than 1e-6."""
    values = dynamic_map(signed, bits)
    numbers = np.asarray(dynamic_number(jnp.arange(2**bits, dtype=jnp.uint8), signed, bits))
    np.testing.assert_allclose(numbers, values, rtol=1e-6, atol=0)
    thresholds = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    near = [thresholds]
    for away in (np.float32(-9), np.float32(9)):
        x = thresholds
        for _ in range(40):
            near.append(x := np.nextafter(x, away))
    rng = np.random.default_rng(0)
    spread = rng.uniform(-1 if signed else 0, 1, 1 << 22) * 10.0 ** rng.uniform(-8, 0, 1 << 22)
    x = np.concatenate([spread.astype(np.float32), *near, values])
    exact, found = np.asarray(nearest(jnp.asarray(x), values)), np.asarray(dynamic_code(jnp.asarray(x), signed, bits))
    differ = exact != found
    crossed = thresholds[np.minimum(exact, found)[differ]]
    assert (np.abs(exact.astype(int) - found)[differ] == 1).all()
    assert (np.abs(x[differ] - crossed) <= 5e-7 * np.abs(crossed)).all()


def test_computed_sixteenths_and_float8_are_exact() -> None:
    """Bit for bit, at every tie and next to it, and for NaN."""
    sixteenths = (np.arange(1, 17) / 16).astype(np.float32)
    x = np.random.default_rng(0).uniform(0, 1, 1 << 20).astype(np.float32)
    ties = sixteenths - np.float32(1 / 32)
    x = np.concatenate([x, sixteenths, ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(2))])
    np.testing.assert_array_equal(sixteenth_code(jnp.asarray(x)), nearest(jnp.asarray(x), sixteenths))

    every = np.arange(256, dtype=np.uint8)
    floats = np.asarray(jnp.asarray(every).view(jnp.float8_e4m3fn).astype(jnp.float32))
    np.testing.assert_array_equal(float8_number(jnp.asarray(every)), floats)
    finite = np.sort(floats[np.isfinite(floats)])
    ties = (finite[1:] + finite[:-1]) / 2
    wide = np.random.default_rng(0).uniform(-448, 448, 1 << 20) * 10.0 ** np.linspace(-8, 0, 1 << 20)
    x = np.concatenate([wide, finite, ties, np.nextafter(ties, np.float32(999)), np.nextafter(ties, np.float32(-999))])
    x = np.append(x, [np.nan, 0.0, -0.0]).astype(np.float32)
    expected = jnp.asarray(x).astype(jnp.float8_e4m3fn).view(jnp.uint8)
    np.testing.assert_array_equal(float8_code(jnp.asarray(x)), expected)


# Hyperparameters whose products are exact, so that it does not matter how XLA contracts them
HALVES = {"b1": 0.5, "b2": 0.5}
ADAMW = cx.adamw(2.0**-7, **HALVES, weight_decay=0.125)


@pytest.mark.long
@pytest.mark.parametrize("form", FORMATS, ids=repr)
@pytest.mark.parametrize("device", ("tpu", "cuda"))
def test_other_forms_store_the_same_bits(on: Any, form: Any, device: str) -> None:
    """With the exact codes, a TPU's kernel and a GPU's two passes store what the CPU's loop over tiles stores."""
    tx = cx.store(ADAMW, form)
    expected = steps(tx, SHAPES["ragged rows"])
    on(device, exact=True)
    check_same(steps(tx, SHAPES["ragged rows"]), expected)


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("form", (cx.companded8(), cx.companded8(block=128), cx.companded8(block=512)), ids=repr)
def test_kernel_of_any_shape(on: Any, form: Any, shape: tuple[int, ...]) -> None:
    """Rows that do not fill a tile, several scales a tile and several tiles a block of scales, and merged axes."""
    tx = cx.store(ADAMW, form)
    expected = steps(tx, shape)
    on("tpu")
    check_same(steps(tx, shape), expected)


CHAINS = {
    "Lion": cx.lion(2.0**-7, **HALVES),
    "momentum behind a clip": cx.chain(cx.clip_by_global_norm(1.0), cx.sgd(2.0**-7, momentum=0.5)),
    "NAdam": cx.nadam(2.0**-7, **HALVES),
    "AMSGrad": cx.amsgrad(2.0**-7, **HALVES),
    "schedule": cx.adamw(cx.linear_schedule(0.5, 0.25, 2), **HALVES),
    "no parameters": cx.chain(cx.scale_by_adam(**HALVES), cx.scale_by_lr(0.5)),
    **{name: cx.chain(ADAMW, cx.apply_update(name)) for name in ("nearest", "kahan", "ecc", "master")},
}


@pytest.mark.parametrize("name", CHAINS)
def test_kernel_of_any_chain(on: Any, name: str) -> None:
    """What an elementwise chain does besides: clips, schedules, several slots, and residuals of bfloat16 parameters."""
    tx, dtype = cx.store(CHAINS[name], cx.companded8()), jnp.bfloat16 if "apply" in repr(CHAINS[name]) else jnp.float32
    expected = steps(tx, (300, 512), dtype)
    on("tpu")
    check_same(steps(tx, (300, 512), dtype), expected)


@pytest.mark.parametrize("rounding", ("", "kahan"))
@pytest.mark.parametrize("device", ("tpu", "cuda"))
def test_a_rejected_step_keeps_codes_as_they_were(on: Any, device: str, rounding: str) -> None:
    """The leaf's function itself keeps parameters, slots and residuals. The next step is as on a CPU."""
    inner = cx.chain(ADAMW, cx.apply_update(rounding)) if rounding else ADAMW
    tx = cx.chain(cx.skip_nonfinite(), cx.clip_by_global_norm(1e9), cx.store(inner, cx.companded8()))
    dtype = jnp.bfloat16 if rounding else jnp.float32
    params, state = steps(tx, (300, 512), dtype)
    bad = {"w": jnp.full_like(params["w"], 2.0).at[7, 9].set(jnp.nan), "b": jnp.ones_like(params["b"])}
    good = jax.tree.map(lambda x: jnp.nan_to_num(x, nan=1.0), bad)
    expected = jax.jit(tx.step)(params, jax.jit(tx.step)(params, state, bad)[1], good)
    on(device)
    kept, after = jax.jit(tx.step)(params, state, bad)
    jax.tree.map(np.testing.assert_array_equal, kept, params)
    assert after.links["skip_nonfinite"] != state.links["skip_nonfinite"]
    unguarded = [{n: x for n, x in s.links.items() if n != "skip_nonfinite"} for s in (after, state)]
    jax.tree.map(np.testing.assert_array_equal, *unguarded)
    check_same(jax.jit(tx.step)(kept, after, good), expected)


@pytest.mark.parametrize("device", ("tpu", "cuda"))
def test_derivatives_of_a_rejected_step_with_codes_are_finite(device: str) -> None:
    """By the plain operations, which compute it from zeros."""

    def loss(rate: jax.Array, gradients: tuple[float, ...]) -> jax.Array:
        tx = cx.chain(cx.skip_nonfinite(), cx.store(cx.adamw(rate), cx.companded8()))
        p = {"w": jnp.ones((8, 512))}
        state = tx.init(p)
        for x in gradients:
            p, state = tx.step(p, state, {"w": jnp.full((8, 512), x)})
        return jnp.sum(p["w"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lax, "platform_dependent", lambda *args, default, **forms: forms.get(device, default)(*args))
        slopes = [float(jax.jit(jax.grad(functools.partial(loss, gradients=x)))(0.1)) for x in ((1.0, jnp.nan), (1.0,))]
    jax.clear_caches()
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-6)
    assert np.isfinite(slopes[0])
    assert slopes[0] != 0


@pytest.mark.parametrize("device", ("cpu", "tpu"))
def test_stochastic_rounding_in_the_kernel_is_right_on_average(on: Any, device: str) -> None:
    """No number of any tile is drawn twice, and the mean is exact: one step of 1/16 of the gap, many times over."""
    tx = cx.chain(
        cx.store(cx.chain(cx.ema(0.0), cx.scale(1.0)), cx.companded8()), cx.apply_update("stochastic", seed=3)
    )
    params = {"w": jnp.ones((512, 512), jnp.bfloat16)}
    gap, step = 2.0**-7, jax.tree.map(lambda p: jnp.full_like(p, 2.0**-11), params)
    if device != "cpu":
        on(device)
    up = np.float32(jax.jit(tx.step)(params, tx.init(params), step)[0]["w"]) - 1
    assert set(np.unique(up)) == {0.0, gap}
    share = (up > 0).reshape(2, 256, 2, 256)
    assert abs(share.mean() - 1 / 16) < 4 * np.sqrt(1 / 16 * 15 / 16 / share.size)
    tiles = [share[i, :, j] for i in range(2) for j in range(2)]
    assert all(abs((a & b).mean() - 1 / 256) < 0.002 for k, a in enumerate(tiles) for b in tiles[:k])


# The choice between the kernel and plain operations, in what is lowered for a TPU


@cxe.value
class tabled(Blocks):
    """Codes by a table: 256 even numbers."""

    block: int = cxe.static("numbers that share a scale", default=256)
    min_size: int = cxe.static("leaves of fewer numbers stay in float32", default=4096)

    def encode(self, x: jax.Array, signed: bool) -> jax.Array:
        """The index of the nearest."""
        return jnp.searchsorted(jnp.linspace(-1.0, 1.0, 256), x).astype(jnp.uint8)

    def decode(self, codes: jax.Array, signed: bool) -> jax.Array:
        """The number at the index."""
        return jnp.linspace(-1.0, 1.0, 256)[codes]


def lowered(f: Callable, *args: Any) -> str:
    """The StableHLO text for a TPU."""
    return jax.jit(f).trace(*args).lower(lowering_platforms=("tpu",)).as_text()


def aval(*shape: int, sharding: Any = None, dtype: Any = jnp.float32) -> dict[str, jax.ShapeDtypeStruct]:
    """One parameter."""
    return {"w": jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)}


IN_KERNEL: dict[str, tuple[Any, Any]] = {
    **{repr(form): (cx.store(cx.adamw(1e-3), form), aval(300, 512)) for form in FORMATS},
    **{name: (cx.store(tx, cx.int8()), aval(300, 512)) for name, tx in CHAINS.items() if "apply" not in repr(tx)},
    **{
        name: (cx.chain(cx.store(cx.adamw(1e-3), cx.int8()), cx.apply_update(name)), aval(64, 512, dtype=jnp.bfloat16))
        for name in ("nearest", "stochastic", "kahan", "ecc", "master")
    },
    "noise": (cx.store(cx.chain(cx.add_noise(0.1, 0.55, 0), cx.adam(1e-3)), cx.int8()), aval(300, 512)),
    "wide rows": (cx.store(cx.lion(1e-3), cx.int8(block=512)), aval(3, 64, 8192)),
}
PLAIN: dict[str, tuple[Any, Any]] = {
    "float16": (cx.store(cx.adamw(1e-3), cx.int8()), aval(300, 512, dtype=jnp.float16)),
    "float16 beside codes": (cx.store(cx.adamw(1e-3), mu="float16", nu=cx.int8()), aval(300, 512)),
    "a table": (cx.store(cx.adamw(1e-3), tabled()), aval(300, 512)),
    "narrow blocks": (cx.store(cx.adamw(1e-3), cx.int8(block=16)), aval(300, 512)),
    "a size that blocks do not divide": (cx.store(cx.adamw(1e-3), cx.int8()), aval(301, 100)),
    "a cube root": (cx.store(cx.madgrad(1e-3), cx.int8()), aval(300, 512)),
    "a norm of the leaf": (cx.store(cx.scale_by_ldog(), cx.int8()), aval(300, 512)),
    "float16 and a residual": (
        cx.chain(cx.store(cx.adamw(1e-3), cx.int8()), cx.apply_update("kahan")),
        aval(300, 512, dtype=jnp.float16),
    ),
}


@pytest.mark.parametrize("name", (*IN_KERNEL, *PLAIN))
def test_what_is_computed_in_the_kernel(name: str) -> None:
    """Everything elementwise that Pallas compiles; the rest is plain, without an error."""
    tx, params = {**IN_KERNEL, **PLAIN}[name]
    text = lowered(tx.step, params, jax.eval_shape(tx.init, params), params)
    assert text.count("tpu_custom_call") == (name in IN_KERNEL)


@pytest.mark.parametrize("kind", ("one device", "explicit", "shard_map", "auto"))
def test_kernel_is_for_one_device_or_one_shard(kind: str) -> None:
    """Where the compiler would divide the computation among devices there is none."""
    tx, spec = cx.store(cx.adamw(1e-3), cx.int8()), P("x")
    axes = AxisType.Explicit if kind == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axes,))
    if kind == "one device":
        params, step = aval(512, 512), tx.step
        state = jax.eval_shape(tx.init, params)
    else:
        where = NamedSharding(mesh, spec)
        params = aval(512, 512, sharding=where)
        like = jax.eval_shape(tx.init, aval(512, 512))
        on = jax.tree.map(lambda x: where if x.ndim else NamedSharding(mesh, P()), like)
        state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, on)
        specs = jax.tree.map(lambda s: s.spec, on)
        step = tx.step
        if kind == "shard_map":
            step = jax.shard_map(tx.step, mesh=mesh, in_specs=(spec, specs, spec), out_specs=(spec, specs))
    with jax.set_mesh(mesh) if kind == "explicit" else contextlib.nullcontext():
        text = lowered(step, params, state, params)
    assert ("tpu_custom_call" in text) == (kind != "auto")


def test_batches_and_derivatives_take_plain_operations() -> None:
    """A sweep and a hypergradient compute what they do without the kernel."""

    def loss(rate: jax.Array) -> jax.Array:
        params, _ = steps(cx.store(cx.adamw(rate), cx.companded8()), (8, 512), n=1)
        return jnp.sum(params["w"] ** 2)

    rates = jnp.array([0.5, 0.25])
    expected = jax.vmap(loss)(rates), jax.grad(loss)(rates[0])
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lax, "platform_dependent", lambda *args, default, **forms: forms.get("tpu", default)(*args))
        found = jax.vmap(loss)(rates), jax.grad(loss)(rates[0])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
    jax.clear_caches()


def test_an_export_for_several_platforms_has_plain_operations() -> None:
    """One module for all of them cannot contain a kernel for one."""
    tx, params = cx.store(cx.adamw(1e-3), cx.int8()), aval(64, 512)
    step = jax.jit(tx.step)
    for platforms, kernels in ((("cpu", "tpu"), 0), (("tpu",), 1)):
        made = jax.export.export(step, platforms=platforms)(params, jax.eval_shape(tx.init, params), params)
        assert made.mlir_module().count("tpu_custom_call") == kernels


@pytest.mark.parametrize("shape", ((0,), (256, 0), (0, 256), ()))
def test_leaves_without_numbers(shape: tuple[int, ...]) -> None:
    """Or with one: as without codes, and no kernel."""
    tx = cx.store(cx.adamw(1e-3), cx.int8(min_size=0))
    params = {"w": jnp.ones(shape)}
    new, _ = jax.jit(tx.step)(params, tx.init(params), params)
    assert new["w"].shape == shape
    text = lowered(tx.step, aval(*shape), jax.eval_shape(tx.init, aval(*shape)), aval(*shape))
    assert "tpu_custom_call" not in text


def test_one_draw_for_a_leaf_is_one_draw() -> None:
    """A link that keeps all of a leaf or nothing of it is not computed in tiles, each of which would draw."""

    @cxe.transform
    class keep_all_or_nothing(cxe.Leafwise):
        """u ← u or 0."""

        seed: Any = cxe.prng_seed("of the draws")
        slots, random, equation = ("mu",), True, "u ← u or 0"

        def leaf(self, u: Any, slot: Any, p: Any, scalars: Any) -> Any:
            """One draw."""
            m = jnp.where(jax.random.bits(slot.key, ()) < jnp.uint32(2**31), u, 0.0)
            return m, {"mu": m}

    tx, params = cx.store(keep_all_or_nothing(), cx.companded8()), {"w": jnp.ones((512, 512))}
    state, kept = tx.init(params), set()
    for _ in range(8):
        updates, state = jax.jit(tx.update)(params, state, params)
        kept.add(float(jnp.mean(updates["w"])))
    assert kept == {0.0, 1.0}
