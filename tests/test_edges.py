"""Derivatives at the edge of what a hyperparameter may be, where guards against 0/0 and ∞ stand."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax import chains
from chainax.core.values import numerics
from chainax.transforms.clipping import blocks
from registry import WORDS, given, links_of, quickly

pytestmark = pytest.mark.usefixtures("x64")


def forward_difference(f: Callable[[float], float]) -> float:
    """The slope at 0 from the right, of the step at which two estimates of third order agree best."""
    steps = [10.0**-e for e in range(2, 9)]
    return best_difference(f(0.0), [[f(m * h) for m in (1, 2, 4)] for h in steps], steps)


def best_difference(start: float, values: Any, steps: list[float]) -> float:
    """The same of values at h, 2h and 4h for each step h; NaN if no two estimates agree to 1 %."""
    found = [(math.inf, math.nan)]
    for (one, two, four), h in zip(values, steps):
        short, long = ((-3 * start + 4 * a - b) / (2 * s) for a, b, s in ((one, two, h), (two, four, 2 * h)))
        slope = (4 * short - long) / 3
        error = abs(short - long) / 3 + 1e-15 * abs(start) / h
        found.append((error if math.isfinite(error) else math.inf, slope))
    error, slope = min(found, key=lambda pair: pair[0])
    return slope if error < 0.01 * abs(slope) + 1e-6 else math.nan


# Guards


def at_2(f: Callable[..., Any]) -> Callable[[Any], Any]:
    """``f(x, 2)``."""
    return lambda x: f(x, jnp.asarray(2.0))


GUARDS: dict[str, Callable[[Any], Any]] = {
    "square of a root": lambda x: numerics.sqrt(x) ** 2 * 0 + numerics.sqrt(x**2),
    "x^0": lambda x: numerics.power(x, jnp.asarray(0.0)),
    "x^1": lambda x: numerics.power(x, jnp.asarray(1.0)),
    "x^2": at_2(numerics.power),
    "1 - x": lambda x: numerics.one_minus_power(x, jnp.asarray(1.0)),
    "1 - x^2": at_2(numerics.one_minus_power),
    "schedule x^1": lambda x: cx.power(x, 1.0)(3),
    "schedule x^k": lambda x: cx.power(x, cx.linear_schedule(0.0, 1.0, 1))(jnp.arange(3)).sum(),
    "schedule x^2": lambda x: cx.power(x, 2.0)(3),
    "exponential": lambda x: cx.exponential_decay(1.0, 1.0, x)(jnp.arange(4)).sum(),
    "exponential in stairs": lambda x: cx.exponential_decay(1.0, 2.0, x, staircase=True)(jnp.arange(6)).sum(),
    "steps": lambda x: cx.step_schedule(1.0, 2.0, x)(jnp.arange(6)).sum(),
    "half-life from": lambda x: cx.half_life_schedule(x, 0.9, 4.0)(0),
    "half-life to": lambda x: cx.half_life_schedule(0.9, x, 4.0)(4),
    "bias": lambda x: cx.bias_corrected_schedule(1.0, x, 0.5)(jnp.arange(4)).sum(),
    "bias of squares": lambda x: cx.bias_corrected_schedule(1.0, 0.5, x)(jnp.arange(4)).sum(),
    "clip": lambda x: numerics.clipped(jnp.array([-3.0, 0.0, 2.0]), x) @ jnp.array([1.0, 2.0, 4.0]),
    "bound": lambda x: blocks.bounding(jnp.asarray(2.0), x),
    "ratio": lambda x: numerics.safe_div(x, jnp.asarray(2.0)),
    "average": lambda x: numerics.averaged(jnp.asarray(2.0), jnp.asarray(3.0), x),
    "over a root": lambda x: numerics.over_root(jnp.asarray(2.0), jnp.asarray(3.0), x, x),
}
INFINITE: dict[str, Callable[[Any], Any]] = {
    "root": numerics.sqrt,
    "schedule √x": lambda x: cx.power(x, 0.5)(3),
    "schedule 1/x": lambda x: cx.power(x, -1.0)(3),
    "half-life between": lambda x: cx.half_life_schedule(x, 0.9, 4.0)(2),
    "ratio": lambda x: numerics.safe_div(jnp.asarray(1.0), x),
}


@pytest.mark.parametrize("f", GUARDS.values(), ids=GUARDS)
def test_guards_have_the_derivative_of_the_function(f: Callable) -> None:
    """At 0 it is the slope from the right, in forward and in reverse mode."""
    expected = forward_difference(lambda x: float(f(jnp.asarray(x))))
    if f is GUARDS["square of a root"]:
        expected = 0.0  # |x|, of which 0 is the symmetric choice
    zero = jnp.zeros(())
    np.testing.assert_allclose(jax.grad(f)(zero), expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(jax.jvp(f, (zero,), (zero + 1,))[1], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("f", INFINITE.values(), ids=INFINITE)
def test_infinite_slopes_are_given_as_0(f: Callable) -> None:
    """Where the function has no slope, so that a run has hypergradients by all its other numbers."""
    slopes = [(float(f(jnp.asarray(h))) - float(f(jnp.asarray(0.0)))) / h for h in (1e-4, 1e-8)]
    assert not abs(slopes[1]) < 2 * abs(slopes[0])
    assert jax.grad(f)(jnp.zeros(())) == 0


# Prebuilt optimizers

TARGET = {"w": np.array([[1.0, -2.0], [0.5, 0.3], [-0.7, 0.9]]), "b": np.array([0.4, -1.3])}
START = {"w": np.array([[-1.0, 0.5], [2.0, 1.0], [0.6, -0.4]]), "b": np.array([1.1, 0.2])}
COMMON = {
    "learning_rate": 0.05,
    "eps": 0.01,
    "weight_decay": 0.1,
    "momentum": 0.5,
    "lr_decay": 0.1,
    "clip_gradient": 0.7,
}
COMMON |= {
    "matrices": WORDS,
    "radius": 1.0,
    "warmup_steps": 4.0,
    "total_steps": 20.0,
    "schedule": 0.5,
    "max_learning_rate": 0.2,
}
PREBUILT = [
    name
    for name, f in vars(chains).items()
    if inspect.isfunction(f) and f.__module__ == chains.__name__ and name[0] != "_"
]
TIMES = [10.0**-e for e in range(2, 9)]
"""The steps of the differences."""
NORM = "the distance from the start is a norm at 0, which has a corner there"
ROOT = "the slope is infinite there"
NO_RATE = "at rate 0 all weights of the mean are 0/0"
CORNERS = {
    "adadelta scale_by_adadelta.eps": ROOT,
    "stable_adamw scale_by_stable_adam.b2": "the clip stands at its bound at every step, on both sides of a corner",
    "stable_adamw scale_by_stable_adam.eps_root": "the clip stands at its bound at the first step",
    "adopt add_decayed_weights.weight_decay": "without decay the second gradient is the first one, at the clip's bound",
    "ademamix scale_by_ademamix.b3.schedule.init_value": ROOT,
    "ademamix scale_by_ademamix.b3.schedule.end_value": ROOT,
    "lbfgs scale_by_lr.learning_rate": "from any rate above 0 the search finds the same length: a jump",
    "lbfgs scale_by_zoom_linesearch.max_learning_rate": "where nothing moves, no curvature is remembered: a jump",
    "madgrad scale_by_madgrad.learning_rate": "∛ν beside ε: the difference reaches the slope as ∛h does",
    "asgd scale_by_lr.learning_rate.factors[1].base.schedule.init_value": ROOT,
    "noisy_sgd add_noise.eta": ROOT,
    "adago scale_by_adago.gamma": "below the root of the first sum of squares, 1e-6, the factor is at its lower bound",
    "dog scale_by_dog.r_eps": NORM,
    "ldog scale_by_ldog.r_eps": NORM,
    "dowg scale_by_dowg.r_eps": NORM,
    "dadapt_sgd scale_by_dadapt_sgd.estim_lr0": NORM,
    "dadapt_adamw scale_by_dadapt_adam.b2": ROOT,
    "dadapt_adamw scale_by_dadapt_adam.estim_lr0": NORM,
    "prodigy scale_by_prodigy.estim_lr0": "the step is 0/0",
    "schedule_free_sgd schedule_free.tx.scale_by_lr.learning_rate.factors[0]": NO_RATE,
    "schedule_free_sgd schedule_free.tx.scale_by_lr.learning_rate.factors[1].init_value": NO_RATE,
    "schedule_free_adamw schedule_free.tx.scale_by_lr.learning_rate.factors[0].schedule.learning_rate.value": NO_RATE,
    "schedule_free_adamw schedule_free.tx.scale_by_lr.learning_rate.factors[1]": NO_RATE,
    "schedule_free_adamw schedule_free.tx.scale_by_lr.learning_rate.factors[2].init_value": NO_RATE,
}
"""What has no derivative at 0, and why. Everything is finite there nevertheless."""


def loss(p: Any) -> jax.Array:
    """What is minimized."""
    return sum((jnp.sum(jnp.cosh(p[n] - TARGET[n])) for n in p), jnp.zeros(()))


def prebuilt(name: str) -> cx.chain:
    """The optimizer with every part that it may have, and an ε that makes its steps smooth."""
    f = getattr(chains, name)
    return f(**{k: x for k, x in COMMON.items() if k in inspect.signature(f).parameters})


@functools.cache
def slopes(name: str) -> dict[str, tuple[float, float, float]]:
    """Of each number that may be 0, by its path: the end of a run at 0, its slope, and the difference."""
    tx = prebuilt(name)
    keyed, treedef = jax.tree_util.tree_flatten_with_path(tx)
    numbers = np.array([x for _, x in keyed])
    paths = [jax.tree_util.keystr(key).lstrip(".") for key, _ in keyed]

    def admits_0(i: int) -> bool:
        try:
            cx.from_config(
                cx.to_config(treedef.unflatten([*map(float, numbers[:i]), 0.0, *map(float, numbers[i + 1 :])]))
            )
        except ValueError:
            return False
        return not paths[i].endswith(("_steps", "_begin"))  # a schedule has corners at whole numbers of steps

    where = [i for i in range(len(numbers)) if admits_0(i)]

    start = jax.tree.map(jnp.asarray, START)

    def end(numbers: jax.Array) -> jax.Array:
        tx = treedef.unflatten(list(numbers))
        tx = given(tx) if any(link.extra for link in tx.links.values()) else tx

        def step(carry: tuple, _: None) -> tuple:
            return tx.step(*carry, jax.grad(loss)(carry[0])), None

        (p, _), _ = jax.lax.scan(step, (start, tx.init(start)), None, 15)
        return jnp.sum(jnp.cos(p["w"] + jnp.arange(6.0).reshape(3, 2))) + jnp.sum(jnp.sin(2 * p["b"]))

    run = quickly(jax.vmap(lambda x, direction: jax.jvp(end, (x,), (direction,))))
    sides = [0.0, *(m * h for h in TIMES for m in (1, 2, 4))]
    rows, directions = (
        np.repeat(numbers[None], len(where) * len(sides), 0),
        np.zeros((len(where) * len(sides), len(numbers))),
    )
    for row, (i, h) in enumerate((i, h) for i in where for h in sides):
        rows[row, i], directions[row, i] = h, 1.0
    values, tangents = (np.asarray(x).reshape(len(where), -1) for x in run(jnp.asarray(rows), jnp.asarray(directions)))
    return {
        paths[i]: (v[0], t[0], best_difference(v[0], v[1:].reshape(-1, 3), TIMES))
        for i, v, t in zip(where, values, tangents)
    }


@pytest.mark.filterwarnings("ignore:.*decides for no parameter")
@pytest.mark.parametrize("name", PREBUILT)
def test_hypergradients_at_0_are_slopes_from_the_right(name: str) -> None:
    """By every number of a prebuilt optimizer that may be 0, at 0, over fifteen steps."""
    if any(getattr(link, "decomposes", False) for link in links_of(prebuilt(name))):
        pytest.skip("derivatives treat bases and projections as constants, differences do not")
    found = slopes(name)
    wrong = {
        path: of
        for path, of in found.items()
        if not all(map(math.isfinite, of[:2]))
        or not (f"{name} {path}" in CORNERS or abs(of[1] - of[2]) <= 1e-6 + 1e-4 * abs(of[2]))
    }
    assert not wrong
    assert {key for key in CORNERS if key.split()[0] == name} <= {f"{name} {path}" for path in found}
