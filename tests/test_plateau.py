"""The scale that falls on a plateau, against torch's ReduceLROnPlateau and Optax's reduce_on_plateau."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax
from reference import STEPS, check_run, problem, settings, uniform

COUNT = 1000
TORCH = {
    "reduction_factor": uniform(0.2, 0.95),
    "patience": lambda rng: float(rng.integers(0, 12)),
    "threshold": uniform(0.0, 0.05),
    "cooldown": lambda rng: float(rng.integers(0, 8)),
    "min_scale": lambda rng: float(10 ** rng.uniform(-6, -1)),
}


def losses(seed: int, count: int = COUNT) -> np.ndarray:
    """Falling in steps, with noise, NaN and a relapse."""
    rng = np.random.default_rng(seed)
    x = 3 * np.exp(-np.arange(count) // 60 / 3) + 0.5 + 0.1 * rng.normal(size=count)
    x[count // 2 : count // 2 + 20] += 2
    x[rng.choice(count, 5)] = np.nan
    return x.astype(np.float32)


def scales(tx: cx.chain, values: np.ndarray) -> np.ndarray:
    """The length of each step on a gradient of 1."""

    def step(state: Any, value: jax.Array) -> tuple:
        u, state = tx.update(jnp.ones(()), state, value=value)
        return state, -u

    return np.asarray(jax.jit(lambda xs: jax.lax.scan(step, tx.init(jnp.ones(())), xs))(values)[1])


@pytest.mark.parametrize("mode", ("min", "max"))
@pytest.mark.parametrize("threshold_mode", ("rel", "abs"))
def test_agrees_with_torch(mode: str, threshold_mode: str) -> None:
    """The learning rate after each of 1000 values, down to the smallest."""
    torch = pytest.importorskip("torch")
    reached = reduced = 0
    for i, hyper in enumerate(settings(TORCH, count=5, seed=hash((mode == "min", threshold_mode == "rel")) % 2**32)):
        values = losses(i) if mode == "min" else -losses(i) if threshold_mode == "abs" else 5 - losses(i)
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            opt,
            mode=mode,
            factor=hyper["reduction_factor"],
            patience=int(hyper["patience"]),
            threshold=hyper["threshold"],
            threshold_mode=threshold_mode,
            cooldown=int(hyper["cooldown"]),
            min_lr=hyper["min_scale"],
            eps=0.0,
        )
        theirs = []
        for value in values:
            scheduler.step(float(value))
            theirs.append(opt.param_groups[0]["lr"])
        link = cx.reduce_on_plateau(**hyper, mode=mode, threshold_mode=threshold_mode)
        ours = scales(cx.chain(link, cx.scale_by_lr(1.0)), values)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        reached += theirs[-1] == hyper["min_scale"]
        reduced += len(set(theirs))
    assert reached > 0
    assert reduced > 20


def test_agrees_with_torch_by_default() -> None:
    """Every default but ``eps`` is PyTorch's."""
    torch = pytest.importorskip("torch")
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, eps=0.0)
    theirs = []
    for value in (values := losses(0, 100)):
        scheduler.step(float(value))
        theirs.append(opt.param_groups[0]["lr"])
    ours = scales(cx.chain(cx.reduce_on_plateau(), cx.scale_by_lr(1.0)), values)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert len(set(theirs)) > 1


def by_magnitude(values: np.ndarray, mode: str, factor: float, patience: int, threshold: float, cooldown: int) -> list:
    """The scale after each value, by a margin of τ·|best|."""
    best, bad, rest, scale, scales = None, 0, 0, 1.0, []
    for value in values.astype(float):
        margin = 0.0 if best is None else threshold * abs(best)
        gain = np.inf if best is None else (best - value if mode == "min" else value - best)
        if np.isfinite(value) and gain > margin:
            best, bad = value, 0
        else:
            bad += 1
        if rest:
            rest, bad = rest - 1, 0
        if bad > patience:
            scale, bad, rest = scale * factor, 0, cooldown
        scales.append(scale)
    return scales


@pytest.mark.parametrize("mode", ("min", "max"))
@pytest.mark.parametrize("shift", (-2.0, -10.0, 0.0, 10.0))
def test_margin_is_a_fraction_of_the_magnitude(mode: str, shift: float) -> None:
    """Also of negative values, and of those that change their sign, against NumPy."""
    values = losses(0) + np.float32(shift)
    values[[30, 70]] = np.inf, -np.inf
    hyper = {"patience": 3.0, "threshold": 0.02, "cooldown": 2.0}
    tx = cx.chain(cx.reduce_on_plateau(0.7, mode=mode, **hyper), cx.scale_by_lr(1.0))
    theirs = by_magnitude(values, mode, 0.7, 3, 0.02, 2)
    np.testing.assert_allclose(scales(tx, values), theirs, rtol=1e-4)
    assert len(set(theirs)) > 5


@pytest.mark.parametrize("mode", ("min", "max"))
@pytest.mark.parametrize("value", (-1.0, 1.0, -1e-3, -1e6, 0.0))
def test_a_value_that_never_changes_is_a_plateau(value: float, mode: str) -> None:
    """Of any sign; PyTorch never reduces where a negative one stays in mode "min"."""
    torch = pytest.importorskip("torch")
    ours = scales(cx.chain(cx.reduce_on_plateau(mode=mode), cx.scale_by_lr(1.0)), np.full(30, value, np.float32))
    np.testing.assert_allclose(ours, [1.0] * 11 + [0.1] * 11 + [0.01] * 8, rtol=1e-5)
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, mode)
    for _ in range(30):
        scheduler.step(value)
    assert opt.param_groups[0]["lr"] == pytest.approx(1.0 if value < 0 else 0.01)


@pytest.mark.parametrize("size", (1, 3))
def test_agrees_with_optax(size: int, x64: None) -> None:
    """Behind Adam, with means over ``size`` values; Optax counts the last bad value, so its patience is 1 more."""
    params, grads = problem(seed=0)
    values = losses(0, STEPS)
    values[np.isnan(values)] = 1.0  # in Optax's mean a NaN is passed on to the next one

    def build() -> Any:
        plateau = optax.contrib.reduce_on_plateau(
            0.5, 3, rtol=0.01, cooldown=2, accumulation_size=size, min_scale=1 / 16
        )
        return optax.chain(optax.adam(0.1, eps=1e-6), plateau)

    theirs = run_optax(build, {}, params, grads, value=jnp.asarray(values, jnp.float64))
    link = cx.reduce_on_plateau(0.5, 2.0, 0.01, 2.0, min_scale=1 / 16, accumulation_size=float(size))
    tx = cx.chain(cx.scale_by_adam(eps=1e-6), link, cx.scale_by_lr(0.1))

    @jax.jit
    def train(params: Any, grads: Any, values: Any) -> Any:
        def step(carry: tuple, given: tuple) -> tuple:
            p, state = tx.step(*carry, given[0], value=given[1])
            return (p, state), p

        return jax.lax.scan(step, (params, tx.init(params)), (grads, values))

    (_, state), ours = train(params, grads, values)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), ours, theirs)
    assert float(state.links["reduce_on_plateau"]["scale"]) < 1.0
    with pytest.raises(AssertionError):
        check_run(cx.adam(0.1, eps=1e-6), params, grads, theirs)
