"""GaLore against a transcription in NumPy, Optax and pytorch_optimizer, which both decompose in float32 only."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from agreement import fall_on_a_matrix, pytorch_optimizer
from libraries import run_optax, run_pytorch_optimizer
from reference import (
    SHAPES,
    Tree,
    assert_agree,
    check_against_numpy,
    check_run,
    log,
    problem,
    run,
    settings,
    uniform,
)

ADAM = {"learning_rate": log(1e-4, 1e-2), "b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), "eps": log(1e-8, 1e-3)}
WIDE = {**SHAPES, "wide": (3, 7), "square": (3, 3)}


def numpy_galore(
    theta: Any,
    g: Any,
    t: int,
    memory: dict,
    learning_rate: float,
    b1: float,
    b2: float,
    eps: float,
    scale: float,
    rank: int,
    gap: int,
) -> Any:
    """Algorithm 2 of Zhao et al. 2024. Matrices that are tall are projected from the right."""
    matrix, tall = g.ndim == 2 and g.size, g.ndim == 2 and g.shape[0] > g.shape[1]
    if matrix:
        if (t - 1) % gap == 0:
            U, _, V = np.linalg.svd(g, full_matrices=False)
            memory["P"] = V[:rank].T if tall else U[:, :rank]
        P = memory["P"]
        g = g @ P if tall else P.T @ g
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
    u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
    if matrix:
        u = scale * (u @ memory["P"].T if tall else memory["P"] @ u)
    return theta - learning_rate * u


@pytest.mark.parametrize(
    ("rank", "gap", "b1"),
    # A new projector's vectors may have either sign. Adam takes no notice, unless it remembers a mean from before.
    ((1, 1000, uniform(0.0, 0.99)), (2, 7, lambda rng: 0.0), (128, 1, lambda rng: 0.0)),
)
def test_agrees_with_numpy(rank: int, gap: int, b1: Any, x64: None) -> None:
    """Every hyperparameter; tall matrices, and leaves that are not projected."""

    def ours(**hyper: Any) -> cx.chain:
        return cx.galore_adamw(rank=rank, update_proj_gap=gap, **hyper)

    def theirs(*args: Any, **hyper: Any) -> Any:
        return numpy_galore(*args, **hyper, rank=rank, gap=gap)

    check_against_numpy(ours, theirs, {**ADAM, "b1": b1, "scale": uniform(0.1, 2.0)})


SLOW = {"learning_rate": log(1e-4, 2e-3), "scale": uniform(0.1, 2.0)}


def agree_roughly(ours: cx.chain, theirs: Tree, params: Tree, grads: Tree) -> None:
    """As near as float32 decompositions let them."""
    assert_agree(run(ours, params, grads), theirs, 2e-6)


def test_agrees_with_optax(x64: None) -> None:
    """Optax projects the longer side. There is no mean, so the signs of new vectors do not count."""

    def theirs(learning_rate: Any, b2: Any, eps: Any, scale: Any) -> Any:
        tx = optax.contrib.scale_by_galore(2, 7, scale, optax.scale_by_adam(0.0, b2, eps))
        return optax.chain(tx, optax.scale_by_learning_rate(learning_rate))

    ranges = {k: draw for k, draw in {**ADAM, **SLOW, "eps": log(1e-4, 1e-2)}.items() if k != "b1"}
    for i, hyper in enumerate(settings(ranges, count=5)):
        params, grads = problem(seed=i, shapes={n: shape for n, shape in WIDE.items() if n != "empty"})
        ours = cx.galore_adamw(rank=2, update_proj_gap=7, b1=0.0, **hyper)
        ours = ours.replace("scale_by_galore", side="longer")
        agree_roughly(ours, run_optax(theirs, hyper, params, grads), params, grads)


def test_agrees_with_pytorch_optimizer(x64: None) -> None:
    """It changes projectors at other steps, so one stays; and projects square matrices from the right."""
    library = pytorch_optimizer()
    for i, hyper in enumerate(settings({**ADAM, **SLOW}, count=5)):
        params, grads = problem(seed=i, shapes={n: shape for n, shape in WIDE.items() if n not in ("empty", "square")})
        betas = {"lr": hyper["learning_rate"], "betas": (hyper["b1"], hyper["b2"]), "eps": 1e-14}
        low = {"rank": 2, "update_proj_gap": 1000, "scale": hyper["scale"], "projection_type": "std"}
        theirs = run_pytorch_optimizer(
            lambda groups, betas=betas: library.GaLore(groups, **betas, foreach=False),
            params,
            grads,
            groups={n: low for n, p in params.items() if p.ndim == 2},
        )
        agree_roughly(cx.galore_adamw(rank=2, **{**hyper, "eps": 1e-14}), theirs, params, grads)


# Properties


def test_all_directions_are_the_whole_gradient(x64: None) -> None:
    """With as many directions as there are, and a chain that is linear, nothing but the scale is left."""
    params, grads = problem(seed=0, shapes=WIDE)
    momentum = cx.trace(0.9)
    low = cx.chain(cx.scale_by_galore(momentum, rank=3, update_proj_gap=1000, scale=0.5), cx.scale_by_lr(0.1))
    params, grads = ({n: tree[n] for n in ("matrix", "wide", "square")} for tree in (params, grads))
    check_run(low, params, grads, run(cx.sgd(0.05, momentum=0.9), params, grads))


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.complex64))
@pytest.mark.parametrize("side", ("shorter", "longer"))
def test_rank_of_the_update(side: str, dtype: Any) -> None:
    """An update has the rank that was asked for, and is the best that has: what is left out is orthogonal to it."""
    rng = np.random.default_rng(0)
    g = jnp.asarray(rng.normal(size=(6, 4)) + 1j * rng.normal(size=(6, 4)), jnp.complex64)
    g = g.astype(dtype) if dtype == jnp.complex64 else g.real
    tx = cx.scale_by_galore(cx.chain(), rank=2, scale=1.0, side=side)
    u, state = tx.update(g, tx.init(g))
    values = np.linalg.svd(np.asarray(u), compute_uv=False)
    np.testing.assert_allclose(values[:2], np.linalg.svd(np.asarray(g), compute_uv=False)[:2], rtol=1e-5)
    np.testing.assert_allclose(values[2:], 0.0, atol=1e-5)
    assert state.links["scale_by_galore"]["projector"].shape == ((4, 2) if side == "shorter" else (6, 2))


def test_projector_changes_every_gap() -> None:
    """It is made at steps 1, 4, 7, ..., and a leaf without a gradient keeps its own."""
    tx = cx.scale_by_galore(cx.scale_by_adam(), rank=1, update_proj_gap=3)
    params = {"a": jnp.ones((3, 4)), "b": jnp.ones((3, 4)), "c": jnp.ones(3), "d": jnp.arange(3)}
    state, seen = tx.init(params), []
    for k in range(7):
        rng = np.random.default_rng(k)
        draw = {n: jnp.asarray(rng.normal(size=params[n].shape), jnp.float32) for n in ("a", "b", "c")}
        _, state = jax.jit(tx.update)({**draw, "b": None if k == 3 else draw["b"], "d": None}, state, params)
        seen.append(state.links["scale_by_galore"]["projector"])
    changes = {n: [k for k in range(1, 7) if np.any(seen[k][n] != seen[k - 1][n])] for n in ("a", "b")}
    assert changes == {"a": [3, 6], "b": [6]}
    assert seen[0]["c"] is None
    assert np.linalg.norm(seen[0]["a"]) == pytest.approx(1)


def test_new_projectors_reach_the_whole_space() -> None:
    """Three directions of twelve at a time are enough for the loss to fall, if they change; and if not, not."""
    rate = cx.cosine_decay_schedule(0.3, 1000)
    changing, staying = (cx.galore_adamw(rate, rank=3, update_proj_gap=gap) for gap in (10, 1000))
    assert fall_on_a_matrix(changing, 1000) < 0.01
    assert fall_on_a_matrix(staying, 1000) > 0.1


def test_size_of_the_state() -> None:
    """A 100 × 300 matrix at rank 8: two moments of 8 × 300, a projector of 100 × 8, and the inner count."""
    state = jax.eval_shape(cx.galore_adamw(rank=8).init, jnp.zeros((100, 300)))
    assert sum(x.size for x in jax.tree.leaves(state.links)) == 2 * 8 * 300 + 100 * 8 + 1


@pytest.mark.parametrize(
    ("fields", "message"),
    (
        ({"tx": cx.adamw()}, "'add_decayed_weights' reads the parameters, which are not projected"),
        ({"rank": 0}, "rank` must be a whole number from 1, got 0"),
        ({"update_proj_gap": 2.0}, r"update_proj_gap` must be a whole number, got 2\.0"),
        ({"side": "left"}, "side` must be one of 'shorter', 'longer', got 'left'"),
    ),
)
def test_bad_input(fields: dict[str, Any], message: str) -> None:
    """The error says what came, and what is expected."""
    with pytest.raises(ValueError, match=message):
        cx.scale_by_galore(**{"tx": cx.scale_by_adam(), **fields})
    with pytest.raises(TypeError, match=r"tx`: a chain is made of links and chains, got 0\.1"):
        cx.scale_by_galore(0.1)


def test_galore_projects_a_leaf_that_comes_later() -> None:
    """Its first projector is made of its first gradient, whether it joined or had no gradient before."""
    tx, g = cx.galore_adamw(0.1, rank=2, update_proj_gap=100), jnp.sin(jnp.arange(12.0)).reshape(3, 4)
    params = {"old": jnp.ones((3, 4)), "late": jnp.ones((3, 4))}
    state = tx.init(params)
    for _ in range(3):
        params, state = tx.step(params, state, {"old": g, "late": None})
    moved, state = tx.step(params, state, {"old": g, "late": g})
    assert (moved["late"] != params["late"]).any()
    grown = {**moved, "new": jnp.ones((3, 4))}
    after, _ = tx.step(grown, tx.add_param_group(grown, state), dict.fromkeys(grown, g))
    assert (after["new"] != grown["new"]).any()
