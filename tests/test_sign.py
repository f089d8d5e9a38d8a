"""Sign SGD, Signum, Lion and Rprop against PyTorch, Optax and pytorch_optimizer."""

import functools
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import numpy as np
import optax
import pytest
from agreement import check_against_optax, check_against_pytorch_optimizer
from reference import TOLERANCE, Ranges, check_run, distance, log, problem, run, run_torch, settings, uniform

RATE = {"learning_rate": log(1e-4, 1e-2)}
DECAY = {"weight_decay": log(1e-3, 1e-1)}

# PyTorch

RPROP = {
    "learning_rate": log(1e-3, 1e-1),
    "eta_minus": uniform(0.3, 0.9),
    "eta_plus": uniform(1.1, 2.0),
    "min_step_size": log(1e-4, 1e-2),
    "max_step_size": log(0.02, 0.2),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rprop_agrees_with_torch(dtype: Any) -> None:
    """Every hyperparameter; both bounds are met, and a tenth of the gradients is 0."""
    with jax.enable_x64(dtype is np.float64):
        for i, hyper in enumerate([{}, *settings(RPROP)]):
            params, grads = problem(seed=i)
            given = {"lr": 1e-2, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50.0)}
            if hyper:
                pairs = (("eta_minus", "eta_plus"), ("min_step_size", "max_step_size"))
                etas, sizes = (tuple(hyper[name] for name in pair) for pair in pairs)
                given = {"lr": hyper["learning_rate"], "etas": etas, "step_sizes": sizes}
            theirs = run_torch("Rprop", [(list(params), {})], params, grads, dtype, **given)
            check_run(cx.rprop(**hyper), params, grads, theirs, dtype, constant_too=i == 1)


# Optax and pytorch_optimizer


def optax_signum(learning_rate: Any, momentum: Any) -> Any:
    """Signum, by Optax's name for its momentum."""
    return optax.signum(learning_rate, momentum)


def lion(link: Any, learning_rate: Any, weight_decay: Any, **hyper: Any) -> cx.chain:
    """Lion with another link than its own."""
    return cx.lion(learning_rate, weight_decay=weight_decay).replace("scale_by_lion", link(**hyper))


def optax_lion(mode: str, learning_rate: Any, weight_decay: Any, **hyper: Any) -> Any:
    """Lion in one of Optax's modes."""
    links = [optax.scale_by_lion(**hyper, mode=mode), optax.add_decayed_weights(weight_decay)]
    return optax.chain(*links, optax.scale_by_learning_rate(learning_rate))


LION = {**RATE, "b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), **DECAY}
OPTAX: dict[str, tuple[Callable[..., cx.chain], Callable[..., Any], Ranges]] = {
    "sign_sgd": (cx.sign_sgd, optax.sign_sgd, RATE),
    "signum": (cx.signum, optax_signum, {**RATE, "momentum": uniform(0.0, 0.99)}),
    "lion": (cx.lion, optax.lion, LION),
    "lion defaults": (cx.lion, optax.lion, RATE),
    "lion refined": (
        functools.partial(lion, cx.scale_by_refined_lion),
        functools.partial(optax_lion, "refined"),
        LION,
    ),
    "lion smooth": (
        functools.partial(lion, cx.scale_by_smooth_lion),
        functools.partial(optax_lion, "smooth"),
        {**LION, "smooth_beta": log(0.1, 100.0)},
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_agrees_with_optax(name: str, x64: None) -> None:
    """Every hyperparameter means what it means in Optax."""
    check_against_optax(*OPTAX[name])


def theirs(library: Any, groups: Any, learning_rate: float, momentum: float, weight_decay: float) -> Any:
    """Signum, with decay; sign SGD where the momentum is 0."""
    return library.SignSGD(groups, learning_rate, momentum, weight_decay, foreach=False)


def sign_sgd(learning_rate: float, momentum: float, weight_decay: float) -> cx.chain:
    """Sign SGD, for which the momentum is 0."""
    return cx.sign_sgd(learning_rate, weight_decay=weight_decay)


@pytest.mark.parametrize(("ours", "momentum"), ((cx.signum, uniform(0.1, 0.99)), (sign_sgd, lambda rng: 0.0)))
def test_decay_agrees_with_pytorch_optimizer(ours: Callable[..., cx.chain], momentum: Any, x64: None) -> None:
    """The decay is decoupled from the sign."""
    check_against_pytorch_optimizer(ours, theirs, {**RATE, "momentum": momentum, **DECAY})


# Properties


@pytest.mark.parametrize("tx", (cx.sign_sgd(0.01), cx.signum(0.01), cx.lion(0.01), cx.rprop()), ids=repr)
def test_the_size_of_the_gradient_does_not_count(tx: cx.chain, x64: None) -> None:
    """Gradients 1024 times as large make the same steps, bit by bit; with other signs they do not."""
    params, grads = problem(seed=0)
    once = run(tx, params, grads)
    assert distance(once, run(tx, params, {n: 1024 * g for n, g in grads.items()})) == 0
    assert distance(once, run(tx, params, {n: -g for n, g in grads.items()})) > 0.01
