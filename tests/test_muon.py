"""Muon against PyTorch and Optax, in float64 and as shipped; the prebuilt chains of matrix links."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chainax.core.values.other_libraries import OTHER_LIBRARIES
from libraries import run_optax
from matrix_reference import NANOGPT, SHAPES, matrix_problem, run_turned, torch_iterations, turned
from reference import STEPS, assert_agree, check_run, log, problem, run, settings, uniform

RANGES = {
    "learning_rate": log(1e-3, 1e-1),
    "momentum": uniform(0.0, 0.99),
    "weight_decay": log(1e-3, 1.0),
    "eps": log(1e-8, 1e-1),
}


def run_torch_muon(monkeypatch: pytest.MonkeyPatch, params: Any, grads: Any, eps: float, **given: Any) -> Any:
    """``torch.optim.Muon`` in float64. It bounds the norm by ε from below, where Jordan's code and Optax add it."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", torch_iterations(eps))
    given["lr"] = given.pop("learning_rate")
    return run_turned(lambda groups: torch.optim.Muon(groups, **given), params, grads)


@pytest.mark.parametrize("nesterov", (True, False))
@pytest.mark.parametrize(("sizing", "theirs"), (("spectral", "original"), ("rms", "match_rms_adamw")))
def test_agrees_with_torch(
    nesterov: bool, sizing: str, theirs: str, x64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hyperparameter, on the transposed matrices."""
    for i, hyper in enumerate(settings(RANGES, count=5)):
        params, grads = matrix_problem(seed=i)
        expected = run_torch_muon(monkeypatch, params, grads, nesterov=nesterov, adjust_lr_fn=theirs, **hyper)
        check_run(cx.muon(**hyper, nesterov=nesterov, sizing=sizing), params, grads, expected)


@pytest.mark.parametrize("nesterov", (True, False))
def test_agrees_with_optax(nesterov: bool, x64: None) -> None:
    """Optax corrects the bias of the momentum, and with Nesterov's that of the gradient too, at another step."""
    numbers = {n: optax.contrib.MuonDimensionNumbers() for n in SHAPES}

    def theirs(learning_rate: Any, momentum: Any, eps: Any) -> Any:
        muon = optax.contrib.scale_by_muon(beta=momentum, eps=eps, nesterov=nesterov, weight_dimension_numbers=numbers)
        return optax.chain(muon, optax.scale(-learning_rate))

    for i, hyper in enumerate(settings({n: RANGES[n] for n in ("learning_rate", "momentum", "eps")}, count=5)):
        params, grads = matrix_problem(seed=i)
        link = cx.scale_by_muon(hyper["momentum"], hyper["eps"], nesterov, debias=True, sizing="none")
        tx = cx.chain(link, cx.scale_by_lr(hyper["learning_rate"]))
        check_run(tx, params, grads, run_optax(theirs, hyper, params, grads))


def test_what_stands_for_the_muon_of_optax(x64: None) -> None:
    """The row of the table, also for parameters that are no matrices."""
    params, grads = problem(seed=0, shapes={**SHAPES, "bias": (3,), "scalar": (), "kernel": (2, 3, 4)})
    theirs = run_optax(optax.contrib.muon, {"learning_rate": 1e-3}, params, grads)
    check_run(eval(OTHER_LIBRARIES["optax.contrib"]["muon"].strip("`"), {"cx": cx}), params, grads, theirs)


@pytest.mark.parametrize("name", ("muon", "normuon", "adamuon"))
def test_the_correction_of_the_bias(name: str) -> None:
    """The argument is the link's."""
    make = getattr(cx, name)
    assert [make(**given)[f"scale_by_{name}"].debias for given in ({}, {"debias": True})] == [False, True]


def test_as_shipped_by_torch() -> None:
    """With its iterations in bfloat16, on matrices of 50 to 80 rows: within a percent of the way travelled."""
    torch = pytest.importorskip("torch")
    start, grads = problem(0, {"wide": (50, 80), "square": (60, 60), "tall": (80, 50)})
    tx = cx.muon(0.02, dtype="bfloat16")
    params: Any = jax.tree.map(jnp.float32, start)
    state, step = tx.init(params), jax.jit(tx.step)
    theirs = {n: torch.tensor(x, dtype=torch.float32, requires_grad=True) for n, x in turned(start).items()}
    optimizer = torch.optim.Muon([*theirs.values()], lr=0.02)
    for i in range(20):  # torch takes half a second for each
        g = {n: x[i].astype(np.float32) for n, x in grads.items()}
        params, state = step(params, state, g)
        for n, x in turned(g).items():
            theirs[n].grad = torch.tensor(x)
        optimizer.step()
    for n, x in start.items():
        other = theirs[n].detach().numpy().T
        way = np.linalg.norm(other - x)
        assert way > 1
        assert np.linalg.norm(params[n] - other) < 0.01 * way


@pytest.mark.parametrize(("sizing", "factor"), (("none", 1.0), ("mup", 0.5), ("spectral", 1.0), ("rms", 0.8)))
def test_sizes(sizing: str, factor: float) -> None:
    """Of a matrix of 16 inputs and 4 outputs, in PyTorch 4 × 16; and PyTorch's layout gives the same."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4)), jnp.float32)
    tx = cx.orthogonalize(0.0, cx.polar_express(8), sizing)
    u, _ = tx.update(g, tx.init(g))
    np.testing.assert_allclose(np.linalg.svd(u, compute_uv=False), factor, rtol=1e-3)
    swapped = tx.replace(matrices="out, in")
    np.testing.assert_allclose(swapped.update(g.T, swapped.init(g.T))[0].T, u, atol=1e-5)


def test_without_momentum_it_orthogonalizes(x64: None) -> None:
    """``orthogonalize`` is Muon with β = 0, and keeps nothing."""
    params, grads = matrix_problem(seed=0)
    muon = run(cx.chain(cx.scale_by_muon(0.0), cx.scale_by_lr(0.1)), params, grads)
    assert_agree(run(cx.chain(cx.orthogonalize(), cx.scale_by_lr(0.1)), params, grads), muon, 1e-12)
    assert not jax.tree.leaves(cx.orthogonalize().init(params).links)


# HeavyBall's chains


def heavyball(monkeypatch: pytest.MonkeyPatch, name: str, params: Any, grads: Any, **given: Any) -> Any:
    """The trajectory of an optimizer of HeavyBall, uncompiled and in float64, where ε is added to the root."""
    library = pytest.importorskip("heavyball")
    monkeypatch.setattr(library.utils, "compile_mode", None)
    monkeypatch.setattr(library.utils, "zeropower_via_newtonschulz5", torch_iterations(1e-7, NANOGPT))
    monkeypatch.setattr(library.utils, "eps_sqrt", lambda v, eps: v.sqrt() + eps)
    given["lr"] = given.pop("learning_rate")
    given["betas"] = given.pop("b1"), given.pop("b2")
    torch, new = pytest.importorskip("torch"), getattr(library, name)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the rate has it
    try:
        return run_turned(lambda groups: new(groups, eps=0.0, storage_dtype="float64", **given), params, grads)
    finally:
        torch.set_default_dtype(before)


HEAVYBALL = {"learning_rate": log(1e-3, 1e-1), "b1": uniform(0.5, 0.99), "b2": uniform(0.5, 0.99)}
CHAINS = {
    "MuonLaProp": (cx.orthogonalize(iteration=cx.newton_schulz(5, NANOGPT)), 1),
    "OrthoLaProp": (cx.orthogonal_grad(), 0),
    "LaPropOrtho": (cx.orthogonal_grad(), 1),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_heavyball(name: str, x64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """LaProp with an orthogonalization of its output, or an orthogonal gradient before it or behind it."""
    link, place = CHAINS[name]
    for i, hyper in enumerate(settings(HEAVYBALL, count=2)):
        params, grads = matrix_problem(seed=i)
        links = [cx.scale_by_laprop(hyper["b1"], hyper["b2"])]
        links.insert(place, link)
        expected = heavyball(monkeypatch, name, params, grads, **hyper)
        check_run(cx.chain(*links, cx.scale_by_lr(hyper["learning_rate"])), params, grads, expected)


# Prebuilt chains


def test_parameters_that_are_no_matrices() -> None:
    """They need a chain of their own, and the error says which and how."""
    params = {"embed": jnp.ones((5, 3)), "kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    for make in (cx.muon, cx.dion):
        tx = make(0.1, adam=cx.by_path({"embed": cx.adamw(1e-3), "bias": cx.sgd(0.5)}))
        moved, _ = tx.step(params, tx.init(params), jax.tree.map(jnp.ones_like, params))
        np.testing.assert_allclose(moved["bias"], 0.5)
        with pytest.raises(TypeError, match=r"transforms matrices, and 'bias', float32\[2\], has 1 axes") as caught:
            make(0.1, adam=cx.by_path({"embed": cx.adamw(1e-3)})).init(params)
        assert "partition(by_path({'bias': adamw(...)}, default=...))" in str(caught.value)


def test_bad_tables_of_chains() -> None:
    """A table with a default would leave nothing to the matrix link."""
    with pytest.raises(ValueError, match=r"`muon.adam` must be by_path.*chains by pattern without a default, got 3"):
        cx.muon(adam=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"`scion.oracles` must be by_path"):
        cx.scion(0.1, oracles=cx.by_path({"bias": cx.scale_by_sign()}, default=cx.scale_by_sign()))


def test_defaults_of_torch() -> None:
    """A rate of 1e-3 and a decay of 0.1."""
    torch = pytest.importorskip("torch")
    defaults = torch.optim.Muon([torch.nn.Parameter(torch.zeros(2, 2))]).defaults
    muon = cx.muon()
    assert vars(muon["scale_by_lr"])["learning_rate"] == defaults["lr"]
    assert vars(muon["add_decayed_weights"])["weight_decay"] == defaults["weight_decay"]
    assert vars(muon["scale_by_muon"])["momentum"] == defaults["momentum"]
    assert STEPS >= 60
