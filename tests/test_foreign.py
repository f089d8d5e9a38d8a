"""Optax's transformations as links, beside leaves that do not move, or not at every step."""

from collections.abc import Callable, Iterator
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from registry import quickly

PAIRS = {
    "trace": (optax.trace(0.9), cx.trace(0.9)),
    "adam": (optax.scale_by_adam(), cx.scale_by_adam()),
    "decay": (optax.add_decayed_weights(0.1), cx.add_decayed_weights(0.1)),
    "clip": (optax.clip_by_global_norm(1.0), cx.clip_by_global_norm(1.0)),
    "chain": (
        optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_amsgrad(), optax.add_decayed_weights(0.1)),
        cx.chain(cx.clip_by_global_norm(1.0), cx.scale_by_amsgrad(debias="before"), cx.add_decayed_weights(0.1)),
    ),
    "factored": (
        optax.scale_by_factored_rms(min_dim_size_to_factor=2),
        cx.scale_by_factored_rms(min_dim_size_to_factor=2),
    ),
}
RTOL = 1e-6  # Optax raises the step to a power in float32
NEED_PARAMS = [PAIRS[name][0] for name in ("decay", "chain", "factored")]
OTHERS = {
    "None": None,
    "integers": jnp.arange(3),
    "a flag": jnp.array(True),
    "an int": 3,
    "a key": jax.random.key(0),
    "a word": "relu",
}


pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(autouse=True)
def lenient() -> Iterator[None]:
    """Optax mixes dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def params(more: dict[str, Any]) -> dict[str, Any]:
    """Two arrays to train, and what is no parameter between them."""
    return {"a": jnp.array([1.0, -2.0, 0.5]), **more, "w": jnp.arange(6.0).reshape(2, 3)}


def grads(k: int) -> dict[str, jax.Array]:
    """The gradients of those two at step ``k``."""
    return {"a": jnp.array([0.3, -0.1, k + 1.0]), "w": jnp.cos(k + jnp.arange(6.0)).reshape(2, 3)}


def train(link: Any, trees: Callable[[int], Any], more: dict[str, Any]) -> Any:
    """The parameters after four steps with gradients ``trees(k)``, and the state."""
    tx = cx.chain(link, cx.scale_by_lr(0.1))
    p = params(more)
    state = tx.init(p)
    for k in range(4):
        p, state = tx.step(p, state, trees(k))
    return p, state


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("kind", OTHERS)
def test_what_does_not_move_stays(pair: tuple, kind: str) -> None:
    """Beside leaves of any kind an Optax link does what the native one does, and what it does without them."""
    more = {"other": OTHERS[kind]}
    theirs, state = train(cx.from_optax(pair[0]), lambda k: {**grads(k), "other": None}, more)
    ours, _ = train(pair[1], lambda k: {**grads(k), "other": None}, more)
    alone, _ = train(cx.from_optax(pair[0]), grads, {})
    assert theirs["other"] is OTHERS[kind]
    for name in "aw":
        np.testing.assert_allclose(theirs[name], ours[name], rtol=RTOL)
        np.testing.assert_array_equal(theirs[name], alone[name])
    assert not any(x.dtype == jnp.int32 and x.ndim for x in jax.tree.leaves(state))


def test_float0_gradients() -> None:
    """As ``jax.grad`` with ``allow_int`` returns them, also under jit, with and without the parameters."""
    p = params({"other": jnp.arange(3)})
    g = jax.grad(lambda p: jnp.sum(jnp.sin(p["a"])) + jnp.sum(p["w"] ** 2) * p["other"][1], allow_int=True)(p)
    assert g["other"].dtype == jax.dtypes.float0
    tx = cx.chain(cx.from_optax(optax.scale_by_adam()), cx.scale_by_lr(0.1))
    expected, _ = tx.step({n: p[n] for n in "aw"}, tx.init({n: p[n] for n in "aw"}), {n: g[n] for n in "aw"})
    for moved, after in (tx.step(p, tx.init(p), g), jax.jit(tx.step)(p, tx.init(p), g)):
        np.testing.assert_array_equal(moved["other"], p["other"])
        chex.assert_trees_all_close({n: moved[n] for n in "aw"}, expected, rtol=1e-6)
        chex.assert_trees_all_equal_structs(after, tx.init(p))
    updates, _ = tx.update(g, tx.init(p))
    assert updates["other"].dtype == jax.dtypes.float0
    chex.assert_trees_all_close({n: p[n] + updates[n] for n in "aw"}, expected, rtol=1e-6)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("with_params", (True, False))
@pytest.mark.parametrize("jit", (True, False))
def test_a_parameter_without_a_gradient_keeps_its_state(pair: tuple, with_params: bool, jit: bool) -> None:
    """At some steps, as with the native link: its slots wait, and the step counts."""
    if not with_params and pair[0] in NEED_PARAMS:
        pytest.skip("reads the parameters")
    compiled = quickly if jit else lambda f: f

    def some(k: int) -> Any:
        return {**grads(k), **({"w": None} if k in (1, 2) else {}), "other": None}

    results = []
    for link in (cx.from_optax(pair[0]), pair[1]):
        tx, p = cx.chain(link, cx.scale_by_lr(0.1)), params({"other": jnp.arange(3)})
        state, out = tx.init(p), []
        update = compiled(tx.update)
        for k in range(5):
            u, after = update(some(k), state, p) if with_params else update(some(k), state)
            chex.assert_trees_all_equal_structs(after, state)
            assert (u["w"] is None) == (k in (1, 2))
            state = after
            p = cx.apply_updates(p, u)
            out.append(p)
        results.append(out)
    chex.assert_trees_all_close(*results, rtol=RTOL)


def test_the_slots_of_a_parameter_without_a_gradient_stay() -> None:
    """Bit for bit; the others' move. Where nothing has a gradient the whole state stays."""
    tx, p = cx.from_optax(optax.chain(optax.scale_by_adam(), optax.trace(0.9))), params({})
    _, state = tx.update(grads(0), tx.init(p), p)
    _, after = tx.update({**grads(1), "w": None}, state, p)
    before, now = (s.links["from_optax"] for s in (state, after))
    for old, new in ((before[0].mu, now[0].mu), (before[0].nu, now[0].nu), (before[1].trace, now[1].trace)):
        np.testing.assert_array_equal(new["w"], old["w"])
        assert (np.asarray(new["a"]) != old["a"]).all()
    assert int(now[0].count) == 2
    updates, idle = tx.update({"a": None, "w": None}, state, p)
    assert updates == {"a": None, "w": None}
    chex.assert_trees_all_equal(idle.links, state.links)


def test_containers_of_the_state_are_not_taken_for_parameters() -> None:
    """Parameters in a tuple as long as the chain whose state is a tuple too, some of it empty."""
    tx = cx.chain(cx.from_optax(optax.chain(optax.identity(), optax.trace(0.5))), cx.scale_by_lr(1.0))
    p = (jnp.ones(2), jnp.ones(3))
    state = tx.init(p)
    for g in ((jnp.ones(2), None), (jnp.ones(2), jnp.ones(3))):
        p, state = tx.step(p, state, g)
    assert p[0].tolist() == [-1.5, -1.5]
    assert p[1].tolist() == [0.0, 0.0, 0.0]


def test_masks_and_labels_of_whole_trees() -> None:
    """Optax's own masks name every leaf, and go on doing so."""
    p = params({"other": jnp.arange(3)})
    masked = optax.masked(optax.trace(0.9), {"a": True, "other": False, "w": False})
    labels = {"a": "slow", "other": "slow", "w": "fast"}
    by_label = optax.partition({"slow": optax.scale(0.1), "fast": optax.trace(0.5)}, labels)
    for foreign in (masked, by_label):
        tx = cx.chain(cx.from_optax(foreign), cx.scale_by_lr(1.0))
        state = tx.init(p)
        for g in ({**grads(0), "other": None}, {**grads(1), "other": None, "w": None}):
            moved, after = tx.step(p, state, g)
            chex.assert_trees_all_equal_structs(after, state)
            np.testing.assert_array_equal(moved["other"], p["other"])
            assert (np.asarray(moved["a"]) != p["a"]).all()


def test_extra_arguments_have_the_same_holes() -> None:
    """A line search gets the gradient without the leaves that do not move, and a function that fills them in."""
    p = {"a": jnp.array([1.0, -2.0]), "key": jax.random.key(0), "n": jnp.arange(3), "still": jnp.ones(2)}

    def loss(p: Any) -> jax.Array:
        assert set(p) == {"a", "key", "n", "still"}
        return jnp.sum((p["a"] - p["n"][1]) ** 2) + jnp.sum(p["still"]) + 0 * jax.random.uniform(p["key"])

    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=20, store_grad=True)
    tx = cx.chain(cx.scale_by_lr(1.0), cx.from_optax(search, ("value", "grad", "value_fn")))
    value, g = jax.value_and_grad(lambda a: loss({**p, "a": a}))(p["a"])
    grad = {"a": g, "key": None, "n": None, "still": None}
    moved, state = tx.step(p, tx.init(p), grad, value=value, grad=grad, value_fn=loss)
    assert loss(moved) < value
    assert moved["key"] is p["key"]
    chex.assert_trees_all_equal_structs(state, tx.init(p))


def test_what_it_returns_must_fit() -> None:
    """A transformation that drops an update is told so, and its update does not pass through by itself."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return {**updates, "a": None}, state

    drop = optax.GradientTransformation(lambda p: (), update)
    p = params({"other": None})
    with pytest.raises(TypeError, match="'from_optax' turned the update of 'a', "):
        cx.from_optax(drop).update({**grads(0), "other": None}, cx.from_optax(drop).init(p), p)
