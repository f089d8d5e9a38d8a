"""Clipping by example, against Optax, and the noise of DP-SGD by its statistics."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from libraries import run_optax
from reference import STEPS, Tree, assert_agree, check_run, problem

SHAPES = {"matrix": (4, 3), "vector": (5,), "scalar": ()}
BATCH = 6


def batches(seed: int) -> tuple[Tree, Tree]:
    """A problem with 6 examples at each step, whose sizes differ; some are 0."""
    params, grads = problem(seed, SHAPES)
    rng = np.random.default_rng(seed)
    sizes = 10 ** rng.uniform(-2, 1, (STEPS, BATCH)) * (rng.uniform(size=(STEPS, BATCH)) > 0.1)
    noise = {n: rng.normal(size=(STEPS, BATCH, *g.shape[1:])) for n, g in grads.items()}
    return params, {n: sizes.reshape(STEPS, BATCH, *[1] * (x.ndim - 2)) * x for n, x in noise.items()}


@pytest.mark.parametrize("bound", (0.1, 1.0, 5.0))
def test_agrees_with_optax(bound: float, x64: None) -> None:
    """Without noise: before momentum, with the clip alone and as DP-SGD."""
    params, grads = batches(0)

    def build() -> Any:
        return optax.contrib.dpsgd(0.1, bound, 0.0, seed=0, momentum=0.9)

    with pytest.warns(DeprecationWarning, match="seed"):
        theirs = run_optax(build, {}, params, grads)
    for link in (cx.clip_per_example(bound), cx.differentially_private_aggregate(bound, 0.0)):
        check_run(cx.chain(link, cx.sgd(0.1, momentum=0.9)), params, grads, theirs)


@pytest.mark.parametrize("uniform", (True, False))
def test_blocks_agree_with_optax(uniform: bool, x64: None) -> None:
    """Leaf by leaf, with equal bounds and with bounds by size."""
    params, stack = batches(1)
    for k in range(3):
        grads = {n: jnp.asarray(g[k]) for n, g in stack.items()}
        with jax.numpy_dtype_promotion("standard"):
            sums, _ = optax.per_example_layer_norm_clip(grads, 1.5, uniform=uniform)
        tx = cx.chain(cx.clip_blocks_per_example(1.5, uniform))
        ours, _ = tx.update(grads, tx.init(params), params)
        assert_agree(ours, jax.tree.map(lambda x: x / BATCH, sums), 1e-12)


def test_clips_what_vmap_makes() -> None:
    """In a training step, with a leaf that is no parameter and complex ones; complex examples count with both parts."""
    params = {"w": jnp.arange(3.0), "z": jnp.array([1.0 + 2.0j]), "n": jnp.arange(2), "hole": None}
    x = jnp.linspace(0.0, 2.0, 12).reshape(4, 3)

    def loss(floats: Tree, x: jax.Array) -> jax.Array:
        return jnp.sum(floats["w"] * x) ** 2 + 3 * x[0] * jnp.sum(jnp.square(jnp.abs(floats["z"])))

    g = jax.vmap(jax.grad(loss), (None, 0))({"w": params["w"], "z": params["z"]}, x)
    tx = cx.chain(cx.clip_per_example(2.0), cx.scale_by_lr(1.0))
    moved, _ = jax.jit(tx.step)(params, tx.init(params), {**g, "n": None, "hole": None})
    g = {n: np.asarray(x) for n, x in g.items()}
    norms = np.sqrt(np.sum(np.abs(g["w"]) ** 2, 1) + np.sum(np.abs(g["z"]) ** 2, 1))
    factors = np.minimum(1, 2 / np.maximum(norms, 1e-9))[:, None]
    assert 0 < np.sum(factors < 1) < 4
    np.testing.assert_allclose(moved["w"], np.asarray(params["w"]) - np.mean(factors * g["w"], 0), rtol=1e-5)
    np.testing.assert_allclose(moved["z"], np.asarray(params["z"]) - np.mean(factors * g["z"], 0), rtol=1e-5)
    np.testing.assert_array_equal(moved["n"], params["n"])
    assert moved["hole"] is None


def test_noise_is_normal_and_independent() -> None:
    """Its size is σC/B on the mean; steps, leaves of equal shape, seeds and both parts of a number draw anew."""
    params = {"a": jnp.zeros(20_000), "b": jnp.zeros(20_000), "c": jnp.zeros(10_000, jnp.complex64)}
    grads = jax.tree.map(lambda p: jnp.zeros((4, *p.shape), p.dtype), params)
    draws = []
    for seed in (0, 1):
        tx = cx.chain(cx.differentially_private_aggregate(2.0, 0.5, seed))
        state = tx.init(params)
        for _ in range(2):
            u, state = tx.update(grads, state, params)
            draws += [u["a"], u["b"], jnp.concatenate([u["c"].real, u["c"].imag])]
        again, _ = tx.update(grads, tx.init(params), params)
        np.testing.assert_array_equal(again["a"], draws[6 * seed])
    draws = np.asarray(draws) * 4 / (0.5 * 2.0)
    for z in draws:
        assert scipy.stats.kstest(z, "norm").pvalue > 1e-4
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)


def test_noise_is_the_same_in_any_batch() -> None:
    """Twice the examples, half the noise: the sum gets it, not the examples."""
    noise = []
    for batch in (3, 6):
        tx = cx.chain(cx.differentially_private_aggregate(1.0, 1.0))
        noise.append(tx.update(jnp.zeros((batch, 50)), tx.init(jnp.zeros(50)))[0] * batch)
    np.testing.assert_allclose(noise[0], noise[1], rtol=1e-6)


def test_an_outlier_counts_no_more_than_the_bound() -> None:
    """An example of any size moves the mean by c/B at most."""
    tx = cx.chain(cx.clip_per_example(1.0))
    for size in (1e3, 1e18):
        u, _ = tx.update(jnp.zeros((5, 3)).at[2, 1].set(size), tx.init(jnp.zeros(3)))
        np.testing.assert_allclose(cx.global_norm(u), 0.2, rtol=1e-6)


def test_examples_must_be_as_many_in_each_leaf() -> None:
    """Otherwise it is said."""
    tx = cx.chain(cx.clip_per_example(1.0))
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    with pytest.raises(TypeError, match="have 4 and 5 examples: give all the same number"):
        tx.update({"a": jnp.ones((4, 3)), "b": jnp.ones((5, 2))}, tx.init(params), params)
