"""Adagrad, RMSprop and Adadelta against PyTorch."""

from typing import Any

import chainax as cx
import pytest
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
