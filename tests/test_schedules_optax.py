"""Schedules against Optax's, by the same name and the same arguments, over 1000 steps and random settings."""

from collections.abc import Callable

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

STEPS = 1000

Arguments = tuple[tuple, dict]


def steps(draw: np.random.Generator, low: int = 1, high: int = 900) -> int:
    """A whole number of steps."""
    return int(draw.integers(low, high))


def size(draw: np.random.Generator) -> float:
    """A value of any order of magnitude."""
    return float(10 ** draw.uniform(-4, 0))


def scales(draw: np.random.Generator) -> dict[int, float]:
    """Factors at some steps, in no order."""
    return {steps(draw): float(draw.uniform(0.3, 3)) for _ in range(5)}


def decay(draw: np.random.Generator, rate: tuple[float, float], end: float) -> dict:
    """The options of an exponential decay."""
    return {
        "transition_steps": steps(draw, 1, 50),
        "decay_rate": float(draw.uniform(*rate)),
        "transition_begin": steps(draw, 0, 200),
        "staircase": bool(draw.integers(2)),
        "end_value": end,
    }


def annealing(draw: np.random.Generator) -> dict:
    """The arguments of a warm-up and a cosine."""
    warmup = steps(draw, 1, 100)
    return {
        "init_value": size(draw),
        "peak_value": size(draw),
        "warmup_steps": warmup,
        "decay_steps": warmup + steps(draw, 1, 400),
        "end_value": size(draw),
        "exponent": float(draw.uniform(0.5, 3)),
    }


CASES: dict[str, Callable[[np.random.Generator], Arguments]] = {
    "constant_schedule": lambda d: ((size(d),), {}),
    "linear_schedule": lambda d: ((size(d), size(d), steps(d), steps(d, 0, 200)), {}),
    "polynomial_schedule": lambda d: ((size(d), size(d), d.uniform(0.5, 3), steps(d), steps(d, 0, 200)), {}),
    "exponential_decay": lambda d: ((1.0,), decay(d, (0.3, 0.99), 0.01)),
    "exponential_decay, growing": lambda d: ((1.0,), decay(d, (1.01, 1.3), 10.0)),
    "exponential_decay, for ever": lambda d: ((size(d), 7, 0.97, 20, True), {}),
    "cosine_decay_schedule": lambda d: ((size(d), steps(d), d.uniform(0, 1), d.uniform(0.5, 3)), {}),
    "piecewise_constant_schedule": lambda d: ((size(d), scales(d)), {}),
    "piecewise_interpolate_schedule": lambda d: (("linear", size(d), scales(d)), {}),
    "piecewise_interpolate_schedule, cosine": lambda d: (("cosine", size(d), scales(d)), {}),
    "linear_onecycle_schedule": lambda d: (
        (steps(d, 200), size(d), d.uniform(0.1, 0.5), d.uniform(0.6, 0.9), d.uniform(2, 30), d.uniform(2, 30)),
        {},
    ),
    "cosine_onecycle_schedule": lambda d: ((steps(d, 200), size(d), d.uniform(0.1, 0.9), d.uniform(2, 30), 20.0), {}),
    "warmup_constant_schedule": lambda d: ((size(d), size(d), steps(d)), {}),
    "warmup_cosine_decay_schedule": lambda d: ((), annealing(d)),
    "warmup_exponential_decay_schedule": lambda d: ((0.1, 1.0, steps(d, 1, 300)), decay(d, (0.3, 0.99), 0.01)),
    "sgdr_schedule": lambda d: (([annealing(d) for _ in range(4)],), {}),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_schedule_is_optaxs(case: str, seed: int, x64: None) -> None:
    """The same numbers in float64, relative to the number itself.

    Optax outside of ``jit``: inside, XLA multiplies by a rounded 1/T, and a way left of −1e-16 to a
    power that is not whole is NaN from the end of `polynomial_schedule` on.
    """
    name = case.split(",")[0]
    args, options = CASES[case](np.random.default_rng(seed))
    ours = getattr(cx, name)(*args, **options)
    with jax.numpy_dtype_promotion("standard"):
        theirs = jax.vmap(getattr(optax.schedules, name)(*args, **options))
        expected = theirs(jnp.arange(STEPS))
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(ours(np.arange(STEPS)), expected, rtol=1e-12)


def test_join_schedules_is_optaxs(x64: None) -> None:
    """Schedules in a row; the arguments are schedules themselves."""
    parts = ("cosine_decay_schedule", (0.3, 50)), ("constant_schedule", (0.2,)), ("linear_schedule", (0.1, 1.0, 30))
    ours, theirs = (
        lib.join_schedules([getattr(lib, n)(*args) for n, args in parts], [20, 70]) for lib in (cx, optax.schedules)
    )
    expected = [theirs(k) for k in range(200)]
    np.testing.assert_allclose(ours(np.arange(200)), expected, rtol=1e-12)


def test_no_schedule_of_optax_is_missing() -> None:
    """Whatever `optax.schedules` makes a schedule by is compared above."""
    makers = {n for n in dir(optax.schedules) if n.endswith(("_schedule", "_decay", "_schedules")) and n[0] != "_"}
    assert makers == {case.split(",")[0] for case in CASES} | {"join_schedules"}
