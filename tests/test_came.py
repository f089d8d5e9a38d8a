"""CAME against pytorch_optimizer; what it keeps, and what its second division does."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import pytorch_optimizer
from libraries import run_pytorch_optimizer
from reference import check_run, log, problem, settings, uniform
from registry import WORDS

SHAPES = {"square": (4, 4), "wide": (3, 7), "tall": (6, 2), "vector": (5,), "scalar": ()}
CAME = {
    "learning_rate": log(1e-4, 1e-2),
    "b1": uniform(0.0, 0.99),
    "b2": uniform(0.5, 0.999),
    "b3": uniform(0.5, 0.9999),
    "eps": log(1e-30, 1e-3),
    "eps_instability": log(1e-16, 1e-3),
    "clipping_threshold": log(0.3, 3.0),
}


def came(learning_rate: Any = 0.1, **hyper: Any) -> cx.chain:
    """CAME for parameters of any number of axes."""
    return cx.chain(cx.scale_by_came(matrices=WORDS, **hyper), cx.scale_by_lr(learning_rate))


def test_agrees_with_pytorch_optimizer(x64: None) -> None:
    """Every hyperparameter; vectors, which have no second division."""
    library = pytorch_optimizer()
    for i, hyper in enumerate(settings(CAME, count=5)):
        params, grads = problem(seed=i, shapes=SHAPES)
        names = {
            "lr": hyper["learning_rate"],
            "betas": (hyper["b1"], hyper["b2"], hyper["b3"]),
            "eps1": hyper["eps"],
            "eps2": hyper["eps_instability"],
            "clip_threshold": hyper["clipping_threshold"],
        }
        theirs = run_pytorch_optimizer(lambda groups, n=names: library.CAME(groups, foreach=False, **n), params, grads)
        check_run(came(**hyper), params, grads, theirs, constant_too=i == 0)


def test_steady_updates_are_enlarged(x64: None) -> None:
    """A row whose update changes its sign at every step gets a smaller step than one whose update stays."""
    sign = jnp.array([[1.0], [1.0], [-1.0]])
    tx = cx.scale_by_came(clipping_threshold=np.inf)
    state, u = tx.init(jnp.zeros((3, 4))), jnp.zeros((3, 4))
    for k in range(20):
        g = jnp.where((sign < 0) & (k % 2 == 1), -1.0, 1.0) * jnp.ones((3, 4))
        u, state = tx.update(g, state)
    assert float(jnp.abs(u[0]).min()) > 5 * float(jnp.abs(u[2]).max())


def test_size_of_the_state() -> None:
    """A mean, and two rows and columns of a matrix; a vector has one of each, and two zeros."""
    tx = cx.scale_by_came(matrices=WORDS)
    for shape, numbers in (((300, 200), 300 * 200 + 2 * 500), ((300,), 300 + 300 + 1 + 2)):
        state = jax.eval_shape(tx.init, jnp.zeros(shape))
        assert sum(x.size for x in jax.tree.leaves(state.links)) == numbers


@pytest.mark.parametrize("size", (0.0, 1e-30, 1e30))
def test_any_size_of_gradient(size: float) -> None:
    """Squares that under- or overflow: no NaN, a row of zeros stays, and the update is bounded before its average."""
    g = size * jax.random.normal(jax.random.key(0), (4, 3)).at[1].set(0.0)
    tx = cx.scale_by_came()
    state, u = tx.init(g), g
    for _ in range(3):
        u, state = tx.update(g, state)
        assert bool(jnp.isfinite(u).all())
        assert not u[1].any()
        assert float(jnp.sqrt(jnp.square(state.links["scale_by_came"]["mu"]).mean())) <= 1.0
    assert bool(u[0].any()) == (size > 0)


def test_bad_input() -> None:
    """The error says what came, and what is expected."""
    with pytest.raises(ValueError, match=r"scale_by_came.b3` must lie in \[0, 1\), got 1"):
        cx.scale_by_came(b3=1.0)
