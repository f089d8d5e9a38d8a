"""Schedules against PyTorch's, over 1000 steps and random settings."""

import chainax as cx
import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
lr_scheduler = torch.optim.lr_scheduler

STEPS = 1000


def settings_of(lr, make):
    """The learning rate and the momentum of each step, as PyTorch's scheduler sets them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler = make(optimizer)
    rates, momenta = [], []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    return np.array(rates), np.array(momenta)


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


def cut_short(draw, lr):
    """A constant that the second scheduler does not wait for."""
    factor, steps = draw.uniform(0.01, 0.9), int(draw.integers(1, 400))

    def make(o):
        parts = lr_scheduler.ConstantLR(o, factor, 500), lr_scheduler.StepLR(o, 30, 0.9)
        return lr_scheduler.SequentialLR(o, list(parts), [steps])

    first = cx.constant_schedule(lr * factor).then(lr, at=500)
    return first.then(cx.step_schedule(lr, 30, 0.9), at=steps), make


def chained(draw, lr):
    """Three at the same time."""
    factor, steps, size = draw.uniform(0.01, 0.9), int(draw.integers(1, 900)), int(draw.integers(20, 100))

    def make(o):
        parts = lr_scheduler.ConstantLR(o, factor, steps), lr_scheduler.StepLR(o, size, 0.9)
        return lr_scheduler.ChainedScheduler([*parts, lr_scheduler.ExponentialLR(o, 0.999)])

    schedule = cx.constant_schedule(factor).then(1.0, at=steps)
    return lr * schedule * cx.step_schedule(1.0, size, 0.9) * cx.exponential_decay(1.0, 1, 0.999), make


def chained_cosine(draw, lr):
    """A cosine to 0 and a fall at every step: as long as PyTorch's cosine falls."""
    gamma = draw.uniform(0.99, 1.0)

    def make(o):
        parts = lr_scheduler.CosineAnnealingLR(o, 2 * STEPS), lr_scheduler.ExponentialLR(o, gamma)
        return lr_scheduler.ChainedScheduler(list(parts))

    return cx.cosine_decay_schedule(lr, 2 * STEPS) * cx.exponential_decay(1.0, 1, gamma), make


def function(draw, lr):
    """The rate times a function of the step."""
    decay = draw.uniform(0.001, 0.1)
    ours = cx.from_function(lambda k: 1 / (1 + decay * k.astype(float)))
    return lr * ours, lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + decay * k))


def multiplicative(draw, lr):
    """The last rate times a function of the step."""
    rate = draw.uniform(0.001, 0.1)
    schedule = cx.multiplicative_schedule(lr, 1 - 0.5 * cx.inverse_time_decay_schedule(1.0, rate), STEPS)
    return schedule, lambda o: lr_scheduler.MultiplicativeLR(o, lambda k: 1 - 0.5 / (1 + rate * k))


def multi_step(draw, lr):
    """A fall at some steps, at one of them twice."""
    milestones, gamma = draw.integers(1, STEPS, 8).tolist(), draw.uniform(0.5, 1.0)
    milestones.append(milestones[0])
    schedule = cx.piecewise_constant_schedule(lr, [(m, gamma) for m in milestones])
    return schedule, lambda o: lr_scheduler.MultiStepLR(o, milestones, gamma)


def annealing(draw, lr):
    """A cosine, down and up."""
    half, end = int(draw.integers(1, 300)), lr * draw.uniform(0.01, 0.5)
    return cx.cosine_annealing_schedule(lr, half, end), lambda o: lr_scheduler.CosineAnnealingLR(o, half, end)


def cyclic(mode):
    """Triangles, their height by one of PyTorch's functions or one of our own."""

    def draw_cycle(draw, lr):
        up, gamma = int(draw.integers(1, 200)), draw.uniform(0.99, 1.0)
        down = None if mode == "triangular" else int(draw.integers(1, 200))
        scale, scale_by, theirs = {
            "triangular": (1.0, "cycle", {"mode": mode}),
            "triangular2": (cx.exponential_decay(1.0, 1, 0.5), "cycle", {"mode": mode}),
            "exp_range": (cx.exponential_decay(1.0, 1, gamma), "step", {"mode": mode, "gamma": gamma}),
            "custom": (cx.inverse_time_decay_schedule(1.0, 1.0), "cycle", {"scale_fn": lambda cycle: 1 / cycle}),
        }[mode]
        low, high = lr, lr * draw.uniform(1.0, 10.0)

        def make(o):
            return lr_scheduler.CyclicLR(o, low, high, up, down, base_momentum=0.8, max_momentum=0.93, **theirs)

        rate = cx.cyclic_schedule(low, high, up, down, scale=scale, scale_by=scale_by)
        return (rate, rate.replace(init_value=0.93, peak_value=0.8)), make

    draw_cycle.__name__ = f"cyclic_{mode}"
    return draw_cycle


def one_cycle(curve, *, three_phase):
    """One cycle, in one shape."""

    def draw_cycle(draw, lr):
        start, div, final = draw.uniform(0.05, 0.45), draw.uniform(2, 30), 10 ** draw.uniform(0, 5)
        base, top = draw.uniform(0.7, 0.9), draw.uniform(0.9, 0.99)
        shape = {"interpolate_type": curve, "three_phase": three_phase}

        def make(o):
            return lr_scheduler.OneCycleLR(
                o,
                lr,
                STEPS,
                pct_start=start,
                anneal_strategy={"cosine": "cos"}.get(curve, curve),
                base_momentum=base,
                max_momentum=top,
                div_factor=div,
                final_div_factor=final,
                three_phase=three_phase,
            )

        rate = cx.onecycle_schedule(STEPS, lr, start, div, final, **shape)
        return (rate, cx.onecycle_momentum_schedule(STEPS, base, top, start, **shape)), make

    draw_cycle.__name__ = f"one_cycle_{curve}{'_three_phase' * three_phase}"
    return draw_cycle


ONE_CYCLES = tuple(one_cycle(curve, three_phase=three) for curve in ("cosine", "linear") for three in (False, True))
FAMILIES = (
    *(
        constant,
        step,
        exponential,
        linear,
        polynomial,
        cosine,
        *map(restarts, (1, 2, 3)),
        warmup,
        warmup_cosine,
        joined,
    ),
    *(cut_short, chained, chained_cosine, function, multiplicative, multi_step, annealing),
    *map(cyclic, ("triangular", "triangular2", "exp_range", "custom")),
    *ONE_CYCLES,
)


@pytest.mark.parametrize(("half", "end"), ((2 * STEPS, 0.1), (STEPS // 4, 0.0)), ids=("eta_min", "turned"))
def test_chained_cosine_of_pytorch_is_no_product(half, end):
    """Why `product` excludes it: with an ``eta_min``, and once it has turned, PyTorch's chain is another curve."""

    def make(o):
        parts = lr_scheduler.CosineAnnealingLR(o, half, end), lr_scheduler.ExponentialLR(o, 0.997)
        return lr_scheduler.ChainedScheduler(list(parts))

    rates, _ = settings_of(1.0, make)
    ours = cx.cosine_annealing_schedule(1.0, half, end) * cx.exponential_decay(1.0, 1, 0.997)
    assert np.max(np.abs(rates - ours(np.arange(STEPS)))) > 0.02


# PyTorch multiplies the last rate by a quotient at each step, so its rounding errors add up: 1000 of
# them at 1.1e-16 are 1e-13. Ours does not depend on the steps before, and keeps float32's 6e-8 but
# for a power of γ, whose exponent n·log γ is rounded: by 6e-8 of itself, which is at most 35 here.
# In `annealing` PyTorch climbs from (1 − cos π/T)/2, which has lost T²·2e-17 of itself to cancellation,
# with T up to 300. In `multiplicative` up to 1000 rounded factors are multiplied in float32.
FLOAT64, FLOAT32 = {annealing: 5e-12}, {step: 2e-6, exponential: 2e-6, multiplicative: 1e-5}


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_schedule_is_pytorchs(family, seed):
    """The same rates in float64 and float32, relative to the rate itself however small it has become.

    The last rate of one cycle is too small a part of the peak for that: PyTorch takes it as the peak
    less almost the peak, so that there the peak's roundings count.
    """
    draw = np.random.default_rng(seed)
    lr = float(10 ** draw.uniform(-4, 0))
    schedules, make = family(draw, lr)
    for schedule, expected in zip(schedules if isinstance(schedules, tuple) else (schedules,), settings_of(lr, make)):
        roundings = 4 * expected.max() if family in ONE_CYCLES else 0
        for x64, rtol in ((False, FLOAT32.get(family, 1e-6)), (True, FLOAT64.get(family, 2e-13))):
            with jax.enable_x64(x64):
                ours = schedule(np.arange(STEPS))
                np.testing.assert_allclose(ours, expected, rtol=rtol, atol=roundings * np.finfo(ours.dtype).eps)
