"""NorMuon, AdaMuon and AdaGO against pytorch_optimizer and NumPy, and what they make equal."""

import importlib
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import pytorch_optimizer
from matrix_reference import JORDAN, matrix_problem, run_turned, through_svd, torch_iterations
from reference import check_run, log, run, run_numpy, settings, uniform

RANGES = {
    "learning_rate": log(1e-3, 1e-1),
    "momentum": uniform(0.0, 0.99),
    "b2": uniform(0.5, 0.99),
    "weight_decay": log(1e-3, 1.0),
    "eps_rms": log(1e-10, 1e-1),
}
SIZINGS = (("spectral", False), ("rms", True))


def run_theirs(monkeypatch: pytest.MonkeyPatch, name: str, params: Any, grads: Any, **given: Any) -> Any:
    """The trajectory by pytorch_optimizer in float64, whose own iterations are in bfloat16; an ε of 1e-7 is added."""
    library = pytorch_optimizer()
    module = importlib.import_module(f"pytorch_optimizer.optimizer.muon.{name.lower()}")
    monkeypatch.setattr(module, "zero_power_via_newton_schulz_5", torch_iterations(1e-7))
    new = getattr(library, name)
    return run_turned(lambda groups: new(groups, foreach=False, **given), params, grads, use_muon=True)


@pytest.mark.parametrize("nesterov", (True, False))
@pytest.mark.parametrize(("sizing", "adjusted"), SIZINGS)
def test_normuon_agrees_with_pytorch_optimizer(
    nesterov: bool, sizing: str, adjusted: bool, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hyperparameter; a number is kept for each output, a row of PyTorch's matrices."""
    for i, hyper in enumerate(settings(RANGES, count=5)):
        params, grads = matrix_problem(seed=i)
        given = {"lr": hyper["learning_rate"], "beta2": hyper["b2"], "eps": hyper["eps_rms"], "nesterov": nesterov}
        given |= {n: hyper[n] for n in ("momentum", "weight_decay")}
        expected = run_theirs(monkeypatch, "NorMuon", params, grads, **given, use_adjusted_lr=adjusted)
        eps = hyper.pop("eps_rms")
        tx = cx.normuon(**hyper, nesterov=nesterov, sizing=sizing).replace("scale_by_normuon", eps_rms=eps)
        check_run(tx, params, grads, expected)


@pytest.mark.parametrize(("sizing", "adjusted"), SIZINGS)
def test_adamuon_agrees_with_pytorch_optimizer(
    sizing: str, adjusted: bool, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hyperparameter."""
    for i, hyper in enumerate(settings(RANGES, count=5)):
        params, grads = matrix_problem(seed=i)
        given = {"lr": hyper["learning_rate"], "eps": hyper["eps_rms"], "weight_decay": hyper["weight_decay"]}
        given |= {"betas": (hyper["momentum"], hyper["b2"]), "use_adjusted_lr": adjusted}
        expected = run_theirs(monkeypatch, "AdaMuon", params, grads, **given)
        eps = hyper.pop("eps_rms")
        tx = cx.adamuon(**hyper, sizing=sizing).replace("scale_by_adamuon", eps_rms=eps)
        check_run(tx, params, grads, expected)


def adago(theta: Any, g: Any, t: int, memory: Any, **h: Any) -> Any:
    """Zhang et al. 2025, Algorithm 1, with decoupled decay; its ε is αc."""
    m = memory["m"] = h["momentum"] * memory.get("m", 0.0) + (1 - h["momentum"]) * g
    s = min(np.linalg.norm(g), h["gamma"])
    v = memory["v"] = memory.get("v", 1e-12) + s**2
    size = max(h["learning_rate"] * h["floor"], h["learning_rate"] * s / np.sqrt(v))
    theta = theta * (1 - h["learning_rate"] * h["weight_decay"])
    return theta - size * through_svd(m, JORDAN)


def test_adago_agrees_with_numpy(x64: None) -> None:
    """Every hyperparameter, where the bounds hold and where not. pytorch_optimizer divides by v for its root."""
    ranges = {n: RANGES[n] for n in ("learning_rate", "momentum", "weight_decay")}
    ranges |= {"gamma": log(1.0, 30.0), "floor": log(0.03, 0.3)}
    for i, hyper in enumerate(settings(ranges, count=5)):
        params, grads = matrix_problem(seed=i)
        check_run(cx.adago(**hyper), params, grads, run_numpy(adago, params, grads, **hyper))


# What they make equal


def updates_of(link: Any, shape: tuple[int, int], steps: int = 40) -> np.ndarray:
    """The last update by ill-scaled random gradients."""
    rng = np.random.default_rng(0)
    size = np.logspace(-2, 1, shape[1]) * np.logspace(-1, 1, shape[0])[:, None]
    u = jnp.zeros(shape)
    state, update = link.init(u), jax.jit(link.update)
    for _ in range(steps):
        u, state = update(jnp.asarray(rng.normal(size=shape) * size, jnp.float32), state)
    return np.asarray(u)


def test_normuon_makes_outputs_equal() -> None:
    """With β₂ = 0, the columns of an update have one norm, and all of it that of Muon's; Muon's have not."""
    plain = updates_of(cx.scale_by_muon(iteration=cx.newton_schulz()), (4, 9))
    equal = updates_of(cx.scale_by_normuon(b2=0.0), (4, 9))
    by_output = np.linalg.norm(equal, axis=0)
    np.testing.assert_allclose(by_output, by_output.mean(), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(equal), np.linalg.norm(plain), rtol=1e-5)
    assert np.ptp(np.linalg.norm(plain, axis=0)) > 0.1


def test_adamuon_has_the_size_of_adam() -> None:
    """The root mean square of an update is 0.2, whatever the shape."""
    for shape in ((4, 9), (8, 3)):
        u = updates_of(cx.scale_by_adamuon(), shape, steps=3)
        np.testing.assert_allclose(np.sqrt(np.mean(u**2)), 0.2, rtol=1e-5)


def test_second_version_of_adamuon(x64: None) -> None:
    """It orthogonalizes the sign of the momentum: a chain."""

    def second(theta: Any, g: Any, t: int, memory: Any) -> Any:
        m = memory["m"] = 0.95 * memory.get("m", 0.0) + 0.05 * g
        X = through_svd(np.sign(m), JORDAN)
        v = memory["v"] = 0.95 * memory.get("v", 0.0) + 0.05 * X**2
        w = X / (np.sqrt(v / (1 - 0.95**t)) + 1e-4)
        return theta - 0.1 * 0.2 * np.sqrt(w.size) * w / (np.linalg.norm(w) + 1e-4)

    params, grads = matrix_problem(seed=0)
    link = cx.scale_by_adamuon(momentum=0.0, eps_rms=1e-4)
    tx = cx.chain(cx.ema(0.95), cx.scale_by_sign(), link, cx.scale_by_lr(0.1))
    check_run(tx, params, grads, run_numpy(second, params, grads))


def test_state() -> None:
    """A number for each output, each entry, or each matrix."""
    p = {"layers": jnp.zeros((6, 4, 3))}
    for link, shape in (
        (cx.scale_by_normuon(matrices="_layer in, out"), (6, 3)),
        (cx.scale_by_adamuon(matrices="_layer in, out"), (6, 4, 3)),
        (cx.scale_by_adago(matrices="_layer in, out"), (6,)),
    ):
        (slots,) = link.init(p).links.values()
        assert slots["nu"]["layers"].shape == shape


def test_no_gradient_no_step() -> None:
    """Zeros, before and after others, and with momentum 0: no NaN."""
    zeros = np.zeros((5, 4, 3), np.float32)
    grads = {"w": np.concatenate([zeros, np.ones_like(zeros), zeros])}
    for link in (cx.scale_by_normuon(0.0), cx.scale_by_adamuon(0.0), cx.scale_by_adago(0.0)):
        u = run(cx.chain(link, cx.scale_by_lr(1.0)), {"w": zeros[0]}, grads, np.float32)["w"]
        assert np.all(u[:5] == 0)
        assert np.all(np.isfinite(u))
        assert np.all(u[-1] == u[9])
        assert np.any(u[9] != 0)
