"""Faults of Optax 0.2.8 that cannot happen here: each shown there first, as a documented fact.

Two more are beside what they concern: the accumulator that one bad micro-batch spoils for ever in
`test_accumulate.py`, and the monitor that changes the state's structure in `test_telemetry.py`.
"""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest


def after(tx: Any, grads: list[Any], params: Any) -> tuple[Any, Any]:
    """Parameters and state after these gradients, applied as Optax does."""
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.fixture(autouse=True)
def _optax_needs_implicit_promotion() -> Any:
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_second_moment_decays_in_bfloat16() -> None:
    """0.999 rounds to 1 in bfloat16: Optax's ν never falls. Here slots are float32."""
    grads = [jnp.ones(4, jnp.bfloat16)] + 1000 * [jnp.zeros(4, jnp.bfloat16)]
    run = jax.jit(
        lambda tx, p: jax.lax.scan(lambda c, g: (tx.update(g, c, p)[1], None), tx.init(p), jnp.stack(grads))[0],
        static_argnums=0,
    )
    theirs = run(optax.adam(1e-3), grads[1])[0].nu
    ours = run(cx.adam(1e-3), grads[1]).links["scale_by_adam"]["nu"]
    np.testing.assert_array_equal(np.asarray(theirs, np.float32), np.float32(jnp.bfloat16(0.001)))
    np.testing.assert_allclose(ours, 0.001 * 0.999**1000, rtol=1e-4)


def test_hyperparameters_as_data_do_not_make_nan_in_bfloat16() -> None:
    """Optax casts injected hyperparameters to the gradient's dtype: β₂ = 1, and 0/0 at the first step.

    Here a chain is data as it is, and hyperparameters keep float32.
    """
    params = jnp.ones(4, jnp.bfloat16)
    theirs, _ = after(optax.inject_hyperparams(optax.adam)(0.1), [params], params)
    ours, _ = jax.jit(lambda tx: tx.step(params, tx.init(params), params))(cx.adam(0.1))
    assert np.isnan(np.asarray(theirs, np.float32)).all()
    np.testing.assert_allclose(np.asarray(ours, np.float32), 0.9, rtol=2e-2)


def test_mask_is_never_taken_for_a_schedule() -> None:
    """Optax calls a mask function as a schedule under `inject_hyperparams`, and nothing decays.

    Here a function in a hyperparameter's place is tried when the link is built, and refused by name;
    the mask itself is a table by path.
    """

    def mask(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim > 0, params)

    params = jnp.ones(3)
    zero = jnp.zeros(3)
    meant, _ = after(optax.adamw(0.1, weight_decay=0.5, mask=mask), [zero], params)
    theirs, _ = after(optax.inject_hyperparams(optax.adamw)(0.1, weight_decay=0.5, mask=mask), [zero], params)
    np.testing.assert_allclose(meant, 0.95)
    np.testing.assert_allclose(theirs, 1.0)
    with pytest.raises(
        ValueError,
        match=r"`add_decayed_weights.weight_decay`: .*mask was given where .* a schedule is expected.*by_path",
    ):
        cx.adamw(0.1, weight_decay=mask)
    with pytest.raises(TypeError, match="mask"):
        cx.adamw(0.1, mask=mask)  # pyright: ignore[reportCallIssue]
    tx = cx.adamw(0.1, weight_decay=cx.by_path({"w": 0.5}, default=0.0))
    moved, _ = tx.step({"w": params, "b": params}, tx.init({"w": params, "b": params}), {"w": zero, "b": zero})
    np.testing.assert_allclose(moved["w"], 0.95)
    np.testing.assert_allclose(moved["b"], 1.0)


def test_global_norm_of_bfloat16_is_accumulated_in_float32() -> None:
    """The norm of 2000 leaves of a single bfloat16 one is √2000 = 44.7; Optax's sum of squares sticks at 256."""
    ones = [jnp.ones((), jnp.bfloat16)] * 2000
    assert float(optax.tree.norm(ones)) == 16.0
    assert float(cx.global_norm(ones)) == pytest.approx(2000**0.5, rel=1e-6)


def test_update_smaller_than_rounding_reaches_a_bfloat16_parameter_whole() -> None:
    """`step` adds the float32 update before it rounds, so nothing is rounded twice."""
    params, grads = jnp.full(1, 1.0, jnp.bfloat16), jnp.full(1, 0.00392, jnp.float32)
    tx = cx.sgd(1.0)
    moved, _ = tx.step(params, tx.init(params), grads)
    assert moved.dtype == jnp.bfloat16
    assert float(moved[0]) == float(jnp.bfloat16(1.0 - 0.00392))
