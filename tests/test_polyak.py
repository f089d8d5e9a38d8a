"""Polyak's step size against Optax, and what it does on functions where it is known."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import Ranges, log, settings, uniform

RANGES: Ranges = {
    "max_learning_rate": log(0.1, 0.6),
    "scaling": uniform(0.5, 1.5),
    "f_min": uniform(-0.5, 0.5),
    "eps": log(1e-6, 1e-1),
}


def basin(x: dict[str, jax.Array]) -> jax.Array:
    """A convex function that is never below 0.5."""
    return 0.5 + jnp.sum(jnp.square(x["a"])) + jnp.sum(jnp.log(jnp.cosh(x["b"])))


def test_agrees_with_optax(x64: None) -> None:
    """Over 100 steps. Optax's own ``polyak_sgd`` scales before the norm is taken, so its scaling acts inversely."""
    start = {"a": jnp.array([[1.0, -0.5], [0.3, 2.0]]), "b": jnp.array(0.2)}
    f = jax.value_and_grad(basin)
    for hyper in settings(RANGES, 5):
        tx, scaling = cx.polyak_sgd(**hyper), hyper.pop("scaling")
        theirs = optax.chain(optax.scale_by_polyak(**hyper), optax.scale(-scaling))

        def ours_step(carry: tuple, _: None, tx: cx.chain = tx) -> tuple:
            value, grad = f(carry[0])
            x, state = tx.step(*carry, grad, value=value)
            return (x, state), x

        def their_step(carry: tuple, _: None, theirs: Any = theirs) -> tuple:
            value, grad = f(carry[0])
            updates, state = theirs.update(grad, carry[1], carry[0], value=value)
            x = optax.apply_updates(carry[0], updates)
            return (x, state), x

        ours = jax.jit(lambda x, s=ours_step, tx=tx: jax.lax.scan(s, (x, tx.init(x)), None, 100)[1])(start)
        with jax.numpy_dtype_promotion("standard"):
            points = jax.jit(lambda x, s=their_step, tx=theirs: jax.lax.scan(s, (x, tx.init(x)), None, 100)[1])(start)
        for name in start:
            np.testing.assert_allclose(ours[name], points[name], atol=1e-9)
        assert np.ptp(np.asarray(ours["a"]), axis=0).max() > 0.1


def test_a_quadratic_is_done_in_one_step_of_twice_the_length() -> None:
    """On ½‖x‖², (f − f*)/‖∇f‖² is ½: the step halves x, and doubled it ends at the minimum."""
    x = jnp.array([3.0, -4.0])
    for scaling, left in ((1.0, 0.5), (2.0, 0.0)):
        tx = cx.polyak_sgd(scaling=scaling)
        np.testing.assert_allclose(tx.step(x, tx.init(x), x, value=12.5)[0], left * x, atol=1e-6)
    tx = cx.polyak_sgd(0.1)
    np.testing.assert_allclose(tx.step(x, tx.init(x), x, value=12.5)[0], 0.9 * x, rtol=1e-6)


@pytest.mark.parametrize("eps", (0.0, 1e-3))
def test_nothing_moves_at_a_stationary_point(eps: float) -> None:
    """A gradient of 0 gives no step and no NaN; one that is merely small gives the longest step allowed."""
    tx, x = cx.polyak_sgd(0.5, eps=eps), jnp.ones(2)
    np.testing.assert_array_equal(tx.step(x, tx.init(x), 0 * x, value=1.0)[0], x)
    small = jnp.array([1e-9, 0.0])
    updates, _ = tx.update(small, tx.init(x), x, value=1.0)
    np.testing.assert_allclose(updates, -0.5 * small, rtol=1e-6)
