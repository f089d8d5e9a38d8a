"""Schedules: formulas, ends and boundaries, and what makes them values. See test_schedules_torch for PyTorch's."""

import dataclasses
import functools
import json
import pickle
import re

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import SCHEDULES, quickly


def halving(step):
    """A bare Python function of the step."""
    return 0.5 ** step.astype(jnp.float32)


# From one step to the next a value may jump, so comparisons of two computations avoid no step.
STEPS = np.arange(45)

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
both_precisions = pytest.mark.parametrize(("x64", "rtol"), ((False, 1e-6), (True, 1e-14)), ids=("x32", "x64"))


def scaled(schedule, factor):
    """The schedule with every number multiplied."""
    return jax.tree.map(lambda x: x * factor, schedule)


# Formulas


def inverse_time(k):
    """init / (1 + rate·k)."""
    return 0.3 / (1 + 0.01 * k)


def bert(k):
    """The learning rate of BERT's optimization.py: 0.1 falling over 900 steps, with a warm-up of 100."""
    decayed = 0.1 * (900 - np.minimum(k, 900)) / 900
    return np.where(k < 100, 0.1 * k / 100, decayed)


def mxnet(k):
    """The learning rate of MXNet's Adam: lr·√(1−β₂ᵗ)/(1−β₁ᵗ)."""
    t = k + 1
    return 1e-3 * np.sqrt(-np.expm1(t * np.log(0.999))) / -np.expm1(t * np.log(0.9))


def transformer(k):
    """Vaswani et al. 2017, equation 3, d = 512 and 100 steps of warm-up."""
    t = k + 1
    return 512**-0.5 * np.minimum(t**-0.5, t * 100**-1.5)


def rex(k):
    """p(x) = (1 − x) / (½ + ½(1 − x)), x = k / 900, times 0.3."""
    rest = np.maximum(900 - k, 0) / 900
    return 0.3 * rest / (1 / 2 + rest / 2)


def stable(weight):
    """A warm-up of 100 steps to 0.3, which is kept to step 400; then by weight(x) down to 0.01 at step 900."""

    def reference(k):
        x = np.clip(k - 400, 0, 500) / 500
        return np.where(k < 100, 0.3 * k / 100, 0.01 + (0.3 - 0.01) * weight(x))

    return reference


@both_precisions
@pytest.mark.parametrize(
    ("schedule", "reference"),
    (
        (cx.inverse_sqrt_schedule((512 * 100) ** -0.5, 100, first_step=1), transformer),
        (cx.inverse_sqrt_schedule(0.1, 100, 0.1), lambda k: 1 / np.sqrt(np.maximum(k, 100))),
        (cx.rex_schedule(0.3, 900), rex),
        (cx.warmup_stable_decay_schedule(0.3, 100, 300, 500, end_value=0.01), stable(lambda x: 1 - x)),
        (
            cx.warmup_stable_decay_schedule(0.3, 100, 300, 500, end_value=0.01, decay="cosine"),
            stable(lambda x: (1 + np.cos(np.pi * x)) / 2),
        ),
        (
            cx.warmup_stable_decay_schedule(0.3, 100, 300, 500, end_value=0.01, decay="1-sqrt"),
            stable(lambda x: 1 - np.sqrt(x)),
        ),
        (cx.inverse_time_decay_schedule(0.3, 0.01), inverse_time),
        (cx.warmup_schedule(cx.polynomial_schedule(0.1, 0.0, 1.0, 900), 100, restart=False), bert),
        (cx.bias_corrected_schedule(1e-3), mxnet),
        (
            cx.bias_corrected_schedule(cx.inverse_time_decay_schedule(0.3, 0.01)),
            lambda k: mxnet(k) * inverse_time(k) * 1e3,
        ),
    ),
    ids=(
        *("Transformer", "T5", "REX", "WSD, linear", "WSD, cosine", "WSD, 1 − √"),
        *("inverse time", "BERT", "MXNet", "MXNet, decaying"),
    ),
)
def test_schedule_is_its_formula(schedule, reference, x64, rtol):
    """Where PyTorch has no counterpart: NumPy in float64, over 1000 steps."""
    steps = np.arange(1000)
    with jax.enable_x64(x64):
        np.testing.assert_allclose(schedule(steps), reference(steps.astype(np.float64)), rtol=rtol)


@both_precisions
def test_slow_decay_keeps_its_rate(x64, rtol):
    """A factor so near to 1 that float32 holds 1 minus it to 5 % only decays as it should for 10⁶ steps."""
    with jax.enable_x64(x64):
        for schedule in (cx.exponential_decay(1.0, 1, 1 - 1e-6), cx.step_schedule(1.0, 1, 1 - 1e-6)):
            np.testing.assert_allclose(schedule(10**6), (1 - 1e-6) ** 10**6, rtol=1e-6 if not x64 else 1e-12)


# Boundaries and ends


@pytest.mark.parametrize("static", ((), (0,)), ids=("traced", "constant"))
def test_falls_come_at_their_step(static):
    """41·(1/41) < 1 in float32, and XLA divides by a constant so; the boundary must not move by that."""
    call = jax.jit(lambda s, k: s(k), static_argnums=static)
    for size in (1, 3, 7, 41, 47, 55, 61, 82, 97):
        begins = size * np.arange(1, 50)
        for schedule in (cx.step_schedule(1.0, size, 0.5), cx.exponential_decay(1.0, size, 0.5, staircase=True)):
            for evaluate in (schedule, functools.partial(call, schedule)):
                np.testing.assert_allclose(evaluate(begins), 0.5 ** np.arange(1, 50), rtol=3e-6)
                np.testing.assert_allclose(evaluate(begins - 1), 0.5 ** np.arange(49), rtol=3e-6)


@pytest.mark.parametrize("factor", (1, 2, 3, 7, 10))
@pytest.mark.parametrize("period", (1, 7, 41, 100))
def test_restarts_come_at_their_step(period, factor):
    """Periods of whole steps restart exactly on time for a million steps, at exactly the first value."""
    schedule = cx.warm_restarts_schedule(0.3, period, factor)
    lengths = period * float(factor) ** np.arange(25)
    begins = np.cumsum(lengths) - lengths
    np.testing.assert_array_equal(schedule(begins)[begins < 1e6], np.float32(0.3))
    ends = (begins + lengths) * max(factor - 1, 1) < 2**24  # whole numbers of float32
    last = 0.3 * np.sin(0.5 * np.pi / lengths) ** 2
    np.testing.assert_allclose(schedule(begins + lengths - 1)[ends], last[ends], rtol=1e-6)
    if factor == 2:  # whose powers float32 holds at any age
        restarts = begins[begins < 2**31].astype(np.int32)
        np.testing.assert_array_equal(schedule(restarts), np.float32(0.3))
        np.testing.assert_allclose(schedule(restarts[1:] - 1), last[: len(restarts) - 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    (
        (cx.linear_schedule(1.0, 0.5, 0), [1, 0.5, 0.5]),
        (cx.linear_schedule(1.0, 0.5, 0, transition_begin=1), [1, 1, 0.5]),
        (cx.polynomial_schedule(1.0, 0.5, 2.0, 0), [1, 0.5, 0.5]),
        (cx.cosine_decay_schedule(1.0, 0, 0.5), [1, 0.5, 0.5]),
        (cx.warmup_schedule(cx.linear_schedule(1.0, 0.0, 4), 0), [1, 0.75, 0.5]),
        (cx.warmup_schedule(cx.linear_schedule(1.0, 0.0, 4), 0, restart=False), [1, 0.75, 0.5]),
        (cx.warmup_cosine_decay_schedule(0.0, 1.0, 0, 2), [1, 0.5, 0]),
        (cx.warmup_cosine_decay_schedule(0.0, 0.0, 0, 1, end_value=0.5), [0, 0.5, 0.5]),
        (cx.join_schedules((3.0, 2.0, 1.0), (0, 1)), [2, 1, 1]),
        (cx.join_schedules((3.0, 2.0, 1.0), (1, 1)), [3, 1, 1]),
        (cx.join_schedules((3.0,), ()), [3, 3, 3]),
        (cx.step_schedule(1.0, 1, 0.0), [1, 0, 0]),
        (cx.exponential_decay(1.0, 1, 0.0), [1, 0, 0]),
        (cx.polynomial_schedule(1.0, 0.0, 0.0, 2), [1, 1, 0]),
        (cx.piecewise_constant_schedule(1.0, {}), [1, 1, 1]),
        (cx.piecewise_constant_schedule(1.0, {1: 0.0}), [1, 0, 0]),
        (cx.piecewise_interpolate_schedule("linear", 1.0, ((1, 2.0), (1, 2.0))), [1, 4, 4]),
        (cx.multiplicative_schedule(2.0, 0.5, 0), [2, 2, 2]),
        (cx.multiplicative_schedule(2.0, 0.5, 1), [2, 1, 1]),
        (cx.inverse_sqrt_schedule(1.0, 0), [0, 1, 0.5**0.5]),
        (cx.rex_schedule(1.0, 0), [1, 0, 0]),
        (cx.cosine_decay_schedule(1.0, 1, exponent=0.0), [1, 1, 1]),
        (cx.onecycle_schedule(2, 0.5, 0.5, 5.0, 1.0), [0.5, 0.1, 0.1]),
        (cx.onecycle_schedule(1, 0.5, 0.3, 5.0, 1.0), [0.1, 0.1, 0.1]),
        (cx.warmup_stable_decay_schedule(1.0, 0, 0, 0), [1, 0, 0]),
        (cx.warmup_stable_decay_schedule(1.0, 0, 1, 0), [1, 1, 0]),
        (cx.cyclic_schedule(1.0, 2.0, 1), [1, 2, 1]),
        (cx.cosine_annealing_schedule(1.0, 1), [1, 0, 1]),
        (cx.sgdr_schedule([{"init_value": 0, "peak_value": 1, "warmup_steps": 1, "decay_steps": 2}] * 2), [0, 1, 0]),
    ),
    ids=repr,
)
def test_degenerate_lengths(schedule, expected):
    """Transitions of no length and factors of 0 give their ends, never NaN, traced or not."""
    np.testing.assert_allclose(schedule(np.arange(3)), expected, atol=1e-7)
    np.testing.assert_allclose(jax.jit(lambda s, k: s(k))(schedule, np.arange(3)), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    (
        (cx.linear_schedule(0.1, 1e-5, 41), 0.1, 1e-5),
        (cx.linear_schedule(0.0, 0.1, 41, transition_begin=3), 0.0, 0.1),
        (cx.polynomial_schedule(0.0, 0.1, 3.0, 41), 0.0, 0.1),
        (cx.polynomial_schedule(0.1, 1e-5, 0.5, 41), 0.1, 1e-5),
        (cx.cosine_decay_schedule(0.1, 41), 0.1, 0.0),
        (cx.warmup_schedule(cx.linear_schedule(0.1, 1e-5, 41), 41), 0.0, 1e-5),
        (cx.warmup_cosine_decay_schedule(1e-5, 0.1, 41, 82, end_value=1e-6), 1e-5, 1e-6),
        (cx.cosine_decay_schedule(0.1, 41, exponent=0.3), 0.1, 0.0),
        (cx.rex_schedule(0.1, 41, 1e-6), 0.1, 1e-6),
        (cx.warmup_stable_decay_schedule(0.1, 3, 7, 41, 1e-5, 1e-6, decay="1-sqrt"), 1e-5, 1e-6),
        (cx.warmup_stable_decay_schedule(0.1, 3, 7, 41, 1e-5, 1e-6, decay="cosine"), 1e-5, 1e-6),
        (cx.onecycle_momentum_schedule(83, pct_start=0.31), 0.95, 0.95),
        (cx.onecycle_schedule(83, 0.5, 0.31, 2.0, 4.0), 0.25, 0.0625),
    ),
    ids=repr,
)
def test_ends_are_met_exactly(schedule, first, last):
    """At step 0, and from the end to 2²⁴ steps and beyond, the value is the one given, to the last bit."""
    for call in (schedule, jax.jit(schedule)):
        assert call(0) == np.float32(first)
        np.testing.assert_array_equal(call(np.array([82, 10**6, 2**24, 2**31 - 1])), np.float32(last))


@every_schedule
def test_finite_everywhere(schedule):
    """No NaN and no infinity at any age, nor in the derivatives by the schedule's numbers."""
    steps = jnp.array([0, 1, 2, 4, 5, 7, 9, 10, 11, 16, 25, 50, 60, 1000, 2**24, 2**31 - 1])
    values, slopes = quickly(lambda s: (s(steps), jax.jacobian(lambda s: s(steps))(s)))(schedule)
    assert np.all(np.isfinite(values))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slopes))


# Ages at which float32 does not hold every whole number

TRIANGLE = cx.cyclic_schedule(0.1, 1.0, 3, 4)


def thirds(step):
    """A function of the step that has a period."""
    return (step % 3).astype(jnp.float32)


# The schedule, the step from which it repeats itself, and its period.
PERIODIC = (
    (TRIANGLE, 0, 7),
    (cx.cyclic_schedule(0.1, 1.0, 2, scale=thirds, scale_by="step"), 0, 12),
    (cx.cosine_annealing_schedule(1.0, 5, 0.1), 0, 10),
    (cx.cosine_annealing_schedule(1.0, 2**20 + 1), 0, 2**21 + 2),
    (cx.cosine_annealing_schedule(1.0, 50 / 3), 0, 100 / 3),
    (cx.warm_restarts_schedule(1.0, 7, end_value=0.1), 0, 7),
    (cx.warm_restarts_schedule(1.0, 40.7), 0, 40.7),
    (2 * TRIANGLE * thirds, 0, 21),
    (TRIANGLE + thirds, 0, 21),
    (1 / TRIANGLE, 0, 7),
    (TRIANGLE**0.5, 0, 7),
    (cx.warmup_schedule(TRIANGLE, 9), 9, 7),
    (cx.warmup_schedule(TRIANGLE * thirds, 9, restart=False), 9, 21),
    (cx.linear_schedule(0.1, 1.0, 9).then(TRIANGLE, at=9), 9, 7),
    (cx.linear_schedule(0.1, 1.0, 9).then(TRIANGLE, at=9).then(2 * TRIANGLE, at=11.5), 12, 7),
    (cx.bias_corrected_schedule(TRIANGLE, 0.5, 0.5), 700, 7),
)
# Schedules in which something begins at step b; numbers that float32 holds at b = 2³⁰ too.
BEGINNING = (
    lambda b: cx.linear_schedule(1.0, 0.0, 128, b),
    lambda b: cx.polynomial_schedule(1.0, 0.1, 2.0, 128, b),
    lambda b: cx.exponential_decay(1.0, 10, 0.5, b),
    lambda b: cx.exponential_decay(1.0, 10, 0.5, b, staircase=True),
    lambda b: cx.half_life_schedule(0.5, 0.9, 128, b),
    lambda b: cx.piecewise_constant_schedule(1.0, {b: 0.5, b + 128: 3.0}),
    lambda b: cx.piecewise_interpolate_schedule("cosine", 1.0, {b: 0.5, b + 128: 3.0}),
    lambda b: cx.warmup_schedule(cx.cosine_decay_schedule(1.0, 128), b),
    lambda b: cx.warmup_schedule(1.0, b, restart=False).then(cx.multiplicative_schedule(1.0, 0.9, 9), at=b),
    lambda b: cx.warmup_cosine_decay_schedule(0.0, 1.0, b, b + 128),
    lambda b: cx.warmup_stable_decay_schedule(1.0, 128, b - 128, 128, decay="1-sqrt"),
    lambda b: cx.join_schedules((0.1, cx.rex_schedule(1.0, 128), TRIANGLE), (b, b + 128)),
)
AGES = (2**24 - 3, 2**30)


def both_ways(schedules):
    """The values of schedules after some steps, their numbers once constant, once traced."""
    for traced in (False, True):
        call = quickly(lambda schedules, k: [s(k) for s in schedules]) if traced else None
        constant = quickly(lambda k: [s(k) for s in schedules])
        yield traced, functools.partial(call, schedules) if traced else constant


def test_periods_are_kept_at_any_age():
    """From 2²⁴ − 3 and from 2³⁰ on, a schedule is as from the same phase near 0."""
    schedules = tuple(schedule for schedule, _, _ in PERIODIC)
    for traced, call in both_ways(schedules):
        values = [call(age + STEPS) for age in AGES]
        for i, (schedule, start, period) in enumerate(PERIODIC):
            period = float(np.float32(period)) if traced else period
            for age, value in zip(AGES, values):
                expected = schedule(start + np.mod(age + STEPS.astype(np.float64) - start, period))
                np.testing.assert_allclose(value[i], expected, 3e-6, 1e-5 * (period % 1 > 0), err_msg=repr(schedule))


def test_beginnings_are_kept_at_any_age():
    """What begins after 2²⁴ or 2³⁰ steps goes as what begins after 2¹² of them."""
    steps = np.arange(150)
    expected = quickly(lambda k: [make(4096)(k) for make in BEGINNING])(4096 + steps)
    for age in (2**24, 2**30):
        schedules = tuple(make(age) for make in BEGINNING)
        for _, call in both_ways(schedules):
            for schedule, *values in zip(schedules, call(age + steps), expected):
                np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-9, err_msg=repr(schedule))


def test_long_falls_are_exact():
    """Lengths beyond 2²⁴ end at their last step, and stairs come at their step."""
    end = 2**24 + 9
    steps = end - 20 + np.arange(30)
    ways = (
        *(cx.linear_schedule(1.0, 0.0, end), cx.polynomial_schedule(1.0, 0.0, 2.0, end)),
        *(cx.cosine_decay_schedule(1.0, end), cx.rex_schedule(1.0, end), cx.onecycle_schedule(end, 1.0)),
        *(cx.warmup_cosine_decay_schedule(0.0, 1.0, 9, end), cx.warmup_schedule(1.0, end)),
        cx.constant_schedule(0.0).then(1.0, at=end),
    )
    values = quickly(lambda k: [s(k) for s in ways])(steps)
    with jax.enable_x64(True):
        exact = [s(steps) for s in ways]
    for schedule, value, expected in zip(ways, values, exact):
        np.testing.assert_allclose(value, expected, rtol=3e-6, err_msg=repr(schedule))
    for size in (2**20 + 1, 1_000_003):
        begins = size * np.arange(1, 2**30 // size)
        stairs = cx.step_schedule(1.0, size, 63 / 64), cx.exponential_decay(1.0, size, 63 / 64, staircase=True)
        for _, call in both_ways(stairs):
            for late in (0, 1):
                for value in call(begins - late):
                    np.testing.assert_allclose(value, (63 / 64) ** (begins // size - late), rtol=1e-5)


# Steps of every kind


@every_schedule
def test_steps_of_every_kind(schedule):
    """Arrays, Python numbers, int32 and floats; the result has the shape of the steps."""
    values = schedule(STEPS)
    assert values.shape == STEPS.shape
    assert values.dtype == jnp.float32
    for convert in (int, float, np.int32, np.float32, jnp.int32, jnp.float32):
        single = [schedule(convert(k)) for k in STEPS[::11]]
        assert all(x.shape == () and x.dtype == jnp.float32 for x in single)
        np.testing.assert_allclose(single, values[::11], rtol=1e-6, atol=1e-9)
    call = jax.jit(schedule)
    np.testing.assert_allclose(call(STEPS.reshape(5, 9)), values.reshape(5, 9), rtol=1e-6, atol=1e-9)
    assert jax.eval_shape(schedule, jax.ShapeDtypeStruct((0, 2), jnp.int32)).shape == (0, 2)


@every_schedule
def test_double_precision(schedule, x64):
    """Under x64 the result is float64 and agrees with the float32 one."""
    values = jax.jit(schedule)(STEPS)
    assert values.dtype == jnp.float64
    with jax.enable_x64(False):
        np.testing.assert_allclose(jax.jit(schedule)(STEPS), values, rtol=3e-6, atol=1e-9)


@pytest.mark.parametrize("x64", (False, True), ids=("x32", "x64"))
def test_bare_function(x64):
    """A function of the step takes part wherever a schedule does. This one returns float32 under x64 too."""
    with jax.enable_x64(x64):
        expected = np.where(STEPS < 3, STEPS / 3, 0.5 ** np.maximum(STEPS - 3.0, 0))
        np.testing.assert_allclose(cx.warmup_schedule(halving, 3)(STEPS), expected, rtol=1e-6)
        np.testing.assert_allclose(
            cx.join_schedules((1.0, halving), (3,))(STEPS), np.where(STEPS < 3, 1.0, expected), rtol=1e-6
        )
        np.testing.assert_allclose(
            cx.bias_corrected_schedule(halving, b1=0.0, b2=0.0)(STEPS), 0.5 ** STEPS.astype(np.float64), rtol=1e-6
        )


def test_bare_function_gets_the_widest_integer(x64):
    """A quotient of whole numbers is float64 where there is float64, also within other schedules and in a step."""
    inverse = cx.from_function(lambda k: 1 / (k + 1))
    for schedule in (inverse, 1.0 * inverse, cx.constant_schedule(0.0).then(inverse, at=0)):
        np.testing.assert_allclose(schedule(STEPS), 1 / (STEPS + 1), rtol=1e-15)
    tx, state = cx.scale(inverse), cx.scale(inverse).init(np.ones(2))._replace(step=jnp.int32(2))
    np.testing.assert_allclose(tx.update(np.ones(2), state)[0], 1 / 3, rtol=1e-15)


# Values


@every_schedule
def test_schedule_is_a_value(schedule):
    """It prints as the code that makes it, compares, hashes, pickles and passes through JSON."""
    copies = (
        eval(repr(schedule), vars(cx)),
        pickle.loads(pickle.dumps(schedule)),
        cx.from_config(json.loads(json.dumps(cx.to_config(schedule)))),
        jax.tree.map(lambda x: x, schedule),
    )
    for copy in copies:
        assert type(copy) is type(schedule)
        assert copy == schedule
        assert hash(copy) == hash(schedule)
    other = scaled(schedule, 1.25)
    assert other != schedule
    assert len({schedule, other, *copies}) == 2


@every_schedule
def test_derivatives_by_the_numbers(schedule, x64):
    """Gradients by all of a schedule's numbers are the finite differences, between the kinks."""
    steps = np.array([1.3, 4.6, 6.2, 11.7, 33.4])

    def weighted(numbers):
        return jnp.sum(jnp.sin(1.0 + steps) * jax.tree.unflatten(structure, numbers)(steps))

    numbers, structure = jax.tree.flatten(schedule)
    slopes, value = quickly(jax.grad(weighted))(numbers), quickly(weighted)
    for i, slope in enumerate(slopes):
        kinks = [getattr(schedule, field) for field in schedule.kinks]
        if any(numbers[i] is x and x == limits_of(type(schedule), f).low for f, x in zip(schedule.kinks, kinks)):
            assert slope == 0
            continue
        h = 1e-6
        up, down = (value([*numbers[:i], numbers[i] + d, *numbers[i + 1 :]]) for d in (h, -h))
        np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


@every_schedule
def test_vmap_over_a_stack(schedule):
    """A stack of schedules, mapped over, is each of them."""
    each = [scaled(schedule, factor) for factor in (1.0, 1.1, 1.3)]
    stacked = cx.stack(each)
    axes = jax.tree.map(lambda x: 0 if np.ndim(x) else None, stacked)
    values = jax.vmap(lambda s: s(STEPS), in_axes=(axes,))(stacked)
    # Traced numbers are rounded to float32 first: a power of them multiplies the error, up to 45 times here.
    np.testing.assert_allclose(values, [s(STEPS) for s in each], rtol=5e-6, atol=1e-9)
    assert not np.allclose(values[0], values[2], rtol=1e-3)


@every_schedule
def test_changed_numbers_compile_once(schedule):
    """Passed to a jitted function, a schedule's numbers are inputs; closed over, they are constants."""
    traces = 0

    @jax.jit
    def call(s, k):
        nonlocal traces
        traces += 1
        return s(k)

    for factor in (1.0, 1.1, 1.3):
        changed = scaled(schedule, factor)
        np.testing.assert_allclose(call(changed, STEPS), changed(STEPS), rtol=5e-6, atol=1e-9)
    assert traces == 1


# Bad input

LINE = cx.linear_schedule(1.0, 0.0, 4)
FIRST = np.array([0, 1, 2, 9, 50])
KINDS = {type(s): s for s in reversed(SCHEDULES)}
NUMERIC = [(cls, f) for cls, s in KINDS.items() for f in cls._leaves if not isinstance(getattr(s, f), tuple)]


def limits_of(cls, field):
    """The range that a field declares."""
    return cls.__dataclass_fields__[field].metadata["range"]


def with_number(cls, field, number):
    """A schedule with another number; ``None`` for a 0 that the class refuses by a check of its own, as a divisor."""
    try:
        return KINDS[cls].replace(**{field: number})
    except ValueError as e:
        refusal = str(e)
    assert number == 0
    assert "check" in vars(cls)
    assert refusal == f"`{cls.__name__}.{field}` must not be 0"
    return None


@pytest.mark.parametrize("bad", (True, "1", [1.0], {"w": 1.0}, None, float("nan"), 1j, np.array([True])), ids=repr)
@pytest.mark.parametrize(("cls", "field"), NUMERIC, ids=lambda x: getattr(x, "__name__", x))
def test_what_is_no_number(cls, field, bad):
    """The error names the schedule and the field."""
    if bad is None and cls.__dataclass_fields__[field].default is None:
        return  # means that there is none
    with pytest.raises(ValueError, match=f"`{cls.__name__}.{field}` must"):
        KINDS[cls].replace(**{field: bad})


STEP_FIELDS = [(cls, field) for cls in KINDS for field in cls._leaves if limits_of(cls, field).steps]


def test_every_length_is_known_as_one():
    """Whatever a field's name says counts steps does."""
    named = [(cls, x) for cls in KINDS for x in cls._leaves if re.search("steps?(_|$)|period|begin|boundar", x)]
    assert set(named) == set(STEP_FIELDS)


@pytest.mark.parametrize(("cls", "field"), STEP_FIELDS, ids=lambda x: getattr(x, "__name__", x))
def test_a_share_is_no_number_of_steps(cls, field):
    """Between 0 and 1 nothing counts steps; the error shows the order of the arguments. From 1 on fractions do."""

    def build(length):
        several = {"boundaries": (length,) * 2, "boundaries_and_scales": ((length, 0.5),)}
        return KINDS[cls].replace(**{field: several.get(field, length)})

    order = ", ".join(f.name for f in dataclasses.fields(cls))
    for share in (1e-3, 0.1, np.float32(0.5), 1 - 1e-9, jnp.float32(0.5)):
        words = rf"`{cls.__name__}.{field}.*` must be a number of steps, .*at least 1, got 0\."
        with pytest.raises(ValueError, match=words) as caught:
            build(share)
        assert str(caught.value).endswith(f"; the arguments are {cls.__name__}({order})")
    for length in (1, 1.5, jnp.float32(1.25)):
        assert build(length) != build(2.5)
    if limits_of(cls, field).admits(0):
        build(0)


def test_fractional_warm_ups_stay():
    """Those of prebuilt chains, of which the first step is counted too."""
    for steps in (1, 1.5, 2.5):
        assert cx.ademamix(warmup_steps=steps) != cx.ademamix()
        assert cx.schedule_free_adamw(1e-3, warmup_steps=steps) != cx.schedule_free_adamw(1e-3)
    for build in (cx.ademamix, cx.schedule_free_adamw):
        with pytest.raises(ValueError, match=r"must be a number of steps, 0 or at least 1, got 0\.5"):
            build(1e-3, warmup_steps=0.5)


@pytest.mark.parametrize(("cls", "field"), NUMERIC, ids=lambda x: getattr(x, "__name__", x))
def test_ends_of_every_range_give_numbers(cls, field):
    """Whatever the field admits, nothing is NaN, infinite or an error in the first steps, for arrays too."""
    limits = limits_of(cls, field)
    low, high = max(limits.low, -1.0), min(limits.high, 50.0)
    for number in (low, low + 1e-30, 0.0, 1.0, np.nextafter(high, low), high):
        if not limits.admits(number) or (limits.steps and 0 < number < 1):
            continue
        schedule = with_number(cls, field, number)
        if schedule is None:
            continue
        assert np.all(np.isfinite(schedule(FIRST))), number
        if limits.admits(np.float32(number)):
            assert np.all(np.isfinite(jax.tree.map(jnp.float32, schedule)(FIRST))), number


@pytest.mark.parametrize(
    ("build", "message"),
    (
        (lambda: cx.linear_schedule(1.0, 0.0, -1), r"`linear_schedule.transition_steps` must lie in \[0, ∞\), got -1"),
        (lambda: cx.linear_schedule(1.0, 0.0, 1, -2), "`linear_schedule.transition_begin` must lie in"),
        (lambda: cx.linear_schedule(1.0, lambda k: k, 1), "`linear_schedule.end_value` must be a number"),
        (lambda: cx.linear_schedule(LINE, 0.0, 1), "`linear_schedule.init_value` must be a number"),
        (lambda: cx.polynomial_schedule(1.0, 0.0, -1.0, 1), "`polynomial_schedule.power` must lie in"),
        (lambda: cx.exponential_decay(1.0, 0, 0.9), "`exponential_decay.transition_steps` must lie in"),
        (lambda: cx.exponential_decay(1.0, 1, 0.9, staircase=1.5), "`exponential_decay.staircase` must be one of"),
        (lambda: cx.step_schedule(1.0, 0), "`step_schedule.step_size` must lie in"),
        (lambda: cx.cosine_decay_schedule(1.0, -1), "`cosine_decay_schedule.decay_steps` must lie in"),
        (lambda: cx.warm_restarts_schedule(1.0, 0), "`warm_restarts_schedule.period` must lie in"),
        (lambda: cx.warm_restarts_schedule(1.0, 1, 0.5), "`warm_restarts_schedule.factor` must lie in"),
        (lambda: cx.warmup_schedule(LINE, -1), "`warmup_schedule.warmup_steps` must lie in"),
        (lambda: cx.warmup_schedule(lambda k: {"w": k}, 1), r"`warmup_schedule.after`: .* returns a dict"),
        (lambda: cx.warmup_schedule(cx.scale(1.0), 1), r"`warmup_schedule.after` must be .* got scale\(1\)"),
        (
            lambda: cx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 10),
            "decay_steps` counts the warm-up .* decay_steps=10",
        ),
        (lambda: cx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 9), "must exceed warmup_steps, got decay_steps=9"),
        (lambda: cx.join_schedules((LINE, LINE), (3, 4)), "boundaries` must be one fewer .* got 2 for 2 schedules"),
        (lambda: cx.join_schedules((LINE, LINE), ()), "boundaries` must be one fewer"),
        (lambda: cx.join_schedules((), ()), "boundaries` must be one fewer"),
        (
            lambda: cx.join_schedules((1.0, 2.0, 3.0), (4, 3)),
            r"`join_schedules.boundaries` must not fall, got \(4, 3\)",
        ),
        (lambda: cx.join_schedules((1.0, 2.0), (-1,)), r"`join_schedules.boundaries\[0\]` must lie in"),
        (lambda: cx.join_schedules((1.0, 2.0), ("3",)), r"`join_schedules.boundaries\[0\]` must be a number"),
        (lambda: cx.join_schedules((1.0, 2.0), 3), "`join_schedules.boundaries` must be a tuple, got 3"),
        (lambda: cx.join_schedules(LINE, (3,)), "`join_schedules.schedules` must be a tuple"),
        (lambda: cx.join_schedules((1.0, "2"), (3,)), r"`join_schedules.schedules\[1\]` must be a number"),
        (lambda: LINE * "2", r"`product.factors\[1\]` must be a number"),
        (lambda: LINE + "2", r"`total.terms\[1\]` must be a number"),
        (lambda: LINE - "2", r"`product.factors\[1\]` must be a number"),
        (lambda: LINE - True, r"`product.factors\[1\]` must be a number"),
        (lambda: LINE / cx.scale(1.0), "`quotient.divisor` must be a number or a schedule"),
        (lambda: LINE ** (lambda k: {"w": k}), "`power.exponent`: .* returns a dict"),
        (lambda: LINE.then("2", at=3), r"`join_schedules.schedules\[1\]` must be a number"),
        (lambda: cx.piecewise_constant_schedule(1.0, 0.1), "_and_scales` must be {step: number} or pairs .* got 0.1"),
        (lambda: cx.piecewise_constant_schedule(1.0, "ab"), "must be {step: number} or pairs of them, got 'ab'"),
        (lambda: cx.piecewise_constant_schedule(1.0, ((1, 2, 3),)), "must be {step: number} or pairs of them"),
        (lambda: cx.piecewise_constant_schedule(1.0, {1: "2"}), "_and_scales` must be a number"),
        (lambda: cx.piecewise_constant_schedule(1.0, {-1: 2.0}), r"_and_scales` must lie in \[0, ∞\), got -1"),
        (lambda: cx.piecewise_interpolate_schedule("cubic", 1.0, {}), "type` must be one of 'linear', 'cosine', got"),
        (lambda: cx.multiplicative_schedule(1.0, 0.5, 3.0), "steps` must be a whole number from 0, got 3"),
        (lambda: cx.multiplicative_schedule(1.0, 0.5, -1), "steps` must be a whole number from 0, got -1"),
        (lambda: LINE / 0.0, "`quotient.divisor` must not be 0"),
        (lambda: cx.power(-1.0, LINE), r"`power.base` must lie in \[0, ∞\), got -1"),
        (lambda: cx.onecycle_schedule(90, 1.0, div_factor=0.0), r"`onecycle_schedule.div_factor` must lie in \(0, ∞\)"),
        (lambda: cx.cosine_onecycle_schedule(90, 1.0, final_div_factor=0), r"factor` must lie in \(0, ∞\), got 0"),
        (lambda: cx.onecycle_schedule(90, 1.0, 1.1), r"`onecycle_schedule.pct_start` must lie in \[0, 1\], got 1.1"),
        (lambda: cx.cyclic_schedule(0.1, 1.0, 5, 0), r"`cyclic_schedule.step_size_down` must lie in \[1, ∞\)"),
        (lambda: cx.cyclic_schedule(0.1, 1.0, scale_by="epoch"), "`cyclic_schedule.scale_by` must be one of"),
        (lambda: cx.warmup_stable_decay_schedule(1.0, 1, 1, 1, decay="sqrt"), "decay` must be one of .*'1-sqrt'"),
        (lambda: cx.bias_corrected_schedule(1e-3, b1=1.0), "`bias_corrected_schedule.b1` must lie in"),
    ),
)
def test_bad_input(build, message):
    """Values that are certainly a mistake are errors that name the field."""
    with pytest.raises(ValueError, match=message):
        build()
