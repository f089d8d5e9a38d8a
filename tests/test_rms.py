"""Adagrad, RMSprop and Adadelta against PyTorch and Optax."""

from typing import Any

import chainax as cx
import optax
import pytest
from agreement import check_against_optax
from reference import TOLERANCE, Case, check_against_torch, log, uniform

DECAY = {"weight_decay": log(1e-4, 1e-1)}
ADAGRAD = {"learning_rate": log(1e-3, 1e-1), "eps": log(1e-10, 1e-3)}
START = {"initial_accumulator_value": uniform(0.0, 1.0), "lr_decay": log(1e-4, 1e-1)}
RMSPROP = {"learning_rate": log(1e-4, 1e-2), "decay": uniform(0.5, 0.99), "eps": log(1e-9, 1e-3)}
MOMENTUM = {"momentum": uniform(0.05, 0.9)}
ADADELTA = {"learning_rate": uniform(0.1, 2.0), "rho": uniform(0.5, 0.99), "eps": log(1e-8, 1e-4)}

CASES = {
    "adagrad defaults": Case(cx.adagrad, "Adagrad", {}),
    "adagrad decay": Case(cx.adagrad, "Adagrad", {**ADAGRAD, **START, **DECAY}),
    "rmsprop defaults": Case(cx.rmsprop, "RMSprop", {}),
    "rmsprop decay": Case(cx.rmsprop, "RMSprop", {**RMSPROP, **DECAY}),
    "rmsprop momentum": Case(cx.rmsprop, "RMSprop", {**RMSPROP, **MOMENTUM, **DECAY}),
    "rmsprop centered": Case(cx.rmsprop, "RMSprop", {**RMSPROP, **DECAY}, {"centered": True}),
    "rmsprop centered momentum": Case(cx.rmsprop, "RMSprop", {**RMSPROP, **MOMENTUM, **DECAY}, {"centered": True}),
    "adadelta defaults": Case(cx.adadelta, "Adadelta", {}),
    "adadelta decay": Case(cx.adadelta, "Adadelta", {**ADADELTA, **DECAY}),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_agrees_with_torch(case: Case, dtype: Any) -> None:
    """Every hyperparameter, the decay, and the defaults mean what they mean in PyTorch."""
    check_against_torch(case, dtype)


def eps_by_place(build: Any, inside: bool, **static: Any) -> Any:
    """A chain of ours whose one ε stands inside the root, as Optax's does by default, or outside."""
    return lambda eps, **hyper: build(**hyper, **static, eps=0.0 if inside else eps, eps_root=eps if inside else 0.0)


OPTAX = {
    **RMSPROP,
    "eps": log(1e-4, 1e-1),  # a corrected variance that should be 0 is 1e-17 by rounding
    "initial_scale": uniform(0.5, 1.0),  # or rounding makes Optax's variance negative, and its root NaN
}


@pytest.mark.parametrize("inside", (False, True))
@pytest.mark.parametrize("bias_correction", (False, True))
@pytest.mark.parametrize("centered", (False, True))
def test_rmsprop_agrees_with_optax(centered: bool, bias_correction: bool, inside: bool, x64: None) -> None:
    """Where the mean square starts, whether bias is corrected, and where ε stands mean what they mean in Optax."""
    static = {"centered": centered, "bias_correction": bias_correction}

    def theirs(**hyper: Any) -> Any:
        return optax.rmsprop(**hyper, **static, eps_in_sqrt=inside)

    check_against_optax(eps_by_place(cx.rmsprop, inside, **static), theirs, OPTAX)


def test_adagrad_agrees_with_optax(x64: None) -> None:
    """Optax's ε stands inside the root."""
    ranges = {**ADAGRAD, "initial_accumulator_value": uniform(0.0, 1.0)}
    check_against_optax(eps_by_place(cx.adagrad, True), optax.adagrad, ranges)
