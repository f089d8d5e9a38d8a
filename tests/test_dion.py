"""Dion against the paper in NumPy, and what its updates are."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import fall_on_a_matrix
from matrix_reference import SHAPES, matrix_problem
from reference import assert_agree, log, run, run_numpy, settings, uniform

RANGES = {"learning_rate": log(1e-3, 1e-1), "momentum": uniform(0.0, 0.99), "weight_decay": log(1e-3, 1.0)}


def first_basis(m: int, n: int, rank: int) -> np.ndarray:
    """The columns with which ours begins; the paper's are random, too."""
    link = cx.scale_by_dion(rank=rank)
    with jax.enable_x64(True):
        slots = link.init(jnp.zeros((m, n), jnp.float64)).links["scale_by_dion"]
    assert slots["Q"].shape == (m, min(m, n, rank))
    return np.asarray(slots["Q"])


def dion(theta: Any, g: Any, t: int, memory: Any, rank: int, **h: Any) -> Any:
    """Ahn et al. 2025, Algorithm 1, whose matrices are outputs by inputs, with decoupled decay."""
    X, G = theta.T, g.T
    if t == 1:
        memory["M"], memory["Q"] = np.zeros_like(X), first_basis(*theta.shape, rank)
    B = memory["M"] + G
    P, _ = np.linalg.qr(B @ memory["Q"])
    R = B.T @ P
    memory["M"] = B - (1 - h["momentum"]) * P @ R.T
    memory["Q"] = R / np.linalg.norm(R, axis=0)
    X = X * (1 - h["learning_rate"] * h["weight_decay"])
    m, n = X.shape
    return (X - h["learning_rate"] * np.sqrt(m / n) * P @ memory["Q"].T).T


@pytest.mark.parametrize("rank", (1, 2, 9))
def test_agrees_with_the_paper(rank: int, x64: None) -> None:
    """Every hyperparameter, at low rank and at full; 60 steps, since rounding errors grow in the power iteration."""
    for i, hyper in enumerate(settings(RANGES, count=5)):
        params, grads = matrix_problem(seed=i)
        expected = run_numpy(dion, params, grads, rank=rank, **hyper)
        first = {n: x[:60] for n, x in expected.items()}
        assert_agree({n: x[:60] for n, x in run(cx.dion(**hyper, rank=rank), params, grads).items()}, first, 1e-9)


def last_update(link: Any, grads: np.ndarray) -> tuple[np.ndarray, Any]:
    """The last update and the slots."""
    state = link.init(jnp.zeros_like(jnp.asarray(grads[0])))
    update = jax.jit(link.update)
    u = None
    for g in grads:
        u, state = update(jnp.asarray(g), state)
    return np.asarray(u), state.links["scale_by_dion"]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
def test_updates_are_orthonormal_of_low_rank(shape: tuple[int, int], x64: None) -> None:
    """For a constant gradient the columns become singular vectors, and the update their product: Muon's, of rank 2."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(n, 3)))[0] for n in shape)
    g = U @ np.diag([4.0, 2.0, 1.0]) @ V.T
    u, _ = last_update(cx.scale_by_dion(0.0, rank=2, sizing="none"), np.stack([g] * 40))
    assert np.linalg.matrix_rank(u, 1e-6) == 2
    u, _ = last_update(cx.scale_by_dion(0.95, rank=3, sizing="none"), np.stack([g] * 80))
    np.testing.assert_allclose(u, U @ V.T, atol=1e-6)


def test_what_the_update_lacks_is_kept(x64: None) -> None:
    """M loses a share of the update's part and nothing else: with μ = 1 nothing at all."""
    grads = np.random.default_rng(0).normal(size=(3, 4, 6))
    _, slots = last_update(cx.scale_by_dion(1 - 1e-12, rank=1), grads)
    np.testing.assert_allclose(slots["mu"], grads.sum(0), atol=1e-10)
    _, slots = last_update(cx.scale_by_dion(0.0, rank=4), grads)
    np.testing.assert_allclose(slots["mu"], 0, atol=1e-10)


def test_rank_deficient_gradients() -> None:
    """Directions that are not there do not move, whatever the rounding; the others do, and the basis is kept."""
    rng = np.random.default_rng(0)
    for left in (rng.normal(size=(5, 1)), np.zeros((5, 1))):
        g = jnp.asarray(left @ rng.normal(size=(1, 4)), jnp.float32)
        link = cx.scale_by_dion(sizing="none")
        u, slots = last_update(link, np.stack([g] * 5))
        expected = np.asarray(g) / max(np.linalg.norm(g), 1e-30)
        np.testing.assert_allclose(u, expected, atol=1e-5)
        assert np.all(np.isfinite(slots["Q"]))
        assert np.linalg.matrix_rank(slots["Q"]) == 4
    huge, _ = last_update(cx.scale_by_dion(sizing="none"), np.stack([g + 1e25 * jnp.eye(5, 4)]))
    np.testing.assert_allclose(huge, np.eye(5, 4), atol=1e-5)


def test_zeros_at_the_start_do_not_matter(x64: None) -> None:
    """The first basis waits for a gradient."""
    grads = np.random.default_rng(0).normal(size=(4, 4, 6))
    with_zeros = np.concatenate([np.zeros((3, 4, 6)), grads])
    link = cx.scale_by_dion(rank=2)
    np.testing.assert_allclose(last_update(link, with_zeros)[0], last_update(link, grads)[0], atol=1e-12)


def test_infinite_gradients_are_seen() -> None:
    """The update is NaN, which `skip_nonfinite` finds, and the basis stays."""
    g = np.ones((1, 3, 4), np.float32)
    g[0, 1, 1] = np.inf
    link = cx.scale_by_dion(rank=2)
    u, slots = last_update(link, g)
    assert np.all(np.isnan(u))
    assert np.all(slots["Q"] == link.init(jnp.asarray(g[0])).links["scale_by_dion"]["Q"])


def test_ranks() -> None:
    """A fraction of the smaller side, rounded up, with a bound."""
    for fraction, rank, expected in ((1.0, None, 5), (0.25, None, 2), (1e-3, None, 1), (1.0, 3, 3), (0.25, 3, 2)):
        slots = jax.eval_shape(cx.scale_by_dion(rank_fraction=fraction, rank=rank).init, jnp.zeros((8, 5)))
        assert slots.links["scale_by_dion"]["Q"].shape == (8, expected)


def test_it_descends() -> None:
    """At a quarter of the rank, to a thousandth of the loss."""
    rate = cx.cosine_decay_schedule(0.3, 500)
    assert fall_on_a_matrix(cx.dion(rate, rank_fraction=0.25, weight_decay=None), 500) < 1e-3


def test_bad_ranks() -> None:
    """The field, what came, and what is accepted."""
    with pytest.raises(ValueError, match=r"`scale_by_dion.rank_fraction` must lie in \(0, 1\], got 0"):
        cx.scale_by_dion(rank_fraction=0)
    with pytest.raises(ValueError, match=r"`scale_by_dion.rank` must be a whole number from 1, got 0.5"):
        cx.scale_by_dion(rank=0.5)  # pyright: ignore[reportArgumentType]


def test_derivatives_exist() -> None:
    """With respect to the gradient and the momentum, also of zeros and at a low rank."""
    for g in (jnp.zeros((3, 4)), jnp.ones((3, 4))):

        def moved(scale: jax.Array, beta: jax.Array, g: jax.Array = g) -> jax.Array:
            link = cx.scale_by_dion(beta, rank=2)
            state = link.init(g)
            _, state = link.update(g * scale, state)
            u, _ = link.update(g * scale, state)
            return jnp.sum(u * jnp.arange(12.0).reshape(3, 4))

        assert all(np.isfinite(x) for x in jax.jit(jax.grad(moved, (0, 1)))(jnp.array(1.0), jnp.array(0.9)))
