"""Scaling, clipping and mending of single leaves, against Optax, pytorch_optimizer and NumPy."""

from collections.abc import Callable
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import SHAPES, Ranges, Tree, assert_agree, check_run, log, problem, run, settings, uniform
from registry import quickly

KERNELS = {**SHAPES, "kernel": (3, 2, 2, 4), "deep": (2, 2, 1, 2, 3), "column": (5, 1), "row": (1, 4)}
RATE = 0.1


def agrees(ours: Callable[..., Any], theirs: Callable[..., Any], ranges: Ranges, problems: Callable = problem) -> None:
    """Five settings of a link, followed by a step along what it leaves."""

    def build(**hyper: Any) -> Any:
        return optax.chain(theirs(**hyper), optax.scale(RATE))

    for i, hyper in enumerate(settings(ranges, count=5)):
        params, grads = problems(i, KERNELS)
        expected = run_optax(build, hyper, params, grads)
        check_run(cx.chain(ours(**hyper), cx.scale(RATE)), params, grads, expected, constant_too=i == 0)


def with_nans(seed: int, shapes: dict) -> tuple[Tree, Tree]:
    """The problem, with every fifth gradient NaN."""
    params, grads = problem(seed, shapes)
    rng = np.random.default_rng(seed)
    return params, {n: np.where(rng.uniform(size=g.shape) < 0.2, np.nan, g) for n, g in grads.items()}


BOUND = log(1e-3, 1.0)


def momentum(rng: np.random.Generator) -> float:
    """Any, and as often as not one of the ends: none, and one that nothing fades from."""
    return float(rng.choice([0.0, 1.0, rng.uniform(0.1, 0.99), rng.uniform(0.1, 0.99)]))


OPTAX: dict[str, tuple[Any, Any, Ranges]] = {
    "clip_by_block_rms": (cx.clip_by_block_rms, optax.clip_by_block_rms, {"threshold": BOUND}),
    "scale_by_param_block_norm": (
        cx.scale_by_param_block_norm,
        optax.scale_by_param_block_norm,
        {"min_scale": log(1e-3, 10.0)},
    ),
    "scale_by_param_block_rms": (
        cx.scale_by_param_block_rms,
        optax.scale_by_param_block_rms,
        {"min_scale": log(1e-3, 10.0)},
    ),
    "normalize_by_update_norm": (
        cx.normalize_by_update_norm,
        optax.normalize_by_update_norm,
        {"scale_factor": log(0.1, 10.0), "eps": log(1e-8, 1.0)},
    ),
    "adaptive_grad_clip": (
        cx.adaptive_grad_clip,
        optax.adaptive_grad_clip,
        {"clipping": BOUND, "eps": log(1e-3, 1.0)},
    ),
    "centralize": (lambda: cx.centralize(axis=0), optax.centralize, {}),
    "keep_params_nonnegative": (cx.keep_params_nonnegative, optax.keep_params_nonnegative, {}),
    "ema": (cx.ema, lambda decay: optax.ema(decay, debias=False), {"decay": uniform(0.0, 0.99)}),
    "debiased_ema": (cx.debiased_ema, optax.ema, {"decay": uniform(0.0, 0.99)}),
    "trace": (cx.trace, lambda momentum: optax.trace(momentum), {"momentum": momentum}),
    "nesterov": (
        lambda momentum: cx.trace(momentum, nesterov=True),
        lambda momentum: optax.trace(momentum, nesterov=True),
        {"momentum": momentum},
    ),
}


@pytest.mark.filterwarnings("ignore:'keep_params_nonnegative' bounds")  # the step is scaled after it here
@pytest.mark.parametrize("name", OPTAX)
def test_agrees_with_optax(name: str, x64: None) -> None:
    """Every hyperparameter means what it means in Optax, for leaves of zero to five axes."""
    agrees(*OPTAX[name])


def test_zero_nans_agrees_with_optax(x64: None) -> None:
    """Each NaN becomes 0; what is beside it stays."""
    agrees(cx.zero_nans, optax.zero_nans, {}, with_nans)


@pytest.mark.parametrize(
    "link", (cx.clip, cx.clip_by_block_rms, cx.clip_by_global_norm, cx.counted_clip_by_global_norm)
)
def test_an_infinite_bound_is_none(link: Any) -> None:
    """As a number or traced it leaves finite and infinite updates as they are, so that norms can be watched only."""
    tx, updates = cx.chain(link(np.inf)), {"a": jnp.array([1e30, -2.0]), "b": jnp.array([np.inf, 0.0])}

    def update(tx: cx.chain) -> Any:
        return tx.update(updates, tx.init(updates))[0]

    chex.assert_trees_all_equal(update(tx), updates)
    chex.assert_trees_all_equal(quickly(update)(tx), updates)


def test_adaptive_grad_clip_takes_axes(x64: None) -> None:
    """Units may lie along any axes, here along the last, as in PyTorch's kernels."""
    params, grads = problem(0, {"matrix": (4, 3), "cube": (2, 3, 2)})

    def build() -> Any:
        return optax.chain(optax.adaptive_grad_clip(0.05, axis=-1), optax.scale(RATE))

    tx = cx.chain(cx.adaptive_grad_clip(0.05, axis=-1), cx.scale(RATE))
    check_run(tx, params, grads, run_optax(build, {}, params, grads))


@pytest.mark.parametrize("axis", (1, -2, (0, 1)), ids=str)
def test_a_leaf_without_the_axis_is_a_unit(axis: Any, x64: None) -> None:
    """Biases and scalars, for which Optax raises, are clipped as it does by default; the others along the axis."""
    params, grads = problem(0, KERNELS)
    short = {"vector": None, "scalar": None}

    def build(of: Any) -> Any:
        return optax.chain(optax.adaptive_grad_clip(0.05, axis=of), optax.scale(RATE))

    def theirs(of: Any, names: Any) -> Tree:
        return run_optax(lambda: build(of), {}, *({n: x[n] for n in names} for x in (params, grads)))

    tx = cx.chain(cx.adaptive_grad_clip(0.05, axis=axis), cx.scale(RATE))
    expected = {**theirs(None, short), **theirs(axis, params.keys() - short)}
    check_run(tx, params, grads, {n: expected[n] for n in params})


def test_centralize_agrees_with_pytorch_optimizer(x64: None) -> None:
    """By default units are numbered by the last axis, where PyTorch's are by the first."""
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("pytorch_optimizer.optimizer.gradient_centralization")
    _, grads = problem(0, KERNELS)
    tx = cx.chain(cx.centralize())
    for g in grads.values():
        theirs = torch.tensor(np.moveaxis(g[0], -1, 0) if g[0].ndim else g[0])
        if theirs.numel():
            library.centralize_gradient(theirs)
        expected = np.moveaxis(theirs.numpy(), 0, -1) if g[0].ndim else theirs.numpy()
        assert_agree(tx.update(g[0], tx.init(g[0]))[0], expected, 1e-12)


def test_the_whole_has_one_norm() -> None:
    """Without ε exactly γ, whatever comes; and 0 where nothing comes."""
    tx = cx.chain(cx.normalize_by_update_norm(3.0, eps=0.0))
    for size, norm in ((1e-6, 3.0), (1e6, 3.0), (0.0, 0.0)):
        g = {"a": jnp.full(5, size), "b": jnp.full((2, 2), -size)}
        np.testing.assert_allclose(cx.global_norm(tx.update(g, tx.init(g))[0]), norm, rtol=1e-6)


def test_blocks_are_clipped_alone() -> None:
    """A NaN spoils its own leaf, or its own unit, and a small leaf beside a large one stays."""
    g = {"a": jnp.array([jnp.nan, 1.0]), "b": jnp.array([1e-3, 1e-3]), "c": jnp.array([3.0, 4.0])}
    tx = cx.chain(cx.clip_by_block_rms(1.0))
    u, _ = tx.update(g, tx.init(g))
    assert jnp.isnan(u["a"]).all()
    np.testing.assert_array_equal(u["b"], g["b"])
    np.testing.assert_allclose(u["c"], np.array([3.0, 4.0]) / np.sqrt(12.5), rtol=1e-6)
    kernel = jnp.array([[jnp.nan, 3.0], [1.0, 4.0]])
    tx = cx.chain(cx.adaptive_grad_clip(0.5))
    u, _ = tx.update(kernel, tx.init(kernel), jnp.ones((2, 2)))
    assert jnp.isnan(u[:, 0]).all()
    np.testing.assert_allclose(u[:, 1], np.array([3.0, 4.0]) / 5 * 0.5 * np.sqrt(2), rtol=1e-6)


def test_parameters_stay_nonnegative_and_reach_zero(x64: None) -> None:
    """Exactly 0 is reached and none is below."""
    params, grads = problem(0, {"matrix": (4, 3)})
    tx = cx.sgd(RATE).insert(cx.keep_params_nonnegative(), after="scale_by_lr")
    path = np.asarray(run(tx, jax.tree.map(np.abs, params), grads)["matrix"])
    assert path.min() == 0.0
    assert path.max() > 0.0
