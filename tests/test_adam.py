"""Adam, AMSGrad, NAdam and AdamW against PyTorch."""

from typing import Any

import chainax as cx
import pytest
from reference import TOLERANCE, Case, check_against_torch, log, uniform

ADAM = {"learning_rate": log(1e-4, 1e-2), "b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), "eps": log(1e-10, 1e-3)}
DECAY = {"weight_decay": log(1e-4, 1e-1)}
NADAM = {**ADAM, "momentum_decay": log(1e-3, 1e-1)}


def amsgrad_w(**hyper: Any) -> cx.chain:
    """AMSGrad with decoupled decay."""
    return cx.amsgrad(**hyper).move("add_decayed_weights", after="scale_by_amsgrad")


def nadam_w(**hyper: Any) -> cx.chain:
    """NAdam with decoupled decay."""
    return cx.nadam(**hyper).move("add_decayed_weights", after="scale_by_nadam")


CASES = {
    "adam defaults": Case(cx.adam, "Adam", {}),
    "adam decay": Case(cx.adam, "Adam", {**ADAM, **DECAY}),
    "amsgrad defaults": Case(cx.amsgrad, "Adam", {}, torch_static={"amsgrad": True}),
    "amsgrad decay": Case(cx.amsgrad, "Adam", {**ADAM, **DECAY}, torch_static={"amsgrad": True}),
    "amsgrad decoupled": Case(amsgrad_w, "AdamW", {**ADAM, **DECAY}, torch_static={"amsgrad": True}),
    "nadam defaults": Case(cx.nadam, "NAdam", {}),
    "nadam decay": Case(cx.nadam, "NAdam", {**NADAM, **DECAY}),
    "nadam decoupled": Case(nadam_w, "NAdam", {**NADAM, **DECAY}, torch_static={"decoupled_weight_decay": True}),
    "adamw defaults": Case(cx.adamw, "AdamW", {}),
    "adamw": Case(cx.adamw, "AdamW", {**ADAM, **DECAY}),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_agrees_with_torch(case: Case, dtype: Any) -> None:
    """Every hyperparameter, the decay, and the defaults mean what they mean in PyTorch."""
    check_against_torch(case, dtype)
