"""Chains that see the parameters in another form: one vector for all, or two real arrays for a complex one."""

from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import Tree, assert_agree, problem, run

BLOCKWISE = cx.chain(cx.clip_by_block_rms(0.1), cx.adam(1e-2))


def test_flatten_agrees_with_optax(x64: None) -> None:
    """What a link does to a leaf it does to all of them together."""
    params, grads = problem(seed=0)
    theirs = run_optax(
        lambda: optax.flatten(optax.chain(optax.clip_by_block_rms(0.1), optax.adam(1e-2))), {}, params, grads
    )
    ours = run(cx.flatten(BLOCKWISE), params, grads)
    assert_agree(ours, theirs, 1e-9)
    assert any(np.max(np.abs(ours[n] - x), initial=0.0) > 1e-3 for n, x in run(BLOCKWISE, params, grads).items())


def test_flatten_changes_nothing_elementwise(x64: None) -> None:
    """Adam with decay on one vector is Adam on the leaves, and so it is behind a link and before one."""
    params, grads = problem(seed=0)
    expected = run(cx.adamw(1e-2), params, grads)
    assert_agree(run(cx.flatten(cx.adamw(1e-2)), params, grads), expected, 1e-12)
    assert_agree(run(cx.chain(cx.scale(2.0), cx.flatten(cx.adamw(1e-2, eps=2e-8))), params, grads), expected, 1e-12)


def test_flatten_makes_a_vector_of_each_dtype() -> None:
    """Whole numbers and holes are left out; bfloat16 goes with float32, in which it is computed."""
    params = {
        "a": jnp.ones((2, 3)),
        "b": jnp.ones(4, jnp.bfloat16),
        "c": jnp.ones((2, 2), jnp.complex64),
        "d": jnp.ones(()),
        "n": jnp.arange(2),
        "hole": None,
    }
    tx = cx.flatten(cx.adam(0.5))
    state = tx.init(params)
    mu = state.links["flatten"]["tx"].links["scale_by_adam"]["mu"]
    assert {name: (x.shape, x.dtype.name) for name, x in mu.items()} == {
        "float32": ((11,), "float32"),
        "complex64": ((4,), "complex64"),
    }
    moved, _ = tx.step(params, state, {**params, "n": None})
    plain, _ = cx.adam(0.5).step(params, cx.adam(0.5).init(params), {**params, "n": None})
    chex.assert_trees_all_close(moved, plain)
    chex.assert_trees_all_equal_dtypes(moved, params)


def test_flatten_needs_all_updates() -> None:
    """A vector has no holes."""
    tx, params = cx.flatten(cx.sgd(0.1)), {"a": jnp.ones(2), "b": jnp.ones(3)}
    with pytest.raises(
        TypeError, match=r"'flatten' has no update at 'b', float32\[3\], and a vector has no holes: leave"
    ):
        tx.step(params, tx.init(params), {"a": jnp.ones(2), "b": None})


def test_updates_without_parameters() -> None:
    """A chain that does not read them need not be given them."""
    grads = {"a": jnp.ones((2, 2)), "c": jnp.full(3, 1 + 2j, jnp.complex64)}
    for tx in (cx.flatten(cx.ema(0.5)), cx.split_complex(cx.ema(0.5))):
        updates, _ = tx.update(grads, tx.init(grads))
        chex.assert_trees_all_close(updates, jax.tree.map(lambda g: g / 2, grads))


# Complex parameters


def bowl(params: Any) -> jax.Array:
    """A function of complex numbers with its minimum, 0, at (1+2i, 3)."""
    z = params["z"] - jnp.array([1 + 2j, 3.0])
    return jnp.sum(jnp.square(jnp.abs(z)) * jnp.array([1.0, 5.0])) + jnp.sum(jnp.square(z.real + z.imag))


def real_bowl(params: Tree) -> jax.Array:
    """The same of their parts."""
    return bowl({"z": jax.lax.complex(params["z"]["real"], params["z"]["imag"])})


@pytest.mark.parametrize("tx", (cx.adam(0.1), cx.lbfgs(), cx.chain(cx.sharpness_aware(0.1), cx.sgd(0.05))), ids=repr)
def test_split_complex_is_the_real_problem(tx: Any, x64: None) -> None:
    """Gradients, and functions that a link calls, are those of real and imaginary parts."""
    z = jnp.array([4 - 1j, -2 + 2j])
    real, start = cx.minimize(tx, real_bowl, {"z": {"real": z.real, "imag": z.imag}}, max_steps=15), {"z": z}
    ours = cx.minimize(cx.split_complex(tx), bowl, start, max_steps=15)
    assert int(ours.state.step) == int(real.state.step)
    assert_agree(
        {"z": ours.params["z"]}, {"z": jax.lax.complex(real.params["z"]["real"], real.params["z"]["imag"])}, 1e-9
    )
    assert float(ours.value) < 0.5 * float(bowl(start))


def test_flatten_passes_functions_on(x64: None) -> None:
    """L-BFGS and its line search see one vector, and find the same points."""
    start = {"z": jnp.array([4 - 1j, -2 + 2j])}
    ours, plain = (cx.minimize(tx, bowl, start, max_steps=15) for tx in (cx.flatten(cx.lbfgs()), cx.lbfgs()))
    assert_agree(ours.params, plain.params, 1e-9)
    lone = cx.minimize(cx.flatten(cx.lbfgs()), lambda x: jnp.square(x - 3), jnp.array(0.0))
    np.testing.assert_allclose(lone.params, 3.0, atol=1e-6)


def test_split_complex_shows_two_real_leaves() -> None:
    """By the paths of their parameter, and real ones as they are."""
    params = {"z": jnp.array([1 + 2j], jnp.complex64), "x": jnp.ones(2)}
    tx = cx.split_complex(cx.sgd(cx.by_path({"real": 0.5, "imag": 0.25}, default=1.0)))
    moved, state = tx.step(params, tx.init(params), {"z": jnp.array([4 + 4j], jnp.complex64), "x": jnp.ones(2)})
    chex.assert_trees_all_close(moved, {"z": jnp.array([-1 + 1j], jnp.complex64), "x": jnp.zeros(2)})
    still, _ = tx.step(moved, state, {"z": None, "x": jnp.ones(2)})
    chex.assert_trees_all_equal(still["z"], moved["z"])
