"""Conditions on accelerators, where steps are chosen leaf by leaf or taken by loops: they equal those on CPUs."""

from __future__ import annotations

from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.core.values.conditions import choose, in_place

START = {"a": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.5])}
FACTORS = jnp.array([1.0, jnp.nan, 3.0, jnp.inf, 0.5, 0.25, -1.0, 2.0])


def third(k: Any) -> Any:
    """Every third step."""
    return k % 3 == 2


def inner(*first: Any) -> Any:
    """Adam, behind these links."""
    return cx.chain(*first, cx.scale_by_adam(), cx.scale_by_lr(0.1))


WRAPPERS = {
    "accumulate": cx.accumulate(inner(cx.clip_by_global_norm(1.0)), 3),
    "accumulate with a guard inside": cx.accumulate(inner(cx.skip_large_updates(4.0)), 2),
    "accumulate in the middle": cx.chain(cx.accumulate(cx.scale_by_adam(), 3), cx.scale_by_lr(0.1)),
    "accumulate behind a guard": cx.chain(
        cx.dynamic_loss_scale(8.0), cx.clip_by_global_norm(1.0), cx.accumulate(inner(), 2)
    ),
    "mask behind two guards": cx.chain(
        cx.skip_nonfinite(),
        cx.add_decayed_weights(0.1),
        cx.skip_large_updates(9.0),
        cx.conditionally_mask(inner(), third),
    ),
    "mask before a guard": cx.chain(cx.conditionally_mask(cx.scale_by_adam(), third), cx.skip_nonfinite(), cx.sgd(0.1)),
    "conditionally_transform": cx.chain(cx.skip_nonfinite(), cx.conditionally_transform(inner(), third)),
    "conditional clip": cx.chain(cx.skip_nonfinite(), cx.conditionally_transform(cx.clip(0.5), third), cx.sgd(0.1)),
    "restart": cx.chain(cx.skip_nonfinite(), cx.restart(inner(), 3)),
    "schedule_free": cx.schedule_free(cx.chain(cx.skip_nonfinite(), cx.scale_by_rms(), cx.scale_by_lr(0.1))),
    "mechanize": cx.mechanize(inner(cx.skip_nonfinite()), s_init=0.1),
    "galore": cx.chain(cx.scale_by_galore(inner(cx.skip_nonfinite()), rank=1, update_proj_gap=1), cx.scale(1.0)),
}  # fmt: skip


def run(tx: Any, scale: Any = 0.5) -> Any:
    """The last parameters and state, and all parameters on the way."""

    def one(carry: Any, factor: Any) -> Any:
        params, state = carry
        return tx.step(params, state, jax.tree.map(lambda p: p * (factor + scale), START)), carry[0]

    return jax.lax.scan(one, (START, tx.init(START)), FACTORS)


def everything(tx: Any) -> Any:
    """The steps, their derivatives in both modes by a number in the gradients, and several runs at once."""

    def norm(scale: Any) -> Any:
        return cx.global_norm(run(tx, scale)[0][0])

    slopes = jax.jit(jax.grad(norm))(0.7), jax.jvp(norm, (0.7,), (1.0,))[1]
    return jax.jit(lambda: run(tx))(), slopes, jax.vmap(lambda scale: run(tx, scale)[0][0])(jnp.array([0.5, 0.7]))


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A call after which steps are traced as for a GPU or TPU."""

    def call() -> None:
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **_: default(*args))
        jax.clear_caches()

    yield call
    jax.clear_caches()


@pytest.mark.parametrize("name", WRAPPERS)
def test_steps_equal_those_on_cpus(name: str, accelerator: Any) -> None:
    """Neither NaN nor NaN derivatives come from a step that is not taken, and its state does not change at all."""
    tx = WRAPPERS[name]
    expected = everything(tx)
    accelerator()
    found = everything(tx)
    chex.assert_trees_all_close(found, expected, rtol=2e-5, atol=1e-6)
    (_, trail), slopes, _ = found
    # Before a guard inside it, galore projects NaN, and on CPUs too its transpose is NaN.
    chex.assert_tree_all_finite(slopes[name == "galore" :])
    moved = [bool(jnp.any(a != b)) for a, b in zip(trail["b"], trail["b"][1:])]
    assert any(moved)
    assert not all(moved)


# The functions themselves


def double(x: Any) -> Any:
    """Twice the arrays."""
    return jax.tree.map(lambda a: 2 * a, x)


def test_in_place_is_a_loop_on_accelerators(accelerator: Any) -> None:
    """And has the values and all derivatives of the condition, for one predicate and for many."""

    def f(p: Any, x: Any, y: Any) -> Any:
        return in_place(p, lambda: {"x": x}, lambda old: {"x": old["x"] ** 2 * y}, lambda old: {"x": old["x"] * y})["x"]

    def expected(p: Any, x: Any, y: Any) -> Any:
        return jnp.where(p, x**2 * y, x * y)

    accelerator()
    assert "while" in str(jax.make_jaxpr(f)(True, jnp.array(3.0), jnp.array(2.0)))
    ps, xs, y = jnp.array([True, False, True]), jnp.array([1.0, 2.0, 3.0]), jnp.array(2.0)
    for derived in (lambda f: f, lambda f: jax.grad(f, 1), lambda f: jax.grad(jax.grad(f, 1), 2)):
        found, known = (jax.vmap(derived(x), (0, 0, None))(ps, xs, y) for x in (f, expected))
        np.testing.assert_allclose(found, known)
    assert jax.jvp(lambda x: f(jnp.array(True), x, y), (jnp.array(3.0),), (jnp.array(1.0),))[1] == 12.0


def test_in_place_runs_no_loop_for_a_branch_that_changes_nothing(accelerator: Any) -> None:
    """Nor any where a loop cannot be: for results of other types, and side effects."""
    accelerator()
    x = jnp.ones(3)

    def loops(*args: Any) -> int:
        return str(jax.make_jaxpr(lambda p: in_place(p, *args))(True)).count("while[")

    assert loops(lambda: x, double) == 1
    assert loops(lambda: x, double, jnp.negative) == 2
    assert loops(lambda: 1.0, lambda x: x * jnp.float32(2.0)) == 0  # a Python number, which becomes an array

    def printing(x: Any) -> Any:
        jax.debug.callback(lambda: None)
        return double(x)

    assert loops(lambda: x, printing) == 0
    with pytest.raises(TypeError, match="cond"):
        loops(lambda: x, lambda x: x[:2])


def test_outside_jit_one_branch_is_called() -> None:
    """Without a trace."""
    assert in_place(True, lambda: 3.0, double) == 6.0
    assert in_place(jnp.array(False), lambda: 3.0, double) == 3.0
    assert choose(True, lambda dropped: dropped, lambda: 1) is None
    assert choose(False, lambda _: 1 / 0, lambda: 1) == 1
