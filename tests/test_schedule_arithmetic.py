"""Schedules put together: sums, products, powers, sequences; and what they say of themselves."""

import dataclasses
import json
from string import Formatter

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import SCHEDULES, classes
from test_schedules import STEPS, every_schedule, halving

A, B = cx.linear_schedule(1.0, 0.1, 40), cx.cosine_decay_schedule(0.5, 60, 0.2)
a, b, f = (np.asarray(s(STEPS), np.float64) for s in (A, B, cx.from_function(halving)))

ARITHMETIC = (
    (2 * A, 2 * a),
    (A * 2.0, 2 * a),
    (A * B, a * b),
    (0.5 * A * B * 3.0, 1.5 * a * b),
    (A * halving, a * f),
    (halving * A, a * f),
    (-A, -a),
    (-(2 * A), -2 * a),
    (A + B, a + b),
    (1 + A + (B + 3.0), a + b + 4),
    (sum([A, B]), a + b),
    (A + halving, a + f),
    (A - B, a - b),
    (A - 1, a - 1),
    (1.5 - A, 1.5 - a),
    (halving - A, f - a),
    (A - halving, a - f),
    (A - 2 * B, a - 2 * b),
    (A / B, a / b),
    (A / 3, a / 3),
    (3.0 / A, 3 / a),
    (A / halving, a / f),
    (halving / A, f / a),
    (A**2, a**2),
    ((-A) ** 2, a**2),
    (A**B, a**b),
    (10**A, 10**a),
    (A**halving, a**f),
    *((x(2.0) * A + x(1.0), 2 * a + 1) for x in (np.float32, np.float64, np.array, jnp.float32, jnp.array)),
    *((x(1.0) - x(2.0) / A, 1 - 2 / a) for x in (np.float32, np.float64, np.array, jnp.float32, jnp.array)),
    *((A - x(2.0) ** A, a - 2**a) for x in (np.float32, np.float64, np.array, jnp.float32, jnp.array)),
)


@pytest.mark.parametrize(
    ("schedule", "expected"), ARITHMETIC, ids=lambda x: repr(x) if isinstance(x, cx.Schedule) else ""
)
def test_arithmetic(schedule, expected):
    """Schedules, functions, and numbers of every kind, from both sides; a function may return float32 under x64."""
    assert isinstance(schedule, (cx.product, cx.total, cx.quotient, cx.power))
    np.testing.assert_allclose(schedule(STEPS), expected, rtol=1e-6, atol=1e-7)
    with jax.enable_x64(True):
        values = schedule(STEPS)
        assert values.dtype == jnp.float64
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)


def test_arithmetic_is_flat_and_prints_in_order():
    """Products and sums take up others of their kind."""
    one, two = cx.constant_schedule(1.0), cx.constant_schedule(2.0)
    assert repr(3 * one * (two * 4)) == "product((3, constant_schedule(1), constant_schedule(2), 4))"
    assert repr(3 + one - (two + 4)) == (
        "total((3, constant_schedule(1), product((-1, total((constant_schedule(2), 4))))))"
    )
    assert repr(one - 4) == "total((constant_schedule(1), -4))"
    assert repr(one - 2 * two) == "total((constant_schedule(1), product((-1, 2, constant_schedule(2)))))"


def test_power_of_nothing():
    """0 to a power is as mathematics has it, and its derivatives stay finite."""
    nothing = cx.linear_schedule(1.0, 0.0, 1)
    for exponent, expected in ((2.0, 0.0), (0.5, 0.0), (0.0, 1.0), (-1.0, np.inf)):
        schedule = nothing**exponent
        assert schedule(5) == expected
        slopes = jax.grad(lambda s: s(5))(schedule)
        assert all(np.isfinite(slope) for slope in jax.tree.leaves(slopes))
    assert (0.0**nothing)(np.arange(2)).tolist() == [0.0, 1.0]


def test_then():
    """Each part counts from its own beginning, however many there are, and the whole is flat."""
    schedule = A.then(B, at=10).then(0.25, at=30).then(halving, at=40)
    assert isinstance(schedule, cx.join_schedules)
    assert schedule == cx.join_schedules((A, B, 0.25, halving), (10, 30, 40))
    np.testing.assert_allclose(schedule(STEPS), np.r_[a[:10], b[:20], 10 * [0.25], f[:5]], rtol=1e-6)
    with jax.enable_x64(True):
        assert schedule(STEPS).dtype == jnp.float64  # though the function returns float32


def test_then_before_the_last_boundary():
    """What would have come after the new boundary is left out; numbers that cannot be compared do the same."""
    joined = A.then(B, at=10).then(halving, at=30)
    schedule = joined.then(0.25, at=20)
    assert schedule == cx.join_schedules((A, B, 0.25), (10, 20))
    assert joined.then(0.25, at=3) == cx.join_schedules((A, 0.25), (3,))
    assert joined.then(0.25, at=10) == cx.join_schedules((A, B, 0.25), (10, 10))
    traced = jax.jit(lambda at, k: joined.then(0.25, at=at)(k))
    np.testing.assert_allclose(traced(20.0, STEPS), schedule(STEPS), rtol=1e-6)
    stacked = cx.stack([schedule, schedule.replace(boundaries=(11, 21))])
    axes = jax.tree.map(lambda x: 0 if np.ndim(x) else None, stacked)
    values = jax.vmap(lambda s: s.then(1.0, at=4)(STEPS), in_axes=(axes,))(stacked)
    np.testing.assert_allclose(values, 2 * [A.then(1.0, at=4)(STEPS)], rtol=1e-6)


def test_a_schedule_that_has_not_begun_is_not_asked():
    """Below its own step 0 a root has no value: its place in a sequence would make every earlier derivative NaN."""

    def value(factor, step):
        root = cx.from_function(lambda k: jnp.sqrt(k.astype(jnp.float32)))
        return cx.join_schedules((1.0, factor * root), (5,))(step)

    for step, slope in ((3, 0.0), (4, 0.0), (9, 2.0)):
        assert jax.grad(value)(3.0, step) == slope


# Descriptions

KINDS = {type(s): s for s in SCHEDULES}


def test_every_schedule_is_tested():
    """The laws of test_schedules run over every class of schedule that chainax has."""
    bare = {cls for cls in classes(cx.Schedule).values() if issubclass(cls, cx.from_function)}  # which have no numbers
    assert {*classes(cx.Schedule).values()} - bare == set(KINDS)


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
def test_phrase_holds_every_field(cls):
    """As a link's equation holds every symbol."""
    fields = {field.name for field in dataclasses.fields(cls)}
    assert fields == {name for _, name, _, _ in Formatter().parse(cls.phrase) if name} or "describe" in vars(cls)


@every_schedule
def test_description_shows_every_number(schedule):
    """One line, in which each number that is changed shows."""
    text = schedule.describe()
    assert "\n" not in text
    numbers, structure = jax.tree.flatten(schedule)
    for i, x in enumerate(numbers):
        changed = jax.tree.unflatten(structure, [*numbers[:i], 1.25 * x + 0.5, *numbers[i + 1 :]])
        assert changed.describe() != text


@pytest.mark.parametrize(
    ("schedule", "expected"),
    (
        (cx.linear_schedule(1.0, 1 / 3, 7), "a line from 1 to 0.333333 over 7 steps"),
        (cx.linear_schedule(1.0, 0.1, 7, 5), "a line from 1 to 0.1 over 7 steps, begun at step 5"),
        (cx.step_schedule(0.5, 7), "0.5, times 0.1 every 7 steps"),
        (cx.step_schedule(0.5, 7, 0.1), "0.5, times 0.1 every 7 steps"),
        (cx.exponential_decay(1.0, 10, 0.9, staircase=True), "1·0.9^(k/10), in stairs: True"),
        (
            cx.warmup_schedule(cx.cosine_decay_schedule(0.5, 30), 10),
            "a line from 0 over 10 steps, up to: half a cosine from 0.5 to 0·0.5 over 30 steps",
        ),
        (cx.warmup_schedule(halving, 10), "a line from 0 over 10 steps, up to: the function halving"),
        (1 - 2 * A / halving, "1 + (-1 × ((2 × (a line from 1 to 0.1 over 40 steps)) / (the function halving)))"),
        (10**A, "10 ^ (a line from 1 to 0.1 over 40 steps)"),
        (cx.step_schedule(0.5, 7).then(0.1, at=20), "0.5, times 0.1 every 7 steps; from step 20: 0.1"),
    ),
)
def test_description(schedule, expected):
    """What stands at its default is left out of the line."""
    assert schedule.describe() == expected


def test_description_of_a_schedule_of_ones_own():
    """Without a phrase it is the code."""

    @cxe.value
    class own_schedule(cx.Schedule):
        """Always half."""

        low: cxe.Hyper = cxe.number("not used", default=0.0)

        def at(self, k):
            return 0.5 + 0 * k

    assert own_schedule(low=0.25).describe() == "own_schedule(low=0.25)"


def test_traced_numbers_are_described():
    """While tracing, their type stands for them."""
    told = []
    jax.jit(lambda s: told.append(s.describe()))(cx.linear_schedule(1.0, 0.0, 4))
    number = "traced float32[]"
    assert told == [f"a line from {number} to {number} over {number} steps, begun at step {number}"]


def test_pairs_by_step_are_put_in_order():
    """A dict, pairs and JSON's lists make the same schedule, whatever their order."""
    schedule = cx.piecewise_constant_schedule(1.0, {80: 0.5, 30: 0.1})
    assert repr(schedule) == "piecewise_constant_schedule(1, ((30, 0.1), (80, 0.5)))"
    assert schedule == cx.piecewise_constant_schedule(1.0, [[30, 0.1], (80, 0.5)])
    assert schedule == cx.from_config(json.loads(json.dumps(cx.to_config(schedule))))
