"""Derivatives through training runs equal central finite differences, in float64 to 1e-6 of their size."""

import functools
import importlib.util
import pathlib
from types import ModuleType
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

EXAMPLE = pathlib.Path(__file__).parent.parent / "examples" / "hypergradients.py"
CHAINS = (
    cx.adamw(0.1, b1=0.8, b2=0.9, eps=0.01, weight_decay=0.3),
    cx.chain(
        cx.clip_by_global_norm(1.5), cx.trace(0.8, dampening=0.1), cx.add_decayed_weights(0.2), cx.scale_by_lr(0.1)
    ),
    cx.sgd(cx.polynomial_schedule(0.2, 0.05, 1.5, 4), momentum=0.7, nesterov=True),
)

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("hypergradients", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "start", ({"learning rate": 3e-3, "weight decay": 1.0}, {"learning rate": 0.01, "weight decay": 0.1})
)
def test_example_agrees_with_finite_differences(example, start):
    """Learning rate and weight decay of AdamW, through forty steps on digits."""
    train, validate, _ = example.digits()
    value = jax.jit(functools.partial(example.validation_loss, train=train, validate=validate, steps=40))
    logs = {name: jnp.log(x) for name, x in start.items()}
    slopes = jax.jit(jax.grad(value))(logs)
    differences = example.central_differences(value, logs)
    assert slopes.keys() == start.keys()
    for name, slope in slopes.items():
        assert slope.dtype == jnp.float64
        assert abs(slope) > 1e-4  # there is something to agree on
        np.testing.assert_allclose(slope, differences[name], rtol=1e-6)


def test_example_tunes(example):
    """Descending the hypergradients lowers the loss that they belong to."""
    train, validate, _ = example.digits()
    value = jax.jit(functools.partial(example.validation_loss, train=train, validate=validate, steps=20))
    logs = {name: jnp.log(x) for name, x in example.START.items()}
    tuned = example.tune(jax.jit(jax.value_and_grad(value)), logs, 8)
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
        h = 1e-5 * abs(x)
        up, down = (run(treedef.unflatten([*numbers[:i], x + side, *numbers[i + 1 :]])) for side in (h, -h))
        assert abs(got[i]) > 1e-3
        np.testing.assert_allclose(got[i], (up - down) / (2 * h), rtol=1e-6)
