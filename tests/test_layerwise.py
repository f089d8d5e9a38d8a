"""LARS, LAMB and Fromage against Optax and pytorch_optimizer; what their steps leave as it was."""

from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from agreement import check_against_optax, check_against_pytorch_optimizer
from reference import Ranges, check_against_numpy, distance, log, problem, run, uniform

RATE = {"learning_rate": log(1e-4, 1e-2)}
DECAY = {"weight_decay": log(1e-3, 1e-1)}
TRUST = {"trust_coefficient": log(1e-3, 1e-1)}
VECTORS = ("vector", "scalar")

# Optax


def optax_lars(**hyper: Any) -> cx.chain:
    """Optax's LARS, which takes the norm of the gradient with the decay in it."""
    tx = cx.lars(**{**hyper, "weight_decay": 0.0})
    trust = cx.scale_by_trust_ratio(trust_coefficient=hyper["trust_coefficient"], eps=hyper["eps"])
    return tx.replace("scale_by_lars", cx.chain(cx.add_decayed_weights(hyper["weight_decay"]), trust))


def nesterov(**hyper: Any) -> cx.chain:
    """The same with momentum that looks ahead."""
    return optax_lars(**hyper, nesterov=True)


def optax_nesterov(**hyper: Any) -> Any:
    """The same in Optax."""
    return optax.lars(**hyper, nesterov=True)


def fading(learning_rate: Any, **hyper: Any) -> cx.chain:
    """Fromage with a rate that falls to 0."""
    return cx.fromage(cx.linear_schedule(learning_rate, 0.0, 50), **hyper)


def optax_fading(learning_rate: Any, **hyper: Any) -> Any:
    """The same in Optax, whose own schedules count in float32."""
    return optax.fromage(lambda k: learning_rate * (1 - jnp.minimum(k, 50).astype(jnp.float64) / 50), **hyper)


LAMB = {**RATE, "b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), "eps": log(1e-10, 1e-3), **DECAY}
LAMB |= {"eps_root": log(1e-8, 1e-2)}
LARS = {"learning_rate": log(1e-2, 1.0), **TRUST, **DECAY, "eps": log(1e-6, 1e-1), "momentum": uniform(0.0, 0.99)}
FROMAGE = {"learning_rate": log(1e-3, 1e-1), "min_norm": log(1e-6, 2.0)}
OPTAX: dict[str, tuple[Callable[..., cx.chain], Callable[..., Any], Ranges]] = {
    "lamb": (cx.lamb, optax.lamb, LAMB),
    "lamb defaults": (cx.lamb, optax.lamb, RATE),
    "lars": (optax_lars, optax.lars, LARS),
    "lars nesterov": (nesterov, optax_nesterov, LARS),
    "fromage": (cx.fromage, optax.fromage, FROMAGE),
    "fromage fading": (fading, optax_fading, FROMAGE),
}


@pytest.mark.parametrize("name", OPTAX)
def test_agrees_with_optax(name: str, x64: None) -> None:
    """Every hyperparameter means what it means in Optax."""
    check_against_optax(*OPTAX[name])


# pytorch_optimizer


def torch_lars(library: Any, groups: Any, learning_rate: float, **hyper: float) -> Any:
    """LARS as published."""
    return library.LARS(groups, lr=learning_rate, **hyper, foreach=False)


def torch_fromage(library: Any, groups: Any, learning_rate: float) -> Any:
    """Fromage without a bound on the norm."""
    return library.Fromage(groups, lr=learning_rate, foreach=False)


def test_lars_agrees_with_pytorch_optimizer(x64: None) -> None:
    """The paper's denominator, ‖g‖ + λ‖θ‖. Vectors are left out there."""
    hyper = {k: draw for k, draw in LARS.items() if k != "eps"}
    check_against_pytorch_optimizer(cx.lars, torch_lars, hyper, leave_out=VECTORS)


def test_fromage_agrees_with_pytorch_optimizer(x64: None) -> None:
    """The published code's, in which no norm has a floor."""
    check_against_pytorch_optimizer(cx.fromage, torch_fromage, {"learning_rate": log(1e-3, 1e-1)})


# NumPy


def numpy_normalized(theta: Any, g: Any, t: int, memory: dict, learning_rate: float, eps: float) -> Any:
    """Algorithm 1 of Yu et al. 2017 with plain descent; a block whose gradient is 0 stays."""
    norm = np.linalg.norm(g)
    return theta - learning_rate * (g / (norm + eps) if norm > 0 else g)


def normalized(learning_rate: float, eps: float) -> cx.chain:
    """Block-normalized descent."""
    return cx.chain(cx.normalize_by_block_norm(eps), cx.scale_by_lr(learning_rate))


@pytest.mark.parametrize("eps", (lambda rng: 0.0, log(1e-3, 1.0)))
def test_normalized_descent_agrees_with_numpy(eps: Any, x64: None) -> None:
    """Each leaf's gradient is divided by its norm. No library has it by leaf."""
    check_against_numpy(normalized, numpy_normalized, {**RATE, "eps": eps})


# Properties

START, GRAD = {"w": jnp.array([[3.0, 0.0], [0.0, 4.0]])}, {"w": jnp.array([[0.0, 6.0], [-8.0, 0.0]])}


@pytest.mark.parametrize(
    ("tx", "length"),
    (
        (cx.lars(0.1, trust_coefficient=0.5), 0.1 * 0.5 * 5),
        (cx.lamb(0.1), 0.1 * 5),
        (cx.chain(cx.normalize_by_block_norm(), cx.scale_by_lr(0.1)), 0.1),
    ),
    ids=repr,
)
def test_length_of_the_first_step(tx: cx.chain, length: float) -> None:
    """‖θ‖ is 5: the first step has the rate's length relative to it, be ‖g‖ 10 or a thousandth of that."""
    for factor in (1.0, 1e-3):
        u, _ = tx.update(jax.tree.map(lambda g, f=factor: f * g, GRAD), tx.init(START), START)
        np.testing.assert_allclose(jnp.linalg.norm(u["w"]), length, rtol=1e-4)


@pytest.mark.parametrize("schedule", (float, cx.constant_schedule))
@pytest.mark.parametrize("rate", (0.5, 1e-3))
def test_fromage_keeps_the_norm(schedule: Callable, rate: float) -> None:
    """The gradient is at right angles to θ, so the step and the shrinkage leave ‖θ‖ as it is, in float32."""
    tx, params = cx.fromage(schedule(rate)), START
    moved, _ = jax.jit(tx.step)(params, tx.init(params), GRAD)
    np.testing.assert_allclose(jnp.linalg.norm(moved["w"]), 5.0, rtol=3e-7)
    assert abs(moved["w"][0, 1]) > 2 * rate
    shrinkage = vars(tx["decay_after_step"])["rate"]
    exact = rate**2 / (np.sqrt(1 + rate**2) * (1 + np.sqrt(1 + rate**2)))
    np.testing.assert_allclose(shrinkage(0) if isinstance(shrinkage, cx.Schedule) else shrinkage, exact, rtol=1e-6)


@pytest.mark.parametrize(
    "tx",
    (
        cx.chain(cx.scale_by_trust_ratio(trust_coefficient=0.1), cx.scale_by_lr(0.1)),
        cx.chain(cx.scale_by_lars(0.1, 0.5), cx.scale_by_lr(0.1)),
    ),
    ids=repr,
)
def test_without_a_norm_the_step_is_plain(tx: cx.chain) -> None:
    """Parameters that are 0 move by the rate alone; with a gradient of 0 too nothing moves, and nothing is NaN."""
    zero = jnp.zeros(3)
    params, grads = {"b": zero, "c": zero}, {"b": jnp.array([1.0, -2.0, 0.0]), "c": zero}
    moved, _ = tx.step(params, tx.init(params), grads)
    np.testing.assert_allclose(moved["b"], -0.1 * grads["b"], rtol=1e-6)
    np.testing.assert_array_equal(moved["c"], zero)


def test_lars_differs_from_optax(x64: None) -> None:
    """Where g and λθ are not parallel, ‖g‖ + λ‖θ‖ is more than ‖g + λθ‖."""
    params, grads = problem(seed=0)
    hyper = {"learning_rate": 0.1, "weight_decay": 0.5, "trust_coefficient": 0.1, "eps": 0.0, "momentum": 0.0}
    assert distance(run(cx.lars(**hyper), params, grads), run(optax_lars(**hyper), params, grads)) > 1e-2


def test_lars_says_that_it_decays() -> None:
    """`describe` finds the decay inside the link, and none where it is 0."""
    assert "weight decay: coupled" in cx.lars(0.1, weight_decay=0.1).describe()
    assert "weight decay: none" in cx.lars(0.1).describe()
    assert "weight decay: decoupled (after the preconditioner)" in cx.lamb(weight_decay=0.1).describe()
