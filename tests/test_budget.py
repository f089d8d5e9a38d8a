"""Budgets of the compiled step that do not depend on the machine's mood: bytes, temporaries, copies, equations."""

import gc
import sys
from collections.abc import Callable
from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest
from chainax.core.engine import engine
from jax.extend.core import ClosedJaxpr, Jaxpr

CLIP, OPTAX_CLIP = cx.clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0)
RECIPES: dict[str, tuple[Any, Any, float, float]] = {  # chainax, Optax, bytes a parameter in float32 and bfloat16
    "sgd": (cx.sgd(0.1), optax.sgd(0.1), 12, 6),
    "momentum": (cx.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9), 24, 18),
    "adamw": (cx.adamw(0.1), optax.adamw(0.1), 40, 32),
    "clip, adamw": (cx.chain(CLIP, cx.adamw(0.1)), optax.chain(OPTAX_CLIP, optax.adamw(0.1)), 44, 34),
    "clip, adamw, mask": (
        cx.chain(CLIP, cx.adamw(0.1, weight_decay=cx.by_path({"bias": 0.0}, default=0.01))),
        optax.chain(OPTAX_CLIP, optax.adamw(0.1, mask={"kernel": True, "bias": False})),
        44,
        34,
    ),
    # What these read of a slot's old value is read before the slot is written: else XLA would copy the slot.
    "lion": (cx.lion(0.1), optax.lion(0.1), 32, 22),
    "optimistic": (cx.optimistic_gradient_descent(0.1), optax.optimistic_gradient_descent(0.1), 28, 18),
    "adabelief": (cx.adabelief(0.1), optax.adabelief(0.1), 44, 36),
    "adadelta": (cx.adadelta(0.1), optax.adadelta(0.1), 52, 40),
    "adan": (cx.adan(0.1), optax.adan(0.1), 76, 62),
    "acprop": (cx.acprop(0.1), optax.contrib.acprop(0.1), 48, 36),
    "adopt": (cx.adopt(0.1), optax.contrib.adopt(0.1), 44, 34),
}


def params(dtype: Any) -> dict[str, jax.Array]:
    """Two leaves that are large enough for the per-leaf scalars not to count, one of them in rows."""
    return {"kernel": jnp.ones((256, 512), dtype), "bias": jnp.ones(1 << 16, dtype)}


def compiled(step: Any, state: Any, params: Any) -> Any:
    """The step with parameters and state donated, in the order in which JAX reuses their buffers."""
    return jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()


def optax_step(tx: Any) -> Any:
    """The same step by Optax."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def bytes_per_parameter(step: Any, params: Any) -> tuple[float, float]:
    """Accessed, and of temporaries."""
    n = sum(p.size for p in jax.tree.leaves(params))
    return step.cost_analysis()["bytes accessed"] / n, step.memory_analysis().temp_size_in_bytes / n


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_traffic(name: str, dtype: Any) -> None:
    """Bytes within the budget, no temporaries, no copies; in float32 never more than Optax."""
    ours, theirs, single, half = RECIPES[name]
    p = params(dtype)
    step = compiled(ours.step, ours.init(p), p)
    accessed, temporary = bytes_per_parameter(step, p)
    assert accessed <= (single if dtype == jnp.float32 else half) * 1.001
    assert temporary < 0.01
    assert " copy(" not in step.as_text()
    if dtype == jnp.float32:
        with jax.numpy_dtype_promotion("standard"):
            other = bytes_per_parameter(compiled(optax_step(theirs), theirs.init(p), p), p)
        assert accessed <= other[0] * 1.001
        assert temporary <= other[1] + 0.01


@pytest.mark.parametrize("guard", (cx.skip_nonfinite(), cx.dynamic_loss_scale()), ids=repr)
def test_a_guard_costs_no_pass(guard: Any) -> None:
    """It shares the norm of the clip. 4 bytes of the 48 are of the second look, at a gradient that overflowed."""
    tx, p = cx.chain(guard, CLIP, cx.adamw(0.1)), params(jnp.float32)
    accessed, temporary = bytes_per_parameter(compiled(tx.step, tx.init(p), p), p)
    assert accessed <= 48 * 1.001
    assert temporary < 0.01


def test_norm_of_short_leaves_needs_no_temporary() -> None:
    """A thousand-odd numbers in a row are summed in one kernel on CPU, where XLA would store their squares."""
    leaves = [jnp.ones(n) for n in (1024, 768, 64)]
    step = jax.jit(cx.global_norm).lower(leaves).compile()
    accessed, temporary = bytes_per_parameter(step, leaves)
    assert accessed < 4.1
    assert temporary < 0.1


def test_a_pack_takes_few_kernels() -> None:
    """Forty leaves of one shape: a kernel each, besides those of two packs, where there would be three each."""
    p = {f"layer_{i:02}": jnp.ones(8) for i in range(40)}

    def kernels(tx: Any) -> int:
        text = compiled(tx.step, tx.init(p), p).as_text()
        return sum(" fusion(" in line or " concatenate(" in line for line in text[text.index("\nENTRY") :].splitlines())

    clip_adamw = cx.chain(CLIP, cx.adamw(0.1))
    assert kernels(clip_adamw) > 120
    assert kernels(cx.pack(clip_adamw)) < 70


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_a_pack_leaves_large_leaves_alone(dtype: Any) -> None:
    """Beside small leaves that are packed they cost what they cost without."""
    tx, p = cx.chain(CLIP, cx.adamw(0.1)), {**params(dtype), "a": jnp.ones(8, dtype), "b": jnp.ones(8, dtype)}
    packed = bytes_per_parameter(compiled(cx.pack(tx).step, cx.pack(tx).init(p), p), p)
    plain = bytes_per_parameter(compiled(tx.step, tx.init(p), p), p)
    assert packed[0] <= plain[0] + 0.05
    assert packed[1] <= plain[1] + 0.05


def equations(jaxpr: Any, seen: set[int]) -> int:
    """The equations of a jaxpr and of those within it, each jaxpr counted once."""
    if id(jaxpr) in seen:
        return 0
    seen.add(id(jaxpr))
    inner = (x for e in jaxpr.eqns for v in e.params.values() for x in (v if isinstance(v, (list, tuple)) else [v]))
    jaxprs = (x.jaxpr if isinstance(x, ClosedJaxpr) else x for x in inner)
    return len(jaxpr.eqns) + sum(equations(x, seen) for x in jaxprs if hasattr(x, "eqns"))


@pytest.mark.parametrize("name", RECIPES)
def test_equal_leaves_are_traced_once(name: str) -> None:
    """A hundred leaves of two shapes make two equations each, besides what is traced once."""
    ours = RECIPES[name][0]
    p = {f"kernel_{i}": jnp.ones(4 + i % 2) for i in range(98)} | {"bias_0": jnp.ones(4), "bias_1": jnp.ones(4)}
    jaxpr = jax.make_jaxpr(ours.step)(p, ours.init(p), p)
    assert equations(jaxpr.jaxpr, set()) <= 2 * 100 + 150


@cxe.transform
class adam_in_numpy(cxe.Leafwise):
    """What `scale_by_adam` would cost to trace if it were written with the operators of `jax.numpy`."""

    slots = ("mu", "nu")
    equation = "as Adam"

    def scalars(self, at):
        return at.debias(0.9), at.debias(0.999)

    def leaf(self, u, slot, p, scalars):
        m, v = 0.9 * slot.mu + 0.1 * u, 0.999 * slot.nu + 0.001 * jnp.square(u)
        return m * scalars[0] / (jnp.sqrt(v * scalars[1]) + 1e-8), {"mu": m, "nu": v}


def test_a_new_shape_is_cheap_to_trace() -> None:
    """Python calls for one shape more, of two leaves of different shapes against two of the same one."""

    def calls(tx: Any, shapes: tuple[int, int]) -> int:
        p = {str(i): jax.ShapeDtypeStruct((n,), jnp.float32) for i, n in enumerate(shapes)}
        state, step, made = jax.eval_shape(tx.init, p), jax.jit(lambda *x: tx.step(*x)), 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal made
            made += event == "call"

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            step.trace(p, state, p)
        finally:
            sys.setprofile(before)
        return made

    def for_a_shape(scale: cxe.Leafwise, n: int) -> int:
        tx = cx.chain(scale, cx.scale_by_lr(0.1))
        calls(tx, (n, n))  # whatever is done only once
        return calls(tx, (n + 2, n + 3)) - calls(tx, (n + 1, n + 1))

    adam = for_a_shape(cx.scale_by_adam(), 1009)
    assert adam < 0.6 * for_a_shape(adam_in_numpy(), 2003)
    assert for_a_shape(cx.scale_by_lion(), 3001) < 0.75 * adam


def test_numbers_of_an_argument_are_not_in_the_executable() -> None:
    """A chain passed as an argument lowers to the same text for other numbers, so a compilation cache finds it."""
    p = params(jnp.float32)

    def step(tx: Any, params: Any, state: Any) -> Any:
        return tx.step(params, state, params)

    texts = {jax.jit(step).lower(cx.adamw(lr), p, cx.adamw(lr).init(p)).as_text() for lr in (0.1, 0.2)}
    assert len(texts) == 1


def test_outside_of_jit_a_step_is_one_dispatch() -> None:
    """All leaves go into one compiled function, and a second step finds it."""
    tx = cx.adamw(0.12345)
    p = [jnp.ones(i % 7 + 1) for i in range(50)]
    state = tx.init(p)
    before = engine._compiled.cache_info()
    for _ in range(3):
        p, state = tx.step(p, state, p)
    after = engine._compiled.cache_info()
    assert (after.misses, after.hits) == (before.misses + 1, before.hits + 2)


def test_a_chain_for_each_of_many_layers_is_compiled_once() -> None:
    """Outside of jit too."""
    p = {f"layer_{i}": jnp.ones(2) for i in range(24)}
    tx = cx.partition(cx.by_path({f"layer_{i}$": cx.sgd(0.1 * 0.9**i) for i in range(24)}))
    state = tx.init(p)
    p, state = tx.step(p, state, p)
    before = engine._compiled.cache_info().misses
    tx.step(p, state, p)
    assert engine._compiled.cache_info().misses == before


def test_unrolled_steps_share_a_trace() -> None:
    """Of every leaf function there is one in a jaxpr, however many steps it takes."""
    tx, p = cx.adamw(0.1), {"a": jnp.ones(3), "b": jnp.ones(3)}

    def train(p: Any, state: Any) -> Any:
        for _ in range(5):
            p, state = tx.step(p, state, p)
        return p

    eqns = jax.make_jaxpr(train)(p, tx.init(p)).jaxpr.eqns
    leaves = [eqn.params["jaxpr"] for eqn in eqns if eqn.params.get("name") == "fused"]
    assert (len(leaves), len({id(jaxpr) for jaxpr in leaves})) == (10, 1)


def live_traces() -> int:
    """How many jaxprs are held, by anyone."""
    gc.collect()
    return sum(type(x) is Jaxpr for x in gc.get_objects())  # isinstance asks objects for their class, and torch's warn


class Proxy:
    """An object that does not like to be asked for its class."""

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """An error, as one of torch's objects has a warning."""
        raise FutureWarning("deprecated")


def test_counting_traces_asks_no_object() -> None:
    """Whatever other tests have left in memory; and a trace that is held counts."""
    before, proxy = live_traces(), Proxy()
    held = jax.make_jaxpr(jnp.sin)(1.0)
    assert live_traces() > before
    assert type(proxy) is Proxy
    assert held.jaxpr.eqns


def stage(tx: cx.chain, params: Any) -> None:
    """Trace and lower a step."""
    jax.jit(tx.step).lower(params, tx.init(params), params)


def call(tx: Any, params: Any) -> None:
    """Take a step outside of jit."""
    tx.step(params, tx.init(params), params)


@pytest.mark.parametrize(
    ("use", "wrap", "warm"),
    ((stage, cx.chain, 10), (call, cx.chain, 70), (call, lambda tx: cx.accumulate(tx, 1), 70)),
    ids=("jitted", "outside of jit", "outside of jit, in a wrapper"),
)
def test_traces_of_dropped_steps_are_freed(use: Callable, wrap: Callable, warm: int) -> None:
    """A loop over learning rates holds the traces of the last few, if any, and not of all."""
    params = {"w": jnp.ones(3)}
    counts = []
    for i in range(warm + 15):
        use(wrap(cx.sgd(1e-3 + i * 1e-6)), params)
        counts.append(live_traces() if i + 1 in (warm, warm + 15) else 0)
    assert counts[-1] <= counts[warm - 1]
