"""Slots in narrow formats: the same maps, codes and scales as torchao, few bytes, and optimizers that still work."""

import functools
import json
import math
import re
import warnings
from typing import Any

import chainax as cx
import chainax.extend as cxe
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import registry
from chainax.core.engine import storage as chainax_storage
from chainax.core.engine.codes import dynamic_map
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from registry import quickly

FORMATS = {name: cls() for name, cls in registry.FORMATS.items()}
rng = np.random.default_rng(0)
INPUTS = {
    "random": rng.normal(size=(64, 256)),
    "tiny": rng.normal(size=(64, 256)) * 1e-30,
    "huge": rng.normal(size=(64, 256)) * 1e30,
    "zero": np.zeros((64, 256)),
    "denormal": rng.normal(size=(64, 256)) * 1e-40,
    "ill-scaled": rng.normal(size=(64, 256)) * 10.0 ** rng.integers(-12, 6, size=(64, 256)),
    "even": np.linspace(-1, 1, 64 * 256).reshape(64, 256),
}


@pytest.fixture
def torchao() -> Any:
    """torchao's optimizers, without what they say when imported and without compiling."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("torchao.optim")
        torch.compiler.set_stance("force_eager")
        yield module
        torch.compiler.set_stance("default")


@pytest.mark.parametrize(("signed", "bits"), ((True, 8), (False, 8), (True, 4)))
def test_maps_are_those_of_torchao(torchao: Any, signed: bool, bits: int) -> None:
    """Every value of the dynamic map, to the last bit."""
    theirs = torchao.subclass_8bit.create_dynamic_map(signed, bits - 1, bits)
    np.testing.assert_array_equal(dynamic_map(signed, bits), np.array(theirs, np.float32))


@pytest.mark.parametrize("signed", (True, False))
@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(("form", "theirs"), (("int8", "8bit"), ("int4", "4bit"), ("float8", "Fp8")))
def test_codes_and_scales_are_those_of_torchao(torchao: Any, form: str, theirs: str, name: str, signed: bool) -> None:
    """Codes, scales and what they are widened to are equal to the last bit."""
    import torch

    x = INPUTS[name].astype(np.float32)
    if not signed:
        x = np.abs(x)
    block = FORMATS[form].block
    kind = getattr(getattr(torchao, f"subclass_{theirs.lower()}"), f"OptimState{theirs}")
    other = kind.zeros(x.shape, *(() if form == "float8" else (signed,)), block)
    other.copy_(torch.tensor(x))
    ours = quickly(lambda x: FORMATS[form].keep(x, signed))(x)
    codes = other.codes.view(torch.uint8) if form == "float8" else other.codes
    np.testing.assert_array_equal(np.ravel(ours[form]), codes.numpy().ravel())
    np.testing.assert_array_equal(np.ravel(ours["scale"]), other.scale.numpy())
    wide = quickly(lambda kept: FORMATS[form].widen(kept, x.shape, signed))(ours)
    np.testing.assert_array_equal(wide, other.dequantize().numpy())


@functools.partial(quickly, static_argnums=(0, 2))
def there_and_back(form: Any, x: Any, signed: bool) -> Any:
    """What is left of ``x`` when it has been stored."""
    return form.widen(form.keep(x, signed), x.shape, signed)


def farthest(form: Any, signed: bool) -> float:
    """How far a number of magnitude 1 at most may be from the nearest one that has a code, and a little more."""
    (codes,) = (x for name, x in form.keep(jnp.zeros(form.block), signed).items() if name != "scale")
    known = np.sort(form.decode(jnp.arange(256, dtype=jnp.uint8).view(codes.dtype), signed).ravel()) / form.largest
    x = np.linspace(-1 if signed else 0, 1, 10001)
    above = np.searchsorted(known := known[np.isfinite(known)], x)
    near = np.stack([known[np.clip(i, 0, known.size - 1)] for i in (above, above - 1)])
    return 1.1 * float(np.max(np.min(np.abs(near - x), axis=0)))


@pytest.mark.long
@pytest.mark.parametrize("signed", (True, False))
@pytest.mark.parametrize("shape", ((1,), (3, 5), (255,), (257,), (7, 300), (2, 3, 128), (0, 4)))
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_any_shape_is_padded(form: Any, shape: tuple, signed: bool) -> None:
    """Leaves that the block does not divide come back as the rows of a padded one would."""
    x = rng.normal(size=shape).astype(np.float32)
    x = x if signed else np.abs(x)
    wide = there_and_back(form, x, signed)
    assert wide.shape == shape
    padded = np.zeros(-(-max(x.size, 1) // form.block) * form.block, np.float32)
    padded[: x.size] = x.ravel()
    apart = there_and_back(form, padded, signed)
    np.testing.assert_array_equal(np.ravel(wide), apart[: x.size])
    if x.size:
        assert np.max(np.abs(wide - x)) <= farthest(form, signed) * np.max(np.abs(x))


@pytest.mark.parametrize("form", (cx.int4(), cx.companded8()), ids=repr)
def test_second_moments_are_never_rounded_to_zero(form: Any) -> None:
    """A step is divided by their root: with a code for 0, training diverges (docs/low_precision.md)."""
    x = np.abs(INPUTS["ill-scaled"]).astype(np.float32)
    assert np.all(there_and_back(form, x, False) > 0)
    assert np.any(there_and_back(form, x, True) == 0)


@pytest.mark.parametrize("bits", (8, 4))
def test_adamw_is_that_of_torchao(torchao: Any, bits: int) -> None:
    """20 steps of AdamW with 8-bit and 4-bit slots, beside torchao's, on leaves that are stored in blocks."""
    import torch

    shapes = {"kernel": (64, 128), "other": (32, 256), "bias": (128,)}
    params = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    grads = [{n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()} for _ in range(20)]
    leaves = {n: torch.nn.Parameter(torch.tensor(p)) for n, p in params.items()}
    other = getattr(torchao, f"AdamW{bits}bit")(leaves.values(), lr=1e-2, weight_decay=0.1)
    tx = cx.store(cx.adamw(1e-2, weight_decay=0.1), FORMATS[f"int{bits}"])
    state, step = tx.init(params), quickly(tx.step)
    for g in grads:
        params, state = step(params, state, g)
        for n, p in leaves.items():
            p.grad = torch.tensor(g[n])
        other.step()
    theirs = {n: p.detach().numpy() for n, p in leaves.items()}
    # A difference in the last bit may fall on two sides of a threshold, and moves a number by a code.
    differences = np.concatenate([np.abs(params[n] - theirs[n]).ravel() for n in shapes])
    assert np.mean(differences > 1e-5) < 1e-3
    assert np.max(differences) < 2e-2
    codes = np.asarray(state.links["scale_by_adam"]["mu"]["kernel"][f"int{bits}"]).ravel()
    assert np.mean(codes != other.state[leaves["kernel"]]["exp_avg"].codes.numpy().ravel()) < 1e-3


def gpt2() -> dict[str, Any]:
    """The shapes of GPT-2 small: 124 million parameters in 148 leaves."""
    layer = {
        **{f"ln_{i}/{s}": (768,) for i in (1, 2) for s in ("scale", "bias")},
        "qkv": (768, 2304),
        "qkv_bias": (2304,),
        "out": (768, 768),
        "out_bias": (768,),
        "up": (768, 3072),
        "up_bias": (3072,),
        "down": (3072, 768),
        "down_bias": (768,),
    }
    return {
        "wte": (50257, 768),
        "wpe": (1024, 768),
        "ln_f/scale": (768,),
        "ln_f/bias": (768,),
        **{f"{i}/{name}": shape for i in range(12) for name, shape in layer.items()},
    }


@pytest.mark.parametrize(
    ("form", "most"), ((None, 8.0), ("bfloat16", 4.0), (cx.int8(), 2.1), (cx.int4(), 1.1), (cx.companded8(), 2.1))
)
def test_bytes_of_the_state(form: Any, most: float) -> None:
    """Bytes a parameter, counted from the arrays for GPT-2 small."""
    params = {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in gpt2().items()}
    tx = cx.store(cx.adamw(1e-3), form)
    state = jax.eval_shape(tx.init, params)
    count = sum(p.size for p in params.values())
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.links)) / count
    assert held <= most
    assert f"{held:.3g} bytes a parameter" in tx.describe(params)


def test_bytes_of_everything_with_corrected_parameters() -> None:
    """bfloat16 with 8 bits of correction, 8-bit moments, the gradient: 7 bytes a parameter, and the scales."""
    params = {n: jax.ShapeDtypeStruct(s, jnp.bfloat16) for n, s in gpt2().items()}
    tx = cx.chain(cx.store(cx.adamw(1e-3), cx.int8()), cx.apply_update("ecc"))
    state = jax.eval_shape(tx.init, params)
    count = sum(p.size for p in params.values())
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((params, params, state.links)))
    assert held / count <= 7 + 2 * 4 / 256 + 0.01


@pytest.mark.parametrize("form", (*FORMATS.values(), "bfloat16"), ids=(*FORMATS, "bfloat16"))
@pytest.mark.parametrize("name", ("sgd", "adamw"))
def test_optimizers_work_on_any_format(form: Any, name: str) -> None:
    """A quadratic is descended as with float32 slots, in leaves that are stored whole, in parts and padded."""
    tx = {"sgd": cx.sgd(0.1, momentum=0.9), "adamw": cx.adamw(0.1)}[name]
    start = {"large": jnp.ones((160, 256)), "odd": jnp.ones((65, 77)), "small": jnp.ones(9)}
    target = jax.tree.map(lambda x: jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), start)

    @functools.partial(quickly, static_argnums=0)
    def train(tx: Any) -> Any:
        def body(_: Any, carry: Any) -> Any:
            params, state = carry
            return tx.step(params, state, jax.tree.map(jnp.subtract, params, target))

        return jax.lax.fori_loop(0, 100, body, (start, tx.init(start)))

    params, state = train(cx.store(tx, form))
    plain, _ = train(tx)
    distance = max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(plain)))
    assert distance < (0.3 if form != "bfloat16" and form.per_byte > 1 else 0.1)  # codes of 4 bits are coarse
    first = jax.eval_shape(cx.store(tx, form).init, start)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, first)


STORES = {
    **{name: {"mu": form, "nu": form} for name, form in FORMATS.items()},
    "int8 and bfloat16": {"mu": cx.int8(), "nu": "bfloat16"},
}


@pytest.mark.long
@pytest.mark.parametrize("shape", ((100, 768), (199, 256)), ids=("no rest", "a rest"))
@pytest.mark.parametrize("stored", STORES.values(), ids=STORES)
@pytest.mark.parametrize(("dtype", "tolerance"), (("float32", 1e-5), ("bfloat16", 2.0**-7)))
def test_parts_are_the_whole(stored: dict[str, Any], shape: tuple[int, int], dtype: str, tolerance: float) -> None:
    """The loop over parts, which a CPU gets, makes the same numbers as the leaf as a whole; 199 blocks leave a rest."""
    tx = cx.store(cx.adamw(1e-2), **stored)
    p, g = (jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))
    state = tx.init({"w": p})
    step = quickly(tx.step)
    loops = str(step.lower({"w": p}, state, {"w": g}).compile().as_text())
    assert " while(" in loops
    # The same numbers in leaves of 60 blocks at most, which are too small for a loop.
    cuts = [*range(60, p.size // 256, 60)]
    rows, gs = ({f"{i:03}": y for i, y in enumerate(jnp.split(x.reshape(-1, 256), cuts))} for x in (p, g))
    rows_state = tx.init(rows)
    for _ in range(3):
        whole, state = step({"w": p}, state, {"w": g})
        rows, rows_state = step(rows, rows_state, gs)
        p = whole["w"]
    apart = np.concatenate([np.ravel(x) for x in rows.values()]).reshape(shape)
    np.testing.assert_allclose(p.astype("float32"), apart.astype("float32"), rtol=tolerance, atol=1e-5)


def test_slots_of_one_number_advance_once() -> None:
    """NAdam's product of momenta is not a leaf's shape: every part of the leaf has that of the step."""
    tx, plain = (store(cx.nadam(1e-2)) for store in (lambda tx: cx.store(tx, cx.int8()), lambda tx: tx))
    p = {"w": jnp.asarray(rng.normal(size=(128, 512)), jnp.float32)}
    step = quickly(tx.step)
    assert " while(" in str(step.lower(p, tx.init(p), p).compile().as_text())
    (ours, state), (theirs, expected) = (f(p, x.init(p), p) for f, x in ((step, tx), (plain.step, plain)))
    np.testing.assert_allclose(ours["w"], theirs["w"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(*(s.links["scale_by_nadam"]["mu_product"]["w"] for s in (state, expected)), rtol=1e-6)


def test_a_leaf_function_that_knows_the_shape_gets_the_whole_leaf() -> None:
    """A part has another fan-in, and another transpose."""

    @cxe.transform
    class over_fan_in(cxe.Leafwise):
        """Divide by the number of rows."""

        def leaf(self, u, slot, p, scalars):
            return u / u.shape[0]

    @cxe.transform
    class symmetrize(cxe.Leafwise):
        """Take the mean with the transpose."""

        def leaf(self, u, slot, p, scalars):
            return (u + u.T) / 2

    p = {"w": jnp.asarray(rng.normal(size=(256, 256)), jnp.float32)}
    for link, change in ((over_fan_in(), lambda u: u / 256), (symmetrize(), lambda u: (u + u.T) / 2)):
        before = cx.store(cx.trace(0.9), cx.int8())
        tx, alone = cx.chain(before, link), before
        ours = quickly(tx.update)(p, tx.init(p))[0]["w"]
        expected = quickly(alone.update)(p, alone.init(p))[0]["w"]
        np.testing.assert_allclose(ours, change(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rounding", ("kahan", "ecc", "master"))
def test_a_rest_may_pass_several_runs(rounding: str) -> None:
    """A clip behind the coded link ends its run: what rounding took is read there, and written in the last one."""
    end = cx.scale_by_lr(1e-3), cx.apply_update(rounding)
    tx = cx.chain(cx.store(cx.scale_by_adam(), cx.int8()), cx.clip_by_global_norm(1e9), *end)
    plain = cx.chain(cx.store(cx.scale_by_adam(), cx.int8()), *end)
    p = {"w": jnp.asarray(rng.normal(size=(256, 256)), jnp.bfloat16)}
    ours, theirs = ((p, x.init(p)) for x in (tx, plain))
    for _ in range(2):
        ours, theirs = quickly(tx.step)(*ours, p), quickly(plain.step)(*theirs, p)
    chex.assert_trees_all_equal(ours[0], theirs[0])


@pytest.mark.parametrize("dtype", ("bfloat16", "float16"))
def test_mean_squares_decay_in_narrow_floats(dtype: str) -> None:
    """Rounded to the nearest, 0.999·ν is ν in bfloat16, for ever. By turns it is right on average, and never 0."""
    tx, exact = cx.store(cx.scale_by_rms(0.999), dtype), cx.scale_by_rms(0.999)
    g = {"w": jnp.asarray(np.abs(rng.normal(size=200)) + 0.5, jnp.float32)}
    zero = jax.tree.map(jnp.zeros_like, g)
    states = [quickly(x.update)(g, x.init(g))[1] for x in (tx, exact)]
    tiny = quickly(tx.update)({"w": jnp.full(200, 1e-6)}, tx.init(g))[1]
    assert (tiny.links["scale_by_rms"]["nu"]["w"] > 0).all()
    for x, i in ((tx, 0), (exact, 1)):
        states[i] = quickly(lambda s, x=x: jax.lax.fori_loop(0, 1000, lambda _, s: x.update(zero, s)[1], s))(states[i])
    ours, expected = (np.asarray(s.links["scale_by_rms"]["nu"]["w"], np.float32) for s in states)
    assert states[0].links["scale_by_rms"]["nu"]["w"].dtype == dtype
    np.testing.assert_allclose(ours, expected, rtol=0.1)


def test_hypergradients_pass_through_narrow_slots() -> None:
    """As if nothing were rounded, and with a table by leaf that leaves out what is not trained."""
    params = {"w": jnp.linspace(0.5, 1.0, 12).reshape(3, 4), "steps": jnp.arange(3)}
    grads = {"w": params["w"] ** 2, "steps": None}
    forms = cx.by_leaf(params, lambda path, p: "bfloat16" if p.ndim > 1 else "float32")

    def end(rate: Any, narrow: bool) -> Any:
        tx = cx.store(cx.rmsprop(rate), forms) if narrow else cx.rmsprop(rate)
        p, state = params, tx.init(params)
        for _ in range(3):
            p, state = tx.step(p, state, grads)
        return jnp.sum(p["w"])

    ours, exact = (jax.grad(functools.partial(end, narrow=narrow))(0.1) for narrow in (True, False))
    np.testing.assert_allclose(ours, exact, rtol=1e-2)


FORMS = {form: getattr(cx, form)(block=8, min_size=0) for form in ("int8", "companded8", "float8", "int4")}


@pytest.mark.parametrize("way", ("nearest", "stochastic", "kahan", "ecc", "master", *FORMS))
def test_hypergradients_pass_through_roundings_and_codes(way: str) -> None:
    """As if nothing were rounded: of what is rounded, the derivative is 1."""
    start = jnp.linspace(0.5, 1.0, 64).reshape(8, 8)

    def end(rate: Any, narrow: bool) -> Any:
        tx = cx.sgd(rate, momentum=0.9)
        if narrow:
            tx = cx.store(tx, FORMS[way]) if way in FORMS else cx.chain(tx, cx.apply_update(way))
        p = {"w": start.astype(jnp.bfloat16 if narrow and way not in FORMS else jnp.float32)}
        state = tx.init(p)
        for _ in range(3):
            p, state = tx.step(p, state, p)
        return jnp.sum(p["w"].astype(jnp.float32))

    ours, exact = (jax.grad(functools.partial(end, narrow=narrow))(0.1) for narrow in (True, False))
    np.testing.assert_allclose(ours, exact, rtol=0.05)


@pytest.mark.parametrize("shape", ((768, 96), (4096, 8), (3, 3, 64, 64), (40000,)))
def test_leaves_of_any_shape_go_in_parts(shape: tuple[int, ...]) -> None:
    """With any number of scalars: how long a shape is in print does not matter."""
    p = {"w": jnp.ones(shape)}
    for rate in (1e-3, cx.cosine_decay_schedule(1e-3, 100)):
        tx = cx.store(cx.adamw(rate), cx.int8(block=8))
        assert "stablehlo.while" in jax.jit(tx.step).lower(p, tx.init(p), p).as_text()
    few = {"w": jnp.ones((64, 128))}  # fewer numbers than a tile
    assert "stablehlo.while" not in jax.jit(tx.step).lower(few, tx.init(few), few).as_text()


def test_codes_are_of_one_format() -> None:
    """Those of one format are no codes of another, and come without their scales to nothing."""
    p = {"w": jnp.asarray(rng.normal(size=(64, 64)), jnp.float32)}
    a, b = (cx.store(cx.adam(1e-3), form) for form in (cx.int8(), cx.float8()))
    state = a.step(p, a.init(p), p)[1]
    with pytest.raises(TypeError, match="was stored in another format"):
        b.step(p, state, p)
    with pytest.warns(cx.ChainWarning, match=r"loses scale_by_adam/mu/w/scale, .*pass it: old="):
        moved, report = b.adopt(p, state)
    assert [n for n in report.matched if "/mu/" in n] == []
    chex.assert_trees_all_equal(moved.links, b.init(p).links)
    finer = cx.store(cx.adam(1e-3), cx.int8(block=64))
    with pytest.warns(cx.ChainWarning, match=r"loses scale_by_adam/mu/w/int8, .*pass it: old="):
        moved, report = finer.adopt(p, state)
    chex.assert_trees_all_equal(moved.links, finer.init(p).links)
    assert any("the other arrays of its slot do not fit" in n for n in report.mismatched)
    assert moved.born == {"scale_by_adam/": 1}


def test_links_that_mix_numbers_are_not_taken_apart() -> None:
    """A leaf function with a norm of the leaf in it must see all of it."""

    @cxe.transform
    class normed_trace(cxe.Leafwise):
        """Momentum of the normalized update."""

        slots = ("trace",)

        def leaf(self, u, slot, p, scalars):
            b = 0.9 * slot.trace + u / jnp.sqrt(jnp.sum(jnp.square(u)))
            return b, {"trace": b}

    p = {"w": jnp.asarray(rng.normal(size=(100, 256)), jnp.float32)}
    plain = normed_trace()
    tx = cx.store(plain, cx.int8())
    updates, _ = jax.jit(tx.update)(p, tx.init(p))
    np.testing.assert_allclose(updates["w"], plain.update(p, plain.init(p))[0]["w"], rtol=1e-6)


def test_first_codes_are_not_made_by_the_compiler() -> None:
    """Slots begin as constants, which XLA would encode while it compiles: half a minute for GPT-2's embedding."""
    tx = cx.store(cx.adam(1e-3), cx.int8())
    compiled = jax.jit(tx.init).lower({"w": jnp.zeros((64, 256))}).compile()
    assert "reduce" in str(compiled.as_text())


@pytest.mark.parametrize("shape", ((1024, 1024), (11600, 256)))
@pytest.mark.parametrize("form", (cx.int8(), cx.companded8()), ids=repr)
@pytest.mark.parametrize("dtype", ("float32", "bfloat16", "float16"))
def test_traffic_of_8_bit_adamw(form: Any, shape: tuple[int, int], dtype: str) -> None:
    """Arguments and results are 16 bytes a parameter and temporaries next to none: at most 20 in all.

    A gradient in bfloat16 is copied, to integers of its bits: XLA's CPU compiler would widen all of a bfloat16
    array at every turn of the loop to write a part of it, 35 times the time for 32M numbers.
    """
    tx = cx.store(cx.adamw(1e-3), form)
    p = {"w": jnp.zeros(shape, dtype)}
    state, size = tx.init(p), p["w"].size
    step = jax.jit(tx.step, donate_argnums=(0, 1)).lower(p, state, p).compile()
    memory: Any = step.memory_analysis()
    moved = memory.argument_size_in_bytes + memory.output_size_in_bytes + 2 * memory.temp_size_in_bytes
    assert moved / size <= 20
    assert memory.temp_size_in_bytes < 5e5 + (2 * size if dtype == "bfloat16" else 0)
    wide = {math.prod(map(int, found.split(","))) for found in re.findall(r"f32\[([\d,]+)\]", str(step.as_text()))}
    assert (size in wide) == (dtype == "float32")


@pytest.mark.long
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("shape", ((64, 256), (48, 100)))
@pytest.mark.parametrize("spec", (P("d", None), P(None, "d")))
def test_same_bits_on_any_sharding(form: Any, shape: tuple, spec: Any) -> None:
    """Codes and parameters do not depend on how the leaf is sharded, also where borders cut blocks."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    tx = cx.store(cx.adamw(1e-2), form)
    params, grads = ({"w": jnp.asarray(rng.normal(size=shape), jnp.float32)} for _ in range(2))
    step = quickly(tx.step)
    alone = step(params, tx.init(params), grads)
    where = NamedSharding(mesh, spec)
    sharded, sharded_grads = jax.device_put((params, grads), where)
    spread = step(sharded, tx.init(sharded), sharded_grads)
    chex.assert_trees_all_equal(jax.device_get(spread[1].links), jax.device_get(alone[1].links))
    chex.assert_trees_all_close(jax.device_get(spread[0]), jax.device_get(alone[0]), rtol=1e-6)


def test_small_leaves_and_paths_stay() -> None:
    """Fewer than 4096 numbers are stored in float32, and so is what a table says."""
    form = cx.by_path({"embed": "float32"}, default=cx.int8())
    tx = cx.store(cx.adam(1e-3), mu=form, nu="bfloat16")
    entry = tx.init({"embed": jnp.ones((64, 64)), "w": jnp.ones((64, 64)), "b": jnp.ones(64)}).links["scale_by_adam"]
    assert set(entry["mu"]["w"]) == {"int8", "scale"}
    assert entry["mu"]["embed"].dtype == entry["mu"]["b"].dtype == jnp.float32
    assert {x.dtype for x in entry["nu"].values()} == {jnp.dtype(jnp.bfloat16)}


def test_storage_is_part_of_the_value() -> None:
    """It prints as code, compares, hashes, and round-trips through JSON; edits keep it, and checkpoints name it."""
    tx = cx.store(cx.adamw(1e-3), mu=cx.by_path({"e": "float32"}, default=cx.int8(block=64)), nu=cx.int4())
    assert tx != cx.adamw(1e-3)
    assert eval(repr(tx), vars(cx)) == tx == cx.from_config(json.loads(json.dumps(cx.to_config(tx))))
    assert hash(eval(repr(tx), vars(cx))) == hash(tx)
    edited = tx.replace("scale_by_adam", b2=0.9).move("add_decayed_weights", before="scale_by_adam")
    assert edited["scale_by_adam"] == tx["scale_by_adam"].replace(b2=0.9)
    assert "mu in by_path({'e': 'float32'}, default=int8(block=64)), nu in int4()" in tx.describe()
    params = {"w": jnp.ones((64, 64))}
    state = tx.init(params)
    arrays = tx.state_dict(state)
    assert {"scale_by_adam/mu/w/int8", "scale_by_adam/mu/w/scale"} < set(arrays)
    chex.assert_trees_all_equal(tx.load_state_dict(params, arrays)[0], state)


def test_complex_leaves_are_pairs() -> None:
    """The codes of a complex slot are those of its real and imaginary parts side by side."""
    tx = cx.store(cx.adam(1e-2), cx.int8())
    z = jnp.asarray(rng.normal(size=(64, 128)) + 1j * rng.normal(size=(64, 128)), jnp.complex64)
    parts = jnp.stack([z.real, z.imag], -1)
    _, state = quickly(tx.step)({"w": z}, tx.init({"w": z}), {"w": z})
    _, apart = quickly(tx.step)({"w": parts}, tx.init({"w": parts}), {"w": parts})
    for slot in ("mu", "nu"):
        a, b = (s.links["scale_by_adam"][slot]["w"]["int8"] for s in (state, apart))
        np.testing.assert_array_equal(np.ravel(a), np.ravel(b))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    (
        (lambda: cx.int8(block=0), ValueError, "`int8.block` must be a whole number from 2, got 0"),
        (lambda: cx.int4(block=3), ValueError, "`int4.block` must be an even whole number"),
        (lambda: cx.int8(min_size=-1), ValueError, "`int8.min_size` must be a whole number from 0, got -1"),
        (lambda: cx.store(cx.adam(1e-3), m=cx.int8()), ValueError, "no link has a slot 'm'.*; those of .* are mu, nu"),
        (lambda: cx.store(cx.sgd(0.1), trace="bfloat16"), ValueError, "no link has a slot 'trace'.* are none"),
        (lambda: cx.store(cx.adam(1e-3), mu="bfloat"), ValueError, "`storage.mu` must be .* .did you mean 'bfloat16'"),
        (lambda: cx.store(cx.adam(1e-3), mu=8), ValueError, "`storage.mu` must be one of 'float32', .* got 8"),
        (lambda: cx.store("adam", mu=cx.int8()), TypeError, "store takes a link or a chain, got 'adam'"),
        (lambda: cx.scale_by_adam(storage=0.5), ValueError, "`scale_by_adam.storage` is set by store"),
        (
            lambda: cx.store(cx.adam(1e-3), mu=cx.by_path({"n": cx.int8()}, default="float32")).init(
                {"n": jnp.arange(3), "w": jnp.ones(3)}
            ),
            TypeError,
            r"`scale_by_adam.mu`: by_path.* gives a format to 'n', which is int32\[3\] and has no slots",
        ),
        (
            lambda: cx.store(cx.adam(1e-3), cx.int8()).step(
                {"w": jnp.ones((64, 64))}, cx.adam(1e-3).init({"w": jnp.ones((64, 64))}), {"w": jnp.ones((64, 64))}
            ),
            TypeError,
            r"Slot 'mu' of link 'scale_by_adam' is float32\[64, 64\] at 'w', .* was stored in another format",
        ),
        (
            lambda: cx.adam(1e-3).step(
                {"w": jnp.ones((64, 64))},
                cx.store(cx.adam(1e-3), cx.int8()).init({"w": jnp.ones((64, 64))}),
                {"w": jnp.ones((64, 64))},
            ),
            TypeError,
            "Slot 'mu' of link 'scale_by_adam' is {int8: .* was stored in another format",
        ),
    ),
)
def test_mistake_is_explained(make: Any, error: type, message: str) -> None:
    """At build or at init, with the link, the slot and the remedy."""
    with pytest.raises(error, match=message):
        make()


def test_stochastic_rounding_beside_8_bit_slots() -> None:
    """It too goes in parts, and every part draws numbers of its own."""
    step_size = 0.3 * 2.0**-8  # of the gap to the next bfloat16 below 1
    tx = cx.chain(cx.store(cx.adam(step_size), cx.int8()), cx.apply_update("stochastic"))
    p = {"w": jnp.ones((8, 1 << 14), jnp.bfloat16)}
    state = tx.init(p)
    step = jax.jit(tx.step).lower(p, state, p).compile()
    memory: Any = step.memory_analysis()
    assert memory.temp_size_in_bytes < 5e5 + 4 * p["w"].size  # the bits of the gradient and of the parameters
    moved = np.asarray(step(p, state, p)[0]["w"]) < 1
    np.testing.assert_allclose(moved.mean(axis=1), 0.3, atol=0.02)
    assert len(np.unique(moved, axis=0)) == len(moved)


@pytest.mark.parametrize("signed", (True, False))
@pytest.mark.parametrize("form", (*FORMATS.values(), "bfloat16", "float16"), ids=repr)
def test_numbers_beyond_the_largest_are_stored_as_the_largest(form: Any, signed: bool) -> None:
    """Finite, of the right sign, and no smaller than the rest; NaN stays NaN."""
    form = chainax_storage.cast(form) if isinstance(form, str) else form
    for size in (7e4, 1e30, 9e37, 1.7e38, 3.4e38, np.inf):
        x = np.ones(256, np.float32)
        x[3:6] = size, size, 0.5 * size
        x[7] = -size if signed else 0.0
        y = np.asarray(there_and_back(form, jnp.asarray(x), signed))
        assert np.isfinite(y).all()
        assert (y[3:5] == y.max()).all()
        assert y[7] < -0.7 * y[3] if signed else (y >= 0).all()  # the dynamic map has no −1
        least = 6e4 if getattr(form, "dtype", "") == "float16" else min(size, 8e37)
        assert y[3] >= least
    assert np.isnan(there_and_back(form, jnp.asarray(np.where(np.arange(256) == 3, np.nan, x)), signed)[3])


@pytest.mark.parametrize("size", (1e3, 1e5, 1e15))
@pytest.mark.parametrize("slots", ({"nu": "float16"}, {"mu": "float16"}, {"mu": "float16", "nu": "float16"}), ids=repr)
def test_training_goes_on_beyond_float16(slots: dict[str, str], size: float) -> None:
    """Where every gradient's square, or the gradient, lies beyond 65504, parameters move at each step, not to NaN."""
    tx = cx.store(cx.adam(1e-3), **slots)
    grads = size * (1 + 0.1 * np.random.default_rng(0).normal(size=(60, 5))).astype(np.float32)
    start = jnp.ones(5)

    def step(carry: Any, g: Any) -> Any:
        carry = tx.step(*carry, g)
        return carry, carry[0]

    path = np.asarray(quickly(lambda gs: jax.lax.scan(step, (start, tx.init(start)), gs)[1])(jnp.asarray(grads)))
    assert np.isfinite(path).all()
    assert (np.diff(path, axis=0, prepend=1.0) < 0).all()


@pytest.mark.parametrize(
    ("tx", "names"),
    (
        (cx.prodigy(), "'scale_by_prodigy'"),
        (cx.accumulate(cx.chain(cx.scale_by_adam(), cx.scale_by_sophia()), 4), "'scale_by_sophia'"),
        (cx.from_optax(optax.adam(1e-3)), "'from_optax'"),
        (cx.sgd(0.1), None),
        (cx.chain(cx.scale_by_adam(), cx.scale_by_backtracking_linesearch()), None),
    ),
    ids=("prodigy", "within", "optax", "no state", "no slots"),
)
def test_what_no_format_applies_to_is_named(tx: Any, names: str | None) -> None:
    """A default format that leaves the slots of a link as they are says so; a slot by name is an error there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cx.store(tx, "bfloat16")
    texts = [f"store: no format applies to the state of {names}: it is kept as it is"] if names else []
    assert [str(w.message) for w in caught] == texts
