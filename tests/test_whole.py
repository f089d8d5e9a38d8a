"""Links over the whole tree, where only a part of it moves or is float32."""

import functools
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

LINKS = (
    cx.scale_by_dog(0.1),
    cx.scale_by_dowg(),
    cx.scale_by_dadapt_sgd(estim_lr0=0.1),
    cx.scale_by_dadapt_adam(estim_lr0=0.1, weight_decay=0.1),
    cx.scale_by_prodigy(estim_lr0=0.1, weight_decay=0.1),
    cx.scale_by_momo(weight_decay=0.1),
    cx.scale_by_momo_adam(weight_decay=0.1),
    cx.scale_by_sophia(gamma=1.0, update_interval=1),
    cx.mechanize(cx.adamw(0.1), s_init=0.1),
    cx.schedule_free(cx.adamw(0.1)),
)
every = pytest.mark.parametrize("tx", LINKS, ids=lambda tx: type(tx).__name__)


def extra(tx: Any) -> dict[str, Any]:
    """The loss, and an estimate of the curvature, for links that read them."""
    given = {"value": 1.5, "hessian": lambda params: params}
    return {name: given[name] for name in tx.extra}


@every
def test_a_parameter_without_gradient_is_left_alone(tx: Any) -> None:
    """Its slots too; the others move as they would without it."""
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([0.5])}
    step = functools.partial(tx.step, **extra(tx))
    both, state = step(params, tx.init(params), {"a": jnp.array([0.3, 0.1]), "b": jnp.array([0.2])})
    entries = [x for path, x in jax.tree.leaves_with_path(state.links) if "'b'" in jax.tree_util.keystr(path)]
    moved, after = step(both, state, {"a": jnp.array([-0.1, 0.4]), "b": None})
    kept = [x for path, x in jax.tree.leaves_with_path(after.links) if "'b'" in jax.tree_util.keystr(path)]
    np.testing.assert_array_equal(moved["b"], both["b"])
    assert len(kept) == len(entries) > 0
    for x, y in zip(kept, entries):
        np.testing.assert_array_equal(x, y)
    assert np.all(moved["a"] != both["a"])


@every
def test_mixed_precision_is_computed_in_the_widest(tx: Any, x64: None) -> None:
    """float64 and float32 leaves go together, and keep their dtypes in parameters and state."""
    params = {"a": jnp.array([1.0, -2.0], jnp.float64), "b": jnp.array([0.5], jnp.float32)}
    gradients = {"a": jnp.array([0.3, 0.1], jnp.float64), "b": jnp.array([0.2], jnp.float32)}
    state = tx.init(params)
    moved, after = jax.jit(functools.partial(tx.step, **extra(tx)))(params, state, gradients)
    dtypes = functools.partial(jax.tree.map, lambda x: x.dtype)
    assert dtypes(moved) == dtypes(params)
    assert dtypes(after) == dtypes(state)
    wide = jax.tree.map(lambda x: x.astype(jnp.float64), (params, gradients))
    expected, _ = tx.step(wide[0], tx.init(wide[0]), wide[1], **extra(tx))
    for name in params:
        np.testing.assert_allclose(moved[name], expected[name], rtol=1e-6)


@every
def test_complex_parameters_are_pairs_of_reals(tx: Any) -> None:
    """As for the links that treat each leaf alone."""
    z = {"z": jnp.array([1.0 + 2.0j, -0.5 + 0.1j])}
    g = [{"z": jnp.array([0.3 - 0.2j, 0.1 + 0.5j])}, {"z": jnp.array([-0.1 + 0.2j, 0.4 + 0.1j])}]
    split = functools.partial(jax.tree.map, lambda z: jnp.stack([z.real, z.imag], -1))
    parts, state, parts_state = split(z), tx.init(z), tx.init(split(z))
    for gradient in g:
        z, state = tx.step(z, state, gradient, **extra(tx))
        parts, parts_state = tx.step(parts, parts_state, split(gradient), **extra(tx))
    np.testing.assert_allclose(split(z)["z"], parts["z"], rtol=1e-5)
