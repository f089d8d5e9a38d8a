"""Derivatives through training runs equal central finite differences, in float64 to 1e-6 of their size."""

import functools
import importlib
import pathlib
from types import ModuleType
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "hypergradients.py"
CHAINS = (
    cx.adamw(0.1, b1=0.8, b2=0.9, eps=0.01, weight_decay=0.3),
    cx.chain(
        cx.clip_by_global_norm(1.5), cx.trace(0.8, dampening=0.1), cx.add_decayed_weights(0.2), cx.scale_by_lr(0.1)
    ),
    cx.sgd(cx.cosine_decay_schedule(0.2, 10, 0.1), momentum=0.7, nesterov=True),
)

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE.parent)  # it imports another module that lies there
        return importlib.import_module(EXAMPLE.stem)


@pytest.fixture(scope="module")
def value(example) -> Any:
    """The loss that the example tunes, after forty steps; compiled once for all tests."""
    with jax.enable_x64(True):
        train, validate, _ = example.digits()
    return jax.jit(functools.partial(example.validation_loss, train=train, validate=validate, steps=40))


@pytest.fixture(scope="module")
def objective(value) -> Any:
    """The same with its gradient."""
    return jax.jit(jax.value_and_grad(value))


@pytest.mark.parametrize(("rate", "decay"), ((3e-3, 1.0), (0.01, 0.1)))
def test_example_agrees_with_finite_differences(example, value, objective, rate, decay):
    """Learning rate and weight decay of AdamW, through forty steps on digits."""
    logs = {"learning rate": jnp.log(rate), "weight decay": jnp.log(decay)}
    _, slopes = objective(logs)
    differences = example.central_differences(value, logs)
    assert slopes.keys() == logs.keys()
    for name, slope in slopes.items():
        assert slope.dtype == jnp.float64
        assert abs(slope) > 1e-4  # there is something to agree on
        np.testing.assert_allclose(slope, differences[name], rtol=1e-6)


def test_example_tunes(example, value, objective):
    """Descending the hypergradients lowers the loss that they belong to."""
    logs = {name: jnp.log(x) for name, x in example.START.items()}
    tuned = example.tune(objective, logs, 8)
    assert value(tuned) < 0.7 * value(logs)
    assert tuned["learning rate"] > logs["learning rate"]


@pytest.mark.parametrize("tx", CHAINS, ids=repr)
def test_every_number_of_a_chain_has_its_slope(tx):
    """The gradient with respect to a chain is that chain, with finite differences' slopes in place of the numbers."""
    target = jnp.array([1.0, -2.0, 0.5])

    @jax.jit
    def run(tx: Any) -> jax.Array:
        params = jnp.array([-1.0, 0.5, 2.0])
        state = tx.init(params)
        for _ in range(5):
            params, state = tx.step(params, state, jnp.sinh(params - target))
        return jnp.sum(jnp.cosh(params - target))

    slopes = jax.grad(run)(tx)
    assert type(slopes) is cx.chain
    assert slopes.names == tx.names
    numbers, treedef = jax.tree.flatten(tx)
    got = jax.tree.leaves(slopes)
    for i, x in enumerate(numbers):
        h = 1e-5 * (abs(x) or 1.0)
        up, down = (run(treedef.unflatten([*numbers[:i], x + side, *numbers[i + 1 :]])) for side in (h, -h))
        assert abs(got[i]) > 1e-3
        np.testing.assert_allclose(got[i], (up - down) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    (
        (cx.adam, optax.adam),
        (functools.partial(cx.nadamw, weight_decay=0.0), functools.partial(optax.nadamw, weight_decay=0.0)),
        (functools.partial(cx.amsgrad, debias="before"), optax.amsgrad),
        (functools.partial(cx.adan, b2=0.5), functools.partial(optax.adan, b2=0.5)),
        (cx.ademamix, optax.contrib.ademamix),
    ),
)
def test_eps_root_bounds_the_derivative_at_zero_gradients(ours: Any, theirs: Any) -> None:
    """By a gradient that is 0 the step's derivative is Optax's: about 1/√ε̄, where it is 1/ε without ε̄."""
    params, target = jnp.array([1.0, -2.0]), jnp.array([2.0, 3.0])

    def moved(tx: Any, grads: jax.Array) -> jax.Array:
        p, state = params, tx.init(params)
        for _ in range(2):
            u, state = tx.update(grads, state, p)
            p = p + u
        return jnp.sum(jnp.square(p - target))

    def slopes(tx: Any) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):
            return jax.grad(functools.partial(moved, tx))(jnp.array([0.0, 0.1]))

    got = slopes(ours(0.1, eps_root=1e-4))
    assert 1 < abs(got[0]) < 1e3
    np.testing.assert_allclose(got, slopes(theirs(0.1, eps_root=1e-4)), rtol=1e-6)
