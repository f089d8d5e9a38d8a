"""Parameters in bfloat16 and float16: what rounding takes from an update is not lost."""

import re
from typing import Any

import chainax as cx
import chainax.extend as cxe
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chainax.core.engine.rounding import ROUNDINGS, Rounding, kahan, to_neighbour
from chainax.core.values.value import static, value
from jax.extend.core import Literal
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

REMEMBERING = ("kahan", "ecc", "master")
every_dtype = pytest.mark.parametrize("dtype", (jnp.bfloat16, jnp.float16))


def train(rounding: str, *, steps: int = 1000, size: int = 64, dtype: Any = jnp.bfloat16) -> tuple[Any, Any]:
    """Parameters of 1.0 after steps of −1e-4 each."""
    tx = cx.chain(cx.scale_by_lr(1e-4), cx.apply_update(rounding))
    params = {"w": jnp.ones(size, dtype)}
    grads = {"w": jnp.ones(size, dtype)}

    def run(params: Any) -> Any:
        return jax.lax.fori_loop(0, steps, lambda _, carry: tx.step(*carry, grads), (params, tx.init(params)))

    return jax.jit(run)(params)


def test_nearest_loses_a_thousand_updates() -> None:
    """1e-4 is less than half of bfloat16's step below 1, so the plain sum never moves; nor does Optax's."""
    params, _ = train("nearest")
    np.testing.assert_array_equal(params["w"], 1.0)
    theirs: Any = jnp.ones(1, jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(10):
            theirs = optax.apply_updates(theirs, jnp.full(1, -1e-4, jnp.float32))
    assert float(theirs[0]) == 1.0


@pytest.mark.parametrize("rounding", REMEMBERING)
def test_small_updates_are_kept(rounding: str) -> None:
    """A thousand updates of −1e-4 arrive at 0.9, to what the residual can resolve at each step."""
    params, state = train(rounding)
    (residual,) = state.links["apply_update"].values()
    theta = ROUNDINGS[rounding].precise(params["w"], residual["w"], jnp.float32)
    # ECC resolves 2⁻⁸/127 or half of that below 1, and rounds by at most half of it at each step.
    tolerance = {"kahan": 2e-3, "ecc": 1e-2, "master": 5e-5}[rounding]  # float32 itself rounds 0.9 to 0.89998
    np.testing.assert_allclose(theta, 0.9, atol=tolerance)
    assert np.all(np.abs(np.asarray(params["w"], np.float32) - theta) <= 2**-8)


def test_stochastic_keeps_small_updates_on_average() -> None:
    """The mean over many parameters arrives at 0.9, within three standard errors of the walk."""
    params, _ = train("stochastic", size=4096)
    w = np.asarray(params["w"], np.float64)
    assert abs(w.mean() - 0.9) < 3 * w.std() / np.sqrt(w.size)
    assert len(np.unique(w)) > 3


@every_dtype
def test_stochastic_emits_neighbours_only_and_is_unbiased(dtype: Any) -> None:
    """For 10⁴ draws of each number: two values at most, the neighbours of it, and their mean is the number."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=40) * 10.0 ** rng.integers(-4, 4, size=40)).astype(np.float32)
    x = np.concatenate([x, [0.0, 1.0, -1.0, 2.0**-14, 2.0**-15 * 1.01, 3e-7, 65000.0]]).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), 10_000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: to_neighbour(jnp.asarray(x), dtype, key)))(keys), np.float64)
    near = x.astype(dtype)
    for i, exact in enumerate(x.astype(np.float64)):
        seen = np.unique(draws[:, i])
        if float(near[i]) == exact:
            np.testing.assert_array_equal(seen, exact)
            continue
        other = np.nextafter(near[i], np.asarray(np.inf if exact > float(near[i]) else -np.inf, dtype))
        low, high = sorted((float(near[i]), float(other)))
        assert set(seen) <= {low, high}
        chance = (exact - low) / (high - low)
        error = (high - low) * np.sqrt(chance * (1 - chance) / len(keys))
        assert abs(draws[:, i].mean() - exact) <= 3.5 * error + 1e-12 * abs(exact)


@every_dtype
@pytest.mark.parametrize("rounding", REMEMBERING)
def test_residual_resolves_what_rounding_takes(dtype: Any, rounding: str) -> None:
    """Rounded and put together again, a number is off by a small fraction of the rounding's error at most."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=2000) * 10.0 ** rng.integers(-3, 3, size=2000), jnp.float32)
    p, residual = ROUNDINGS[rounding].rounded(x, jnp.zeros_like(x), dtype, None)
    back = ROUNDINGS[rounding].precise(p, residual, jnp.float32)
    np.testing.assert_array_equal(p, x.astype(dtype))
    half_gap = np.abs(np.asarray(x)) * float(jnp.finfo(dtype).eps) / 2
    share = {"kahan": 2.0 ** -(jnp.finfo(dtype).nmant + 1), "ecc": 1 / 127, "master": 0.0}[rounding]
    assert np.all(np.abs(back - x) <= share * half_gap + 1e-7)


@pytest.mark.parametrize("rounding", REMEMBERING)
def test_infinite_parameters_stay_infinite(rounding: str) -> None:
    """What overflows the dtype leaves no NaN in the residual."""
    p, residual = ROUNDINGS[rounding].rounded(jnp.array([1e30, -1e30], jnp.float32), jnp.zeros(2), jnp.float16, None)
    np.testing.assert_array_equal(p, [np.inf, -np.inf])
    assert not np.any(np.isnan(np.asarray(ROUNDINGS[rounding].precise(p, residual, jnp.float32))))


@pytest.mark.parametrize("rounding", (*REMEMBERING, "nearest"))
def test_adamw_in_bfloat16_follows_float32(rounding: str) -> None:
    """With a residual, 200 small steps of AdamW stay near those in float32; without, they stand still."""
    rng = np.random.default_rng(0)
    start = {"w": jnp.asarray(rng.uniform(0.5, 1.5, size=(32, 16)), jnp.bfloat16)}
    plain = cx.adamw(3e-5, weight_decay=0.1)
    grads = {"w": jnp.asarray(rng.normal(size=(200, 32, 16)) + 1, jnp.bfloat16)}

    def run(tx: Any, params: Any) -> Any:
        def body(carry: Any, g: Any) -> Any:
            return tx.step(*carry, g), None

        return jax.lax.scan(body, (params, tx.init(params)), grads)[0][0]

    tx = cx.chain(plain, cx.apply_update(rounding))
    got = np.asarray(jax.jit(lambda: run(tx, start))()["w"], np.float32)
    wide = np.asarray(jax.jit(lambda: run(plain, jax.tree.map(lambda x: x.astype(jnp.float32), start)))()["w"])
    moved = np.mean(np.abs(wide - np.asarray(start["w"], np.float32)))
    off = np.mean(np.abs(got - wide))
    assert (off > 0.5 * moved) if rounding == "nearest" else (off < 0.4 * moved)


@pytest.mark.parametrize("rounding", ("stochastic", *REMEMBERING))
def test_same_bits_on_eight_devices(rounding: str) -> None:
    """The draws and the residuals do not depend on the sharding."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    tx = cx.chain(cx.adamw(1e-4), cx.apply_update(rounding, seed=3))
    rng = np.random.default_rng(0)
    params, grads = ({"w": jnp.asarray(rng.normal(size=(64, 24)), jnp.bfloat16)} for _ in range(2))
    step = cx.make_step(tx, donate=False)
    alone, spread = params, jax.device_put(params, NamedSharding(mesh, P("d")))
    state, spread_state = tx.init(alone), tx.init(spread)
    for _ in range(3):
        alone, state = step(alone, state, grads)
        spread, spread_state = step(spread, spread_state, jax.device_put(grads, NamedSharding(mesh, P("d"))))
    chex.assert_trees_all_equal(jax.device_get(spread), jax.device_get(alone))
    chex.assert_trees_all_equal(
        jax.device_get(spread_state.links.get("apply_update")), jax.device_get(state.links.get("apply_update"))
    )


def test_stochastic_depends_on_seed_step_and_path() -> None:
    """Other seeds, steps and leaves draw otherwise; the same draw the same."""
    params = {"a": jnp.ones(512, jnp.bfloat16), "b": jnp.ones(512, jnp.bfloat16)}
    grads = jax.tree.map(jnp.ones_like, params)

    def moved(seed: int) -> Any:
        tx = cx.chain(cx.scale_by_lr(1e-3), cx.apply_update("stochastic", seed=seed))
        first, state = tx.step(params, tx.init(params), grads)
        return first, tx.step(params, state, grads)[0]

    first, second = moved(0)
    chex.assert_trees_all_equal(moved(0), (first, second))
    assert not np.array_equal(first["a"], first["b"])
    assert not np.array_equal(first["a"], second["a"])
    assert not np.array_equal(first["a"], moved(1)[0]["a"])


def test_parameters_set_from_outside_count() -> None:
    """Master weights yield to a parameter that was changed between steps."""
    tx = cx.chain(cx.scale_by_lr(0.5), cx.apply_update("master"))
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    state = tx.init(params)
    params = {"w": jnp.array([1.0, 5.0, 1.0], jnp.bfloat16)}
    params, state = tx.step(params, state, {"w": jnp.ones(3, jnp.bfloat16)})
    np.testing.assert_array_equal(params["w"], [0.5, 4.5, 0.5])


def test_every_link_sees_the_precise_parameter() -> None:
    """Weight decay multiplies the parameter with its residual, in leaf functions and in whole-tree links."""

    @cxe.transform
    class report_params(cxe.Treewise):
        """Pass the parameters on as the update."""

        reads_params = True

        def update_tree(self, updates, state, params, at):
            return params, state

    for link in (cx.chain(cx.scale(0.0), cx.add_decayed_weights(1.0)), report_params()):
        tx = cx.chain(link, cx.scale(2.0**-12), cx.apply_update("master"))
        params = {"w": jnp.ones(2, jnp.bfloat16)}
        state = tx.init(params)
        for _ in range(3):
            params, state = tx.step(params, state, params)
        weights = state.links["apply_update"]["weights"]["w"]
        np.testing.assert_allclose(weights, (1 + 2.0**-12) ** 3, rtol=1e-7)


def test_wide_parameters_need_no_residual() -> None:
    """Float32 leaves are added to as ever, and have no slot."""
    tx = cx.chain(cx.scale_by_lr(0.1), cx.apply_update("kahan"))
    params = {"w": jnp.ones(3), "n": jnp.arange(2), "h": jnp.ones(2, jnp.bfloat16)}
    state = tx.init(params)
    assert state.links["apply_update"]["compensation"]["w"] is None
    grads = {"w": jnp.ones(3), "n": None, "h": jnp.ones(2, jnp.bfloat16)}
    moved, after = tx.step(params, state, grads)
    np.testing.assert_allclose(moved["w"], 0.9)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


def test_mistakes_are_explained() -> None:
    """It must end the chain, and be used by `step`."""
    with pytest.raises(ValueError, match="'apply_update' says how the chain ends: it must be the last link"):
        cx.chain(cx.apply_update("kahan"), cx.scale_by_lr(0.1))
    with pytest.raises(ValueError, match="one of 'nearest', 'stochastic', 'kahan', 'ecc', 'master', got 'up'"):
        cx.apply_update("up")
    tx = cx.chain(cx.scale_by_lr(0.1), cx.apply_update("kahan"))
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    with pytest.raises(TypeError, match=r"'apply_update' rounds the parameters itself: call tx\.step"):
        tx.update(params, tx.init(params), params)


@value
class toward_zero(Rounding):
    """What a user may write: the lower bits are cut off, and remembered where they are kept."""

    slot = "cut"
    share: float = static("of what was cut, how much is remembered", default=1.0)

    def init_residual(self, p):
        return jnp.zeros_like(p, dtype=jnp.float32)

    def precise(self, p, residual, dtype):
        return p.astype(dtype) + residual.astype(dtype)

    def rounded(self, theta, u, dtype, key):
        pattern = jax.lax.bitcast_convert_type((theta + u).astype(jnp.float32), jnp.uint32)
        wide = jax.lax.bitcast_convert_type(pattern & np.uint32(0xFFFF0000), jnp.float32)
        return wide.astype(dtype), jnp.float32(self.share) * (theta + u - wide)


@value
class coin(Rounding):
    """A rounding that draws: up or down, whatever is nearer."""

    random = True

    def rounded(self, theta, u, dtype, key):
        return to_neighbour(theta + u, dtype, key), None


def test_a_rounding_of_ones_own() -> None:
    """It keeps its slot in the state, sees it again at the next step, and is a value as part of a chain."""
    tx = cx.chain(cx.scale_by_lr(1.0), r=cx.apply_update(toward_zero()))
    assert eval(repr(tx), {**vars(cx), "toward_zero": toward_zero}) == tx
    assert hash(tx) == hash(cx.chain(cx.scale_by_lr(1.0), r=cx.apply_update(toward_zero(1.0))))
    assert tx != cx.chain(cx.scale_by_lr(1.0), r=cx.apply_update(toward_zero(0.5)))
    assert cx.from_config(cx.to_config(tx)) == tx
    params, grads = {"w": jnp.ones(2, jnp.bfloat16)}, {"w": jnp.full(2, -(2.0**-10), jnp.bfloat16)}
    state = tx.init(params)
    for step, stored in ((1, 1.0), (7, 1.0), (8, 1 + 2.0**-7)):  # of 2⁻¹⁰ each; the next bfloat16 is 2⁻⁷ away
        p, s = params, state
        for _ in range(step):
            p, s = tx.step(p, s, grads)
        np.testing.assert_array_equal(p["w"], stored)
        np.testing.assert_array_equal(s.links["r"]["cut"]["w"], step * 2.0**-10 % 2.0**-7)


def test_a_random_rounding_of_ones_own_draws_from_the_seed() -> None:
    """And what it does is what `stochastic` does, which is written in the same way."""
    params = {"w": jnp.ones(512, jnp.bfloat16)}

    def moved(rounding: Any, seed: int) -> Any:
        tx = cx.chain(cx.scale_by_lr(1e-3), cx.apply_update(rounding, seed))
        return tx.step(params, tx.init(params), params)[0]

    chex.assert_trees_all_equal(moved(coin(), 1), moved("stochastic", 1))
    assert not np.array_equal(moved(coin(), 1)["w"], moved(coin(), 2)["w"])


def test_roundings_of_the_library_are_their_names() -> None:
    """So that configurations, pickles and the repr of a chain are the same for both."""
    for name, rounding in ROUNDINGS.items():
        assert cx.apply_update(rounding) == cx.apply_update(name)
        assert cx.apply_update(rounding).rounding == name
        assert cx.to_config(cx.apply_update(rounding))["rounding"] == name
    assert repr(cx.apply_update(kahan())) == "apply_update(rounding='kahan')"


class Wrong(Rounding):
    """Breaks the contract in the way that its field says."""

    slot = "left"
    how: str = static("how")

    def init_residual(self, p):
        return jnp.zeros_like(p)

    def precise(self, p, residual, dtype):
        return p if self.how == "precise" else p.astype(dtype)

    def rounded(self, theta, u, dtype, key) -> Any:
        if self.how == "raises":
            raise ArithmeticError("no")
        if self.how == "alone":
            return theta.astype(dtype)
        p = theta if self.how == "parameter" else theta.astype(dtype)
        return p, {"residual": theta, "none": None}.get(self.how, u.astype(dtype))


wrong = value(Wrong)


@pytest.mark.parametrize(
    ("how", "message"),
    (
        ("precise", "of link 'apply_update' made bfloat16[2] from a parameter, expected float32[2]"),
        ("alone", "of link 'apply_update' must return the parameter and its residual, which may be None"),
        ("parameter", "of link 'apply_update' returned float32[2] as the parameter, expected bfloat16[2]"),
        ("residual", "of link 'apply_update' returned float32[2] as the residual, expected bfloat16[2]"),
        ("none", "of link 'apply_update' returned None as the residual, expected bfloat16[2]"),
    ),
)
def test_what_a_rounding_returns_is_checked(how: str, message: str) -> None:
    """Shapes, dtypes and the number of results."""
    tx, params = cx.apply_update(wrong(how)), {"w": jnp.ones(2, jnp.bfloat16)}
    with pytest.raises(TypeError, match=re.escape(message)):
        tx.step(params, tx.init(params), params)


def test_exceptions_of_a_rounding_bear_the_name_of_the_link() -> None:
    """As those of a link's own code do."""
    tx, params = cx.chain(cx.scale(1.0), end=cx.apply_update(wrong("raises"))), {"w": jnp.ones(2, jnp.bfloat16)}
    with pytest.raises(ArithmeticError) as e:
        tx.step(params, tx.init(params), params)
    assert "raised in link 'end' of the chain" in e.value.__notes__


def without_pairs_of_conversions(f: Any, *args: Any) -> Any:
    """``f`` as XLA's GPU compiler makes it: what is narrowed and widened again was never narrowed."""
    wide: dict[Any, Any] = {}  # what narrow arrays were before

    def run(jaxpr: Any, consts: Any, args: Any) -> list[Any]:
        env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))

        def read(v: Any) -> Any:
            return v.val if isinstance(v, Literal) else env[v]

        for e in jaxpr.eqns:
            values = [read(v) for v in e.invars]
            inner = e.params.get("jaxpr") or e.params.get("call_jaxpr")
            if inner is not None:
                out = run(inner.jaxpr, inner.consts, values)
            elif e.primitive is jax.lax.convert_element_type_p and id(values[0]) in wide:
                out = [wide[id(values[0])][0].astype(e.params["new_dtype"])]
            else:
                out = e.primitive.bind(*values, **e.params)
                out = out if e.primitive.multiple_results else [out]
            if e.primitive is jax.lax.convert_element_type_p and out[0].dtype.itemsize < values[0].dtype.itemsize:
                wide[id(out[0])] = values[0], out[0]  # the narrow one too, so that its id stays its own
            env |= zip(e.outvars, out)
        return [read(v) for v in jaxpr.outvars]

    closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(shapes), run(closed.jaxpr, closed.consts, jax.tree.leaves(args)))


NARROW = {
    **{rounding: (cx.chain(cx.adamw(1e-3), cx.apply_update(rounding)), jnp.bfloat16) for rounding in REMEMBERING},
    "stochastic": (cx.chain(cx.adamw(1e-3), cx.apply_update("stochastic")), jnp.bfloat16),
    "float16": (cx.chain(cx.adamw(1e-3), cx.apply_update("kahan")), jnp.float16),
    "slots in bfloat16": (cx.store(cx.adamw(1e-3), "bfloat16"), jnp.float32),
    "slots in float16": (cx.store(cx.adamw(1e-3), "float16"), jnp.float32),
}


@pytest.mark.parametrize(("tx", "dtype"), NARROW.values(), ids=NARROW)
def test_a_compiler_that_drops_conversions_changes_nothing(tx: Any, dtype: Any) -> None:
    """XLA's for GPUs takes x.astype(bfloat16).astype(float32) for x: nothing is compared with such a rounding."""
    rng = np.random.default_rng(0)
    p, g = (jnp.asarray(rng.normal(size=64), dtype) for _ in range(2))
    state = tx.init(p)
    for _ in range(3):
        want = tx.step(p, state, g)
        chex.assert_trees_all_close(without_pairs_of_conversions(tx.step, p, state, g), want, rtol=1e-6, atol=1e-7)
        p, state = want
