"""D-Adaptation and Prodigy against the papers in NumPy, pytorch_optimizer and Optax."""

import warnings
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from libraries import run_optax, run_pytorch_optimizer
from reference import STEPS, Tree, assert_agree, check_run, distance, log, problem, run, settings, uniform
from test_distance import exact

RATE = {"learning_rate": log(0.3, 1.0), "estim_lr0": exact(log(1e-4, 1e-3))}
ADAM = {**RATE, "b1": uniform(0.0, 0.99), "b2": uniform(0.9, 0.999), "eps": log(1e-8, 1e-2)}
DECAY = {"weight_decay": log(1e-3, 1e-1)}


def swinging(seed: int) -> tuple[Tree, Tree]:
    """The problem with gradients that turn: on a slope without an end the estimate would grow without one."""
    params, grads = problem(seed)
    turn = np.cos(np.arange(STEPS) / 20)
    return params, {n: g * turn.reshape(-1, *(1 for _ in params[n].shape)) for n, g in grads.items()}


def flat(tree: Tree) -> np.ndarray:
    """A tree, or a stack of trees, as one vector."""
    return np.concatenate([np.reshape(x, -1) for x in tree.values()])


def numpy_run(rule: Callable[..., Any], params: Tree, grads: Tree, **hyper: Any) -> tuple[Tree, list[float]]:
    """The trajectory of ``rule(x, g, memory, **hyper) -> x`` on all parameters as one vector, and that of d."""
    x, memory = flat(params), {"d": hyper.pop("estim_lr0")}
    points, estimates = [], []
    for t in range(STEPS):
        x = rule(x, flat({n: g[t] for n, g in grads.items()}), memory, **hyper)
        points.append(x)
        estimates.append(memory["d"])
    parts = np.split(np.stack(points), np.cumsum([p.size for p in params.values()])[:-1], axis=1)
    return {n: v.reshape(STEPS, *p.shape) for (n, p), v in zip(params.items(), parts)}, estimates


def dadapt_sgd(x: Any, g: Any, k: dict, learning_rate: float, momentum: float) -> Any:
    """Algorithm 4 of the paper, with z and the sum over all steps as they stand there."""
    k.setdefault("G", np.linalg.norm(g))
    s, z, d = k.get("s", 0 * x), k.get("z", x), k["d"]
    rate = d * learning_rate / k["G"]
    k["sum"] = k.get("sum", 0.0) + rate * np.dot(g, s)
    k["s"], k["z"] = s + rate * g, z - rate * g
    k["d"] = max(d, 2 * k["sum"] / np.linalg.norm(k["s"]))
    return momentum * x + (1 - momentum) * k["z"]


def dadapt_adam(
    x: Any, g: Any, k: dict, learning_rate: float, b1: float, b2: float, eps: float, weight_decay: float
) -> Any:
    """Algorithm 5 of the paper."""
    d, b3 = k["d"], np.sqrt(b2)
    rate, s = d * learning_rate, k.get("s", 0 * x)
    k["m"] = b1 * k.get("m", 0.0) + (1 - b1) * rate * g
    k["v"] = b2 * k.get("v", 0.0) + (1 - b2) * g**2
    A = np.sqrt(k["v"]) + eps
    k["r"] = b3 * k.get("r", 0.0) + (1 - b3) * rate * np.sum(g * s / A)
    k["s"] = b3 * s + (1 - b3) * rate * g
    k["d"] = max(d, k["r"] / ((1 - b3) * np.sum(np.abs(k["s"]))))
    return x - weight_decay * rate * x - k["m"] / A


def prodigy(
    x: Any, g: Any, k: dict, learning_rate: float, b1: float, b2: float, eps: float, weight_decay: float
) -> Any:
    """Algorithm 4 of the paper."""
    d, b3 = k["d"], np.sqrt(b2)
    k.setdefault("x0", x)
    k["m"] = b1 * k.get("m", 0.0) + (1 - b1) * d * g
    k["v"] = b2 * k.get("v", 0.0) + (1 - b2) * d**2 * g**2
    k["r"] = b3 * k.get("r", 0.0) + (1 - b3) * learning_rate * d**2 * np.dot(g, k["x0"] - x)
    k["s"] = b3 * k.get("s", 0.0) + (1 - b3) * learning_rate * d**2 * g
    k["d"] = max(d, k["r"] / np.sum(np.abs(k["s"])))
    return x - weight_decay * learning_rate * d * x - learning_rate * d * k["m"] / (np.sqrt(k["v"]) + d * eps)


PAPERS: dict[str, tuple[Callable[..., cx.chain], Callable[..., Any], dict[str, Any]]] = {
    "dadapt_sgd": (cx.dadapt_sgd, dadapt_sgd, {**RATE, "momentum": uniform(0.0, 0.99)}),
    "dadapt_adamw": (cx.dadapt_adamw, dadapt_adam, {**ADAM, **DECAY}),
    "prodigy": (cx.prodigy, prodigy, {**ADAM, **DECAY}),
}


@pytest.mark.parametrize("name", PAPERS)
def test_agrees_with_the_paper(name: str, x64: None) -> None:
    """Libraries depart from both Adams: Optax takes another metric, and all have another d in ε's place.

    The estimate must have grown, or the half of the algorithm that makes it would not be tested.
    """
    ours, rule, ranges = PAPERS[name]
    for i, hyper in enumerate(settings(ranges, 5)):
        params, grads = swinging(seed=i)
        expected, estimates = numpy_run(rule, params, grads, **hyper)
        assert estimates[-1] > 1.1 * hyper["estim_lr0"]
        check_run(ours(**hyper), params, grads, expected, constant_too=i == 0)


def no_zeros(grads: Tree) -> Tree:
    """Gradients for an ε of nothing, with which 0/√0 is NaN."""
    return {n: np.where(g == 0, 0.125, g) for n, g in grads.items()}


def optax_prodigy(b1: Any, b2: Any, b3: Any, **hyper: Any) -> Any:
    """Prodigy by Optax's names."""
    return optax.contrib.prodigy(betas=(b1, b2), beta3=b3, **hyper)


def optax_prodigy_safe(**hyper: Any) -> Any:
    """The same, with the safeguard."""
    return optax_prodigy(**hyper, safeguard_warmup=True)


@pytest.mark.parametrize("safe", (False, True))
def test_prodigy_agrees_with_optax(safe: bool, x64: None) -> None:
    """Which always corrects bias, and with an ε so small that it does not matter which d multiplies it."""
    ranges = {**ADAM, **DECAY, "b3": uniform(0.5, 0.99), "estim_lr_coef": uniform(0.5, 2.0), "eps": lambda _: 1e-30}
    for i, hyper in enumerate(settings(ranges, 5)):
        params, grads = swinging(seed=i)
        grads = no_zeros(grads)
        expected = run_optax(optax_prodigy_safe if safe else optax_prodigy, hyper, params, grads)
        check_run(cx.prodigy(**hyper, debias=True, safeguard_warmup=safe), params, grads, expected)


def from_pytorch_optimizer(name: str, params: Tree, grads: Tree, **hyper: Any) -> Tree:
    """The trajectory of one of its optimizers, whose sums have torch's default dtype."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("pytorch_optimizer")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return run_pytorch_optimizer(
            lambda groups: getattr(library, name)(groups, foreach=False, **hyper), params, grads
        )
    finally:
        torch.set_default_dtype(before)


def test_dadapt_sgd_agrees_with_pytorch_optimizer(x64: None) -> None:
    """Its norm of the first gradient is in float32: here 2.5, which is exact there."""
    for i, hyper in enumerate(settings({**RATE, "momentum": uniform(0.0, 0.99)}, 3)):
        params, grads = swinging(seed=i)
        first = np.split(np.where(np.arange(30) < 25, 0.5, 0.0), np.cumsum([p.size for p in params.values()])[:-1])
        for g, x in zip(grads.values(), first):
            g[0] = x.reshape(g[0].shape)
        given = {"lr": hyper["learning_rate"], "d0": hyper["estim_lr0"], "momentum": hyper["momentum"]}
        check_run(cx.dadapt_sgd(**hyper), params, grads, from_pytorch_optimizer("DAdaptSGD", params, grads, **given))


def test_prodigy_agrees_with_pytorch_optimizer(x64: None) -> None:
    """Without bias correction, with its names, and with an ε that hardly matters."""
    ranges = {**ADAM, **DECAY, "estim_lr_coef": uniform(0.5, 2.0), "eps": lambda _: 1e-30}
    for i, h in enumerate(settings(ranges, 3)):
        params, grads = swinging(seed=i)
        grads = no_zeros(grads)
        given = {"lr": h["learning_rate"], "betas": (h["b1"], h["b2"]), "d0": h["estim_lr0"], "eps": h["eps"]}
        given |= {"d_coef": h["estim_lr_coef"], "weight_decay": h["weight_decay"]}
        check_run(cx.prodigy(**h), params, grads, from_pytorch_optimizer("Prodigy", params, grads, **given))


def test_bias_correction_multiplies_the_rate(x64: None) -> None:
    """√(1−β₂ᵗ)/(1−β₁ᵗ): a schedule of the learning rate does the same."""
    params, grads = swinging(seed=0)
    h = {"b1": 0.8, "b2": 0.99, "estim_lr0": 0.5**10}
    rate = cx.bias_corrected_schedule(1.0, h["b1"], h["b2"])
    for build in (cx.dadapt_adamw, cx.prodigy):
        ours, theirs = build(**h, debias=True), build(rate, **h)
        assert_agree(run(ours, params, grads), run(theirs, params, grads), 1e-9)
        assert distance(run(ours, params, grads), run(build(**h), params, grads)) > 1e-6


@pytest.mark.parametrize("tx", (cx.dadapt_sgd(0.1), cx.dadapt_adamw(0.1), cx.prodigy(0.1)), ids=repr)
def test_a_large_leaf_without_gradient_does_not_raise_the_estimate(tx: cx.chain) -> None:
    """On a slope, r/‖s‖ of a leaf of one number alone would be some 30 or 1000 times as large."""
    params = {"large": jnp.ones(1000), "small": jnp.ones(1)}

    def step(carry: tuple, _: None) -> tuple:
        return tx.step(*carry, params), None

    p, state = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, 50)[0])(params)
    _, after = tx.step(p, state, {**params, "large": None})
    before, now = (s.links[tx.names[0]]["estimate"] for s in (state, after))
    assert before > 10e-6
    np.testing.assert_allclose(now, before, rtol=0.03)


@pytest.mark.parametrize("tx", (cx.dadapt_sgd(), cx.dadapt_adamw(), cx.prodigy()), ids=repr)
def test_the_estimate_finds_the_distance(tx: cx.chain) -> None:
    """On |x| it grows from 1e-6 to the distance of 50, up to a small factor, and never falls."""

    def step(carry: tuple, _: None) -> tuple:
        x, state = tx.step(*carry, jnp.sign(carry[0]))
        return (x, state), (x, state.links[tx.names[0]]["estimate"])

    start = jnp.array(50.0)
    points, estimates = jax.jit(lambda x: jax.lax.scan(step, (x, tx.init(x)), None, 2000)[1])(start)
    assert jnp.all(jnp.diff(estimates) >= 0)
    assert 5 < estimates[-1] < 500
    assert jnp.min(jnp.abs(points)) < 5
