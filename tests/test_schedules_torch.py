"""Schedules against PyTorch's, over 1000 steps and random settings."""

import chainax as cx
import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
lr_scheduler = torch.optim.lr_scheduler

STEPS = 1000


def learning_rates(lr, make):
    """The learning rate of each step, as PyTorch's scheduler sets it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def constant(draw, lr):
    """A fraction of the rate, then the rate."""
    factor, steps = draw.uniform(0.01, 0.9), int(draw.integers(1, 900))
    schedule = cx.join_schedules((lr * factor, lr), (steps,))
    return schedule, lambda o: lr_scheduler.ConstantLR(o, factor, steps)


def step(draw, lr):
    """A fall every few steps."""
    size, gamma = int(draw.integers(20, 100)), draw.uniform(0.5, 1.0)
    return cx.step_schedule(lr, size, gamma), lambda o: lr_scheduler.StepLR(o, size, gamma)


def exponential(draw, lr):
    """A fall at every step."""
    gamma = draw.uniform(0.98, 1.0)
    return cx.exponential_decay(lr, 1, gamma), lambda o: lr_scheduler.ExponentialLR(o, gamma)


def linear(draw, lr):
    """A line between two fractions of the rate."""
    (a, b), steps = draw.uniform(0.1, 1.0, 2), int(draw.integers(1, 900))
    return cx.linear_schedule(lr * a, lr * b, steps), lambda o: lr_scheduler.LinearLR(o, a, b, steps)


def polynomial(draw, lr):
    """A power of the time left."""
    power, steps = draw.uniform(0.5, 3.0), int(draw.integers(1, 900))
    return cx.polynomial_schedule(lr, 0.0, power, steps), lambda o: lr_scheduler.PolynomialLR(o, steps, power)


def cosine(draw, lr):
    """Half a cosine, up to its end."""
    end = draw.uniform(0.0, 0.5)
    return cx.cosine_decay_schedule(lr, STEPS, end), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, lr * end)


def restarts(factor):
    """SGDR with one factor."""

    def draw_restarts(draw, lr):
        period, end = int(draw.integers(1, 100)), lr * draw.uniform(0.01, 0.5)
        schedule = cx.warm_restarts_schedule(lr, period, factor, end)
        return schedule, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, period, factor, end)

    draw_restarts.__name__ = f"restarts_{factor}"
    return draw_restarts


def warmup(draw, lr):
    """A line up, then half a cosine."""
    start, steps = draw.uniform(0.01, 0.5), int(draw.integers(2, 400))

    def make(o):
        up, down = lr_scheduler.LinearLR(o, start, 1.0, steps), lr_scheduler.CosineAnnealingLR(o, STEPS, lr / 10)
        return lr_scheduler.SequentialLR(o, [up, down], [steps])

    return cx.warmup_schedule(cx.cosine_decay_schedule(lr, STEPS, 0.1), steps, lr * start), make


def warmup_cosine(draw, lr):
    """The same as one schedule."""
    nested, make = warmup(draw, lr)
    steps = nested.warmup_steps
    return cx.warmup_cosine_decay_schedule(nested.init_value, lr, steps, steps + STEPS, lr / 10), make


def joined(draw, lr):
    """Three in a row."""
    first, second = sorted(draw.choice(np.arange(1, STEPS), 2, replace=False).tolist())

    def make(o):
        parts = (
            lr_scheduler.ConstantLR(o, 0.1, STEPS),
            lr_scheduler.StepLR(o, 30, 0.9),
            lr_scheduler.ExponentialLR(o, 0.99),
        )
        return lr_scheduler.SequentialLR(o, list(parts), [first, second])

    parts = 0.1 * lr, cx.step_schedule(lr, 30, 0.9), cx.exponential_decay(lr, 1, 0.99)
    return cx.join_schedules(parts, (first, second)), make


# PyTorch multiplies the last rate by a quotient at each step, so its rounding errors add up: 1000 of
# them at 1.1e-16 are 1e-13. Ours does not depend on the steps before, and keeps float32's 6e-8 but
# for a power of γ, whose exponent n·log γ is rounded: by 6e-8 of itself, which is at most 35 here.
FLOAT64, FLOAT32 = 2e-13, {step: 2e-6, exponential: 2e-6}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "family",
    (constant, step, exponential, linear, polynomial, cosine, *map(restarts, (1, 2, 3)), warmup, warmup_cosine, joined),
    ids=lambda f: f.__name__,
)
def test_schedule_is_pytorchs(family, seed):
    """The same rates in float64 and float32, relative to the rate itself however small it has become."""
    draw = np.random.default_rng(seed)
    lr = float(10 ** draw.uniform(-4, 0))
    schedule, make = family(draw, lr)
    expected = learning_rates(lr, make)
    np.testing.assert_allclose(schedule(np.arange(STEPS)), expected, rtol=FLOAT32.get(family, 1e-6))
    with jax.enable_x64(True):
        np.testing.assert_allclose(schedule(np.arange(STEPS)), expected, rtol=FLOAT64)
