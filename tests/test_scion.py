"""Scion's oracles against pytorch_optimizer and HeavyBall, and that they are oracles."""

import importlib
from typing import Any

import chainax as cx
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import pytorch_optimizer
from matrix_reference import NANOGPT, matrix_problem, run_turned, torch_iterations
from reference import Tree, check_run, log, problem, run, settings, uniform

RANGES = {
    "learning_rate": log(1e-3, 1e-1),
    "momentum": uniform(0.0, 0.99),
    "radius": log(0.1, 10.0),
    "eps": log(1e-8, 1e-2),
}
THEIRS = {"spectral": "SPECTRAL", "columns": "ROW", "rows": "COL", "sign": "SIGN"}


def run_theirs(monkeypatch: pytest.MonkeyPatch, name: str, norm: str, params: Tree, grads: Tree, **given: Any) -> Tree:
    """The trajectory by pytorch_optimizer in float64, with its ε and that of its iterations."""
    library, eps = pytorch_optimizer(), given.pop("eps")
    module = importlib.import_module("pytorch_optimizer.optimizer.scion")
    monkeypatch.setattr(module, "zero_power_via_newton_schulz_5", torch_iterations(eps))
    for kind in (module.Col, module.Row):
        monkeypatch.setattr(kind.lmo, "__defaults__", (eps,))
    renamed = {"lr": given["learning_rate"], "momentum": 1 - given["momentum"], "scale": given["radius"]}
    kind, new = getattr(module.LMONorm, THEIRS[norm]), getattr(library, name)
    settings = {"constraint": given["constrained"], "norm_type": kind, "foreach": False}
    return run_turned(lambda groups: new(groups, **renamed, **settings), params, grads)


def ours(norm: str, hyper: Any, constrained: bool) -> cx.chain:
    """The chain `scion` with another norm."""
    eps = {"eps": hyper["eps"]}
    tx = cx.scion(constrained=constrained, **{n: x for n, x in hyper.items() if n != "eps"})
    return tx.replace("scale_by_lmo", norm=norm, **eps)


@pytest.mark.parametrize("norm", THEIRS)
def test_agrees_with_pytorch_optimizer(norm: str, x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hyperparameter, constrained and not. Its matrices, and so its rows and columns, are transposed."""
    for i, hyper in enumerate(settings(RANGES, count=5)):
        params, grads = matrix_problem(seed=i)
        given = {**hyper, "constrained": i % 2 == 0}
        expected = run_theirs(monkeypatch, "SCION", norm, params, grads, **given)
        check_run(ours(norm, hyper, given["constrained"]), params, grads, expected)


def test_biases_agree_with_pytorch_optimizer(x64: None) -> None:
    """A vector is one row, whose root mean square becomes the radius."""
    library = pytorch_optimizer()
    for i, hyper in enumerate(settings(RANGES, count=5)):
        params, grads = problem(i, {"bias": (1, 6)})
        renamed = {"lr": hyper["learning_rate"], "momentum": 1 - hyper["momentum"], "scale": hyper["radius"]}

        def new(groups: Any, renamed: Any = renamed) -> Any:
            return library.SCION(groups, **renamed, constraint=True, norm_type=5, foreach=False)

        expected = run_turned(new, params, grads)
        flat = {"bias": params["bias"][0]}, {"bias": grads["bias"][:, 0]}
        hyper["eps"] = 1e-8
        tx = ours("rows", hyper, True).replace("scale_by_lmo", matrices=", out")
        check_run(tx, *flat, {"bias": expected["bias"][:, 0]})


def test_scion_light_is_the_same_up_to_eps(x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps a sum in the gradient's memory for the mean, and the oracles do not see the difference.

    It never lets go of its own memory, so the test adds gradients to it as a backward pass does.
    """
    library = pytorch_optimizer()
    params, grads = problem(0, {"w": (4, 6)})
    module = importlib.import_module("pytorch_optimizer.optimizer.scion")
    monkeypatch.setattr(module, "zero_power_via_newton_schulz_5", torch_iterations(0.0))
    torch = pytest.importorskip("torch")
    p = torch.nn.Parameter(torch.tensor(params["w"].T.copy()))
    p.grad = torch.zeros_like(p)
    opt, expected = library.SCIONLight([p], lr=0.1, momentum=0.2, scale=3.0, constraint=True, norm_type=2), []
    for g in grads["w"]:
        p.grad.add_(torch.tensor(g.T.copy()))
        opt.step()
        expected.append(p.detach().numpy().T.copy())
    tx = cx.scion(0.1, momentum=0.8, radius=3.0).replace("scale_by_lmo", eps=0.0)
    check_run(tx, params, grads, {"w": np.stack(expected)})


def test_agrees_with_heavyball(x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its unconstrained form, with other coefficients and a corrected bias, which the oracle does not see.

    It draws the parameters anew at the first step, orthogonal: the test leaves them as they are.
    """
    library = pytest.importorskip("heavyball")
    monkeypatch.setattr(library.utils, "compile_mode", None)
    monkeypatch.setattr(library.utils, "zeropower_via_newtonschulz5", torch_iterations(0.0, NANOGPT))
    monkeypatch.setattr(library.utils, "scion_auto_init_param_", lambda *_, **__: None)
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        params, grads = matrix_problem(seed=0)
        expected = run_turned(
            lambda groups: library.Scion(groups, lr=0.03, betas=(0.8,), scale=2.0, storage_dtype="float64"),
            params,
            grads,
        )
    finally:
        torch.set_default_dtype(before)
    iteration = cx.newton_schulz(5, NANOGPT)
    tx = cx.scion(0.03, momentum=0.8, radius=2.0, constrained=False, iteration=iteration)
    check_run(tx.replace("scale_by_lmo", eps=0.0), params, grads, expected)


# Properties


def size(norm: str, W: np.ndarray) -> float:
    """The norm of a matrix, inputs by outputs: the most that inputs of size 1 become. Pethick et al. 2025, Table 2."""
    m, n = W.shape
    if norm == "spectral":  # from RMS to RMS
        return float(np.linalg.norm(W, 2) * np.sqrt(m / n))
    if norm == "rows":  # from one-hot inputs to RMS
        return float(np.max(np.linalg.norm(W, axis=1)) / np.sqrt(n))
    if norm == "columns":  # from RMS to the largest output
        return float(np.max(np.linalg.norm(W, axis=0)) * np.sqrt(m))
    return float(np.max(np.abs(W)) * m)  # from one input of size m to the largest output


@pytest.mark.parametrize("norm", THEIRS)
@pytest.mark.parametrize("shape", ((4, 9), (8, 3)), ids=str)
def test_nothing_in_the_ball_goes_farther(norm: str, shape: tuple[int, int], x64: None) -> None:
    """The result is on the boundary, and no point of the ball has a larger inner product with the update."""
    rng = np.random.default_rng(0)
    g = rng.normal(size=shape)
    link = cx.scale_by_lmo(norm, 2.0, 0.0, cx.polar_express(12))
    u = np.asarray(link.update(jnp.asarray(g), link.init(jnp.asarray(g)))[0])
    np.testing.assert_allclose(size(norm, u), 2.0, rtol=1e-6)
    best = np.sum(g * u)
    for kind in ("near", "far") * 20:
        other = rng.normal(size=shape) + (u * 10 if kind == "near" else 0)
        other *= 2.0 / size(norm, other)
        assert np.sum(g * other) < best


def test_constrained_parameters_stay_in_the_ball() -> None:
    """With the decay of 1, whatever the gradients; without it they leave."""
    params, grads = problem(0, {"w": (4, 6)})
    start = {"w": params["w"] * 0}
    iteration = cx.polar_express(10)
    inside, outside = (
        run(cx.scion(0.5, radius=2.0, constrained=c, iteration=iteration), start, grads, np.float32)["w"]
        for c in (True, False)
    )
    assert max(size("spectral", W) for W in inside) < 2.01
    assert max(size("spectral", W) for W in outside) > 3


@pytest.mark.parametrize("norm", THEIRS)
def test_numbers_without_squares(norm: str) -> None:
    """Zeros stay zeros, and squares do not overflow."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    link = cx.scale_by_lmo(norm, eps=0.0 if norm == "sign" else 1e-8)
    plain, huge, none = (link.update(x, link.init(x))[0] for x in (g, g * 1e25, g * 0))
    np.testing.assert_allclose(huge, plain, atol=1e-5)
    assert np.all(none == 0)


def test_oracles_by_path() -> None:
    """A head and a bias with oracles of their own share momentum, decay and rate."""
    oracles = cx.by_path({"head": cx.scale_by_lmo("sign", 3.0), "bias": cx.scale_by_lmo("rows", matrices=", out")})
    tx = cx.scion(0.1, oracles=oracles)
    params = {"kernel": jnp.zeros((4, 4)), "head": jnp.zeros((4, 2)), "bias": jnp.zeros(4)}
    grads = {"kernel": jnp.eye(4), "head": jnp.ones((4, 2)), "bias": jnp.array([3.0, 0.0, -4.0, 0.0])}
    moved, _ = tx.step(params, tx.init(params), grads)
    np.testing.assert_allclose(moved["head"], -0.1 * 3 / 4, rtol=1e-6)
    np.testing.assert_allclose(moved["bias"], -0.1 * np.array([1.2, 0, -1.6, 0]), rtol=1e-5, atol=1e-8)
    assert np.all(np.abs(np.diag(moved["kernel"]) + 5) < 2)


def test_bad_norm() -> None:
    """The field and what is accepted."""
    with pytest.raises(ValueError, match=r"`scale_by_lmo.norm` must be one of 'spectral', 'rows', 'columns', 'sign'"):
        cx.scale_by_lmo("nuclear")
