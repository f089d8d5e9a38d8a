"""The meanings of weight decay: the place of one link in the chain decides which it is."""

from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import (
    Tree,
    assert_agree,
    check_against_numpy,
    descend,
    distance,
    log,
    problem,
    run,
    run_numpy,
    run_torch,
    settings,
    uniform,
)

ADAM = {"learning_rate": log(1e-3, 1e-2), "b1": uniform(0.0, 0.99), "b2": uniform(0.5, 0.999), "eps": log(1e-10, 1e-3)}
DECAY = {**ADAM, "weight_decay": log(1e-2, 1e-1)}


def adam(g: Any, t: int, memory: dict, b1: float, b2: float, eps: float) -> Any:
    """m̂ / (√v̂ + ε)."""
    m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)


# One chain, three meanings


def paper(**hyper: Any) -> cx.chain:
    """The chain that the tests move a link of."""
    return cx.adamw_paper(1.0, **hyper)


def coupled(**hyper: Any) -> cx.chain:
    """L2: the decay passes through Adam."""
    return paper(**hyper).move("add_decayed_weights", before="scale_by_adam")


def decoupled(**hyper: Any) -> cx.chain:
    """PyTorch's AdamW: the learning rate scales the decay."""
    return paper(**hyper).move("add_decayed_weights", before="scale")


@pytest.mark.parametrize(("build", "torch_name"), ((coupled, "Adam"), (decoupled, "AdamW")))
def test_a_move_turns_one_decay_into_another(build: Callable, torch_name: str, x64: None) -> None:
    """`move` makes PyTorch's Adam or AdamW of the paper's chain, and neither is the chain it was."""
    for i, h in enumerate(settings(DECAY)):
        params, grads = problem(seed=i)
        betas, rest = (h["b1"], h["b2"]), {"eps": h["eps"], "weight_decay": h["weight_decay"]}
        theirs = run_torch(torch_name, [(list(params), {})], params, grads, lr=h["learning_rate"], betas=betas, **rest)
        assert_agree(run(build(**h), params, grads), theirs, 1e-9)
        assert distance(run(paper(**h), params, grads), theirs) > 1e-2


def test_a_move_keeps_the_state() -> None:
    """The three chains share one state, so that training may go on with another meaning."""
    params, grads = problem(seed=0)
    params, grads = jax.tree.map(jnp.float32, (params, jax.tree.map(lambda g: g[0], grads)))
    before, after = paper(weight_decay=0.1), coupled(weight_decay=0.1)
    params, state = before.step(params, before.init(params), grads)
    params, state = after.step(params, state, grads)
    assert jax.tree.structure(state) == jax.tree.structure(after.init(params))


CONSTANT = (lambda scale: scale, lambda k, scale: scale)
FALLING = (lambda scale: cx.cosine_decay_schedule(scale, 80), lambda k, scale: scale * cosine(min(k / 80, 1)))
RESTARTS = (lambda scale: cx.warm_restarts_schedule(scale, 30), lambda k, scale: scale * cosine(k % 30 / 30))
SCHEDULES = {"constant": CONSTANT, "falling": FALLING, "warm restarts": RESTARTS}
"""A schedule for the chain, and the same in NumPy."""


def cosine(x: float) -> float:
    """Half a cosine from 1 to 0."""
    return (1 + np.cos(np.pi * x)) / 2


@pytest.mark.parametrize(("schedule", "eta"), SCHEDULES.values(), ids=SCHEDULES)
def test_adamw_of_the_paper_agrees_with_numpy(schedule: Callable, eta: Callable, x64: None) -> None:
    """Loshchilov & Hutter's Algorithm 2: θ ← θ − ηₜ(α·m̂/(√v̂ + ε) + λθ)."""

    def rule(
        theta: Any,
        g: Any,
        t: int,
        memory: dict,
        scale: float,
        learning_rate: float,
        b1: float,
        b2: float,
        eps: float,
        weight_decay: float,
    ) -> Any:
        step = learning_rate * adam(g, t, memory, b1, b2, eps)
        return theta - eta(t - 1, scale) * (step + weight_decay * theta)

    def build(scale: float, **hyper: Any) -> cx.chain:
        return cx.adamw_paper(schedule(scale), **hyper)

    check_against_numpy(build, rule, {"scale": uniform(0.2, 1.0), **DECAY})


@pytest.mark.parametrize(("schedule", "lamda"), SCHEDULES.values(), ids=SCHEDULES)
def test_independent_decay_agrees_with_numpy(schedule: Callable, lamda: Callable, x64: None) -> None:
    """Adam's step, then θ ← θ − λₜθ on what it has moved, at a rate of its own."""

    def rule(
        theta: Any,
        g: Any,
        t: int,
        memory: dict,
        learning_rate: float,
        b1: float,
        b2: float,
        eps: float,
        weight_decay: float,
    ) -> Any:
        theta = theta - learning_rate * adam(g, t, memory, b1, b2, eps)
        return theta - lamda(t - 1, weight_decay) * theta

    def build(weight_decay: float, **hyper: Any) -> cx.chain:
        return cx.adamw_independent(weight_decay=schedule(weight_decay), **hyper)

    check_against_numpy(build, rule, DECAY)


def test_independent_decay_is_not_scaled_by_the_rate(x64: None) -> None:
    """With gradients of zero the rate does not matter, and the weights fall as (1 − λ)ᵗ."""
    params, grads = problem(seed=0)
    still = jax.tree.map(np.zeros_like, grads)
    expected = run_numpy(lambda theta, g, t, memory: theta * 0.99, params, still)
    for rate in (1e-3, 1e-1):
        assert_agree(run(cx.adamw_independent(rate, weight_decay=0.01), params, still), expected, 1e-9)


MEANINGS = {
    "coupled (L2: it passes through scale_by_adam)": coupled(),
    "decoupled (after the preconditioner), scaled by the learning rate": decoupled(),
    "decoupled (after the preconditioner), scaled by the learning rate but not by scale": paper(),
    "independent (a step of its own after the main one), not scaled by scale_by_lr": cx.adamw_independent(),
    "coupled (L2: it passes through trace)": cx.sgd(0.1, momentum=0.9, weight_decay=0.1),
    "L2 (the same as ½λ‖θ‖² in the loss), scaled by the learning rate": cx.sgd(0.1, weight_decay=0.1),
    "none": cx.adam(0.1),
}


@pytest.mark.parametrize(("meaning", "tx"), MEANINGS.items(), ids=[repr(tx) for tx in MEANINGS.values()])
def test_describe_names_the_meaning(meaning: str, tx: cx.chain) -> None:
    """The line that `describe` prints is what the tests above show of the chain."""
    assert f"weight decay: {meaning}" in tx.describe().splitlines()


# Penalties in the loss


def loss(params: Tree) -> jax.Array:
    """Curved, with its minimum away from zero, and with all parameters coupled."""
    total = sum(jnp.sum(jnp.sin(p)) for p in params.values())
    return sum(jnp.sum(jnp.log(jnp.cosh(p - 1.0))) for p in params.values()) + jnp.square(total) / 20


STRENGTH = 0.05


def with_l2(params: Tree) -> jax.Array:
    """Loss + ½λ‖θ‖²."""
    return loss(params) + STRENGTH / 2 * sum(jnp.sum(jnp.square(p)) for p in params.values())


def with_l1(params: Tree) -> jax.Array:
    """Loss + λ‖θ‖₁."""
    return loss(params) + STRENGTH * sum(jnp.sum(jnp.abs(p)) for p in params.values())


# A large ε: with a small one Adam is unstable where a gradient is about 0, and multiplies rounding errors.
RULES = {
    "sgd": lambda rate, mu: cx.sgd(rate),
    "momentum": lambda rate, mu: cx.sgd(rate, momentum=mu),
    "adam": lambda rate, mu: cx.adam(rate, b1=mu, eps=0.1),
}
PENALTIES = {"L2": (with_l2, cx.add_decayed_weights(STRENGTH)), "L1": (with_l1, cx.add_l1(STRENGTH))}


@pytest.mark.parametrize(("penalized", "link"), PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("build", RULES.values(), ids=RULES)
def test_a_penalty_is_a_link_at_the_front(build: Callable, penalized: Callable, link: Any, x64: None) -> None:
    """Whatever the optimizer, a penalty in the loss is a link before all others."""
    for i, h in enumerate(settings({"rate": log(1e-3, 3e-2), "mu": uniform(0.3, 0.95)})):
        params, _ = problem(seed=i)
        in_loss = descend(build(**h), penalized, params)[0]
        in_chain = descend(cx.chain(link, build(**h)), loss, params)[0]
        assert_agree(in_chain, in_loss, 1e-9)
        assert distance(in_loss, descend(build(**h), loss, params)[0]) > 1e-4


@pytest.mark.parametrize(("penalized", "link"), PENALTIES.values(), ids=PENALTIES)
def test_a_penalty_is_never_decoupled_decay(penalized: Callable, link: Any, x64: None) -> None:
    """After Adam the same link does something else: AdamW is no cheaper way to have L2."""
    for i, h in enumerate(settings({"learning_rate": log(1e-3, 1e-2), "b1": uniform(0.3, 0.95)})):
        params, _ = problem(seed=i)
        in_loss = descend(cx.adam(**h), penalized, params)[0]
        after = cx.adam(**h).insert(link, after="scale_by_adam")
        assert distance(in_loss, descend(after, loss, params)[0]) > 1e-3


def test_l1_agrees_with_numpy(x64: None) -> None:
    """θ ← θ − α(g + λ·sign(θ))."""

    def rule(theta: Any, g: Any, t: int, memory: dict, rate: float, l1: float) -> Any:
        return theta - rate * (g + l1 * np.sign(theta))

    def build(rate: float, l1: float) -> cx.chain:
        return cx.chain(cx.add_l1(l1), cx.scale_by_lr(rate))

    check_against_numpy(build, rule, {"rate": log(1e-4, 1e-2), "l1": log(1e-2, 1.0)})


def test_l1_does_not_pull_at_zero() -> None:
    """A parameter at 0 stays there without a gradient, where JAX's own derivative of |θ| is 1."""
    params = {"x": jnp.array([-2.0, 0.0, 3.0])}
    tx = cx.chain(cx.add_l1(0.5), cx.scale_by_lr(1.0))
    after, _ = tx.step(params, tx.init(params), {"x": jnp.zeros(3)})
    assert_agree(after, {"x": np.array([-1.5, 0.0, 2.5])}, 0.0)
