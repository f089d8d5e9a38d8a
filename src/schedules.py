"""Schedules as values: hyperparameters that depend on the step.

Every schedule maps ``k``, the number of steps already taken (0 at the first update), to a number.
Their fields are numbers too, so a schedule can be printed, compared, swept and differentiated.
"""

import jax.numpy as jnp

from .core.numerics import one_minus_power
from .core.schedule import Schedule, as_schedule
from .core.value import Number, child, number, static, value

_STEPS = {"low": 0.0}


@value
class constant_schedule(Schedule):
    """The same number at every step."""

    value: Number = number(doc="the number")

    def at(self, k):
        return jnp.full_like(k, self.value)


@value
class linear_schedule(Schedule):
    """A straight line from one value to another, constant before and after. PyTorch's ``LinearLR``.

    >>> import chainax as cx
    >>> cx.linear_schedule(1.0, 0.0, 4)(2)
    Array(0.5, dtype=float32)
    """

    init_value: Number = number(doc="value until the transition begins")
    end_value: Number = number(doc="value when it has ended")
    transition_steps: Number = number(doc="its length, in steps", **_STEPS)
    transition_begin: Number = number(0.0, "the step at which it begins", **_STEPS)

    def at(self, k):
        return self.init_value + (self.end_value - self.init_value) * _progress(self, k)


@value
class polynomial_schedule(Schedule):
    """A power of the way still to go: end + (init − end)·(1 − k/T)^power. PyTorch's ``PolynomialLR``."""

    init_value: Number = number(doc="value until the transition begins")
    end_value: Number = number(doc="value when it has ended")
    power: Number = number(doc="1 is a straight line", low=0.0)
    transition_steps: Number = number(doc="its length, in steps", **_STEPS)
    transition_begin: Number = number(0.0, "the step at which it begins", **_STEPS)

    def at(self, k):
        return self.end_value + (self.init_value - self.end_value) * (1 - _progress(self, k)) ** self.power


@value
class exponential_decay(Schedule):
    """init·rate^(k/T). With T = 1 PyTorch's ``ExponentialLR``; ``staircase`` holds the value for T steps at a time."""

    init_value: Number = number(doc="value at step 0")
    transition_steps: Number = number(doc="T, the steps in which the value falls by the rate", **_STEPS)
    decay_rate: Number = number(doc="the factor", low=0.0)
    staircase: bool = static(False, "fall at multiples of T only", one_of=(False, True))

    def at(self, k):
        exponent = k / self.transition_steps
        return self.init_value * self.decay_rate ** (jnp.floor(exponent) if self.staircase else exponent)


@value
class step_schedule(Schedule):
    """Multiplied by γ every ``step_size`` steps. PyTorch's ``StepLR``."""

    init_value: Number = number(doc="value at step 0")
    step_size: Number = number(doc="steps between the falls", low=1.0)
    gamma: Number = number(0.1, "the factor", low=0.0)

    def at(self, k):
        return self.init_value * self.gamma ** jnp.floor(k / self.step_size)


@value
class inverse_time_decay_schedule(Schedule):
    """init / (1 + rate·k). PyTorch's ``lr_decay`` of Adagrad; Robbins & Monro 1951."""

    init_value: Number = number(doc="value at step 0")
    decay_rate: Number = number(doc="how fast the denominator grows", low=0.0)

    def at(self, k):
        return self.init_value / (1 + self.decay_rate * k)


@value
class cosine_decay_schedule(Schedule):
    """Half a cosine from ``init_value`` down to ``alpha·init_value``, which it then keeps.

    Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5. PyTorch's ``CosineAnnealingLR`` up to its
    ``T_max``, after which PyTorch climbs again.
    """

    init_value: Number = number(doc="value at step 0")
    decay_steps: Number = number(doc="length of the decay, in steps", **_STEPS)
    alpha: Number = number(0.0, "the last value, as a fraction of the first")

    def at(self, k):
        cosine = _half_cosine(jnp.clip(k / jnp.maximum(self.decay_steps, 1), 0, 1))
        return self.init_value * ((1 - self.alpha) * cosine + self.alpha)


@value
class warm_restarts_schedule(Schedule):
    """SGDR: a cosine decay that restarts, each period ``factor`` times as long as the last.

    Loshchilov & Hutter 2017, arXiv:1608.03983, section 3. PyTorch's ``CosineAnnealingWarmRestarts``.
    """

    init_value: Number = number(doc="value at each restart")
    period: Number = number(doc="length of the first period, in steps", low=1.0)
    factor: Number = number(1.0, "each period's length over the last's", low=1.0)
    end_value: Number = number(0.0, "value that each period decays to")

    def at(self, k):
        # In units of the first period, period n starts at (fⁿ − 1)/(f − 1), or at n where f = 1.
        x, even = k / self.period, jnp.asarray(self.factor) == 1
        f = jnp.where(even, 2.0, self.factor)  # keeps the branch that is not taken finite

        def start(n):
            return (f**n - 1) / (f - 1)

        n = jnp.floor(jnp.log1p(x * (f - 1)) / jnp.log(f))
        n = n + (x >= start(n + 1)) - (x < start(n))  # the logarithm may round to the wrong side
        position = jnp.where(even, x - jnp.floor(x), (x - start(n)) / f**n)
        return self.end_value + (self.init_value - self.end_value) * _half_cosine(position)


@value
class warmup_schedule(Schedule):
    """A straight line up to where another schedule begins, then that schedule.

    With ``restart`` the other schedule begins when the warm-up ends; without, it has been counting
    from the first step, as BERT's does.
    """

    after: Schedule = child(doc="the schedule to follow")
    warmup_steps: Number = number(doc="length of the warm-up, in steps", **_STEPS)
    init_value: Number = number(0.0, "value at step 0")
    restart: bool = static(True, "count the other schedule from the end of the warm-up", one_of=(False, True))

    def __post_init__(self):
        object.__setattr__(self, "after", _child_schedule("warmup_schedule.after", self.after))
        super().__post_init__()

    def at(self, k):
        peak = self.after(jnp.zeros_like(k))
        rising = self.init_value + (peak - self.init_value) * k / jnp.maximum(self.warmup_steps, 1)
        start = self.warmup_steps if self.restart else 0
        return jnp.where(k < self.warmup_steps, rising, self.after(jnp.maximum(k - start, 0)))


def warmup_cosine_decay_schedule(
    init_value: float, peak_value: float, warmup_steps: float, decay_steps: float, end_value: float = 0.0
) -> warmup_schedule:
    """A linear warm-up, then half a cosine down to ``end_value``. ``decay_steps`` counts both parts.

    >>> import chainax as cx
    >>> cx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 110)
    warmup_schedule(cosine_decay_schedule(1, 100), 10)
    """
    if not warmup_steps < decay_steps:
        raise ValueError(f"decay_steps counts the warm-up too and must exceed it, got {decay_steps} and {warmup_steps}")
    cosine = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, end_value / peak_value if peak_value else 0.0)
    return warmup_schedule(cosine, warmup_steps, init_value)


@value
class join_schedules(Schedule):
    """One schedule after another, each counting from its boundary. PyTorch's ``SequentialLR``."""

    schedules: tuple[Schedule, ...] = child(doc="the schedules, in order")
    boundaries: tuple[float, ...] = child(doc="the steps at which the second, third, ... begins")

    def __post_init__(self):
        schedules = tuple(_child_schedule(f"join_schedules.schedules[{i}]", s) for i, s in enumerate(self.schedules))
        boundaries = tuple(float(b) if isinstance(b, int) else b for b in self.boundaries)
        object.__setattr__(self, "schedules", schedules)
        object.__setattr__(self, "boundaries", boundaries)
        if len(boundaries) != len(schedules) - 1:
            raise ValueError(
                f"`join_schedules` needs one boundary less than schedules, got {len(boundaries)} and {len(schedules)}"
            )
        plain = [b for b in boundaries if isinstance(b, float)]
        if plain != sorted(plain):
            raise ValueError(f"`join_schedules.boundaries` must rise, got {boundaries}")

    def at(self, k):
        value = self.schedules[0](k)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:]):
            value = jnp.where(k < boundary, value, schedule(jnp.maximum(k - boundary, 0)))
        return value


@value
class bias_corrected_schedule(Schedule):
    """α·√(1−β₂ᵗ)/(1−β₁ᵗ), t = k + 1: MXNet's learning rate, which carries Adam's bias correction.

    Kingma & Ba 2015, arXiv:1412.6980, end of section 2.
    """

    learning_rate: Schedule = child(doc="α, a number or a schedule")
    b1: Number = number(0.9, "decay of the mean", low=0.0, high=1.0)
    b2: Number = number(0.999, "decay of the mean square", low=0.0, high=1.0)

    def __post_init__(self):
        object.__setattr__(self, "learning_rate", _child_schedule("bias_corrected_schedule.learning_rate", self.learning_rate))
        super().__post_init__()

    def at(self, k):
        return self.learning_rate(k) * jnp.sqrt(one_minus_power(self.b2, k + 1)) / one_minus_power(self.b1, k + 1)


def _progress(schedule, k):
    """How much of the transition is done, from 0 to 1. One of no length is a step."""
    done = (k - schedule.transition_begin) / jnp.maximum(schedule.transition_steps, 1e-30)
    return jnp.clip(done, 0, 1)


def _half_cosine(x):
    return 0.5 * (1 + jnp.cos(jnp.pi * x))


def _child_schedule(where, x):
    x = as_schedule(where, x)
    if isinstance(x, Schedule):
        return x
    return constant_schedule(x)
