"""Schedules as values: hyperparameters that depend on the step.

Every schedule maps ``k``, the number of steps already taken (0 at the first update), to a number.
All lengths and boundaries are in steps. A length below one step counts as one, so that the end
value is met at the next step. The fields are numbers too: a schedule can be printed, compared,
swept and differentiated.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from .core.hyper import Hyper
from .core.numerics import one_minus_power
from .core.schedule import Schedule, number_or_schedule
from .core.value import Number, Range, check_number, code, each, is_array, number, static, value


def _schedule(where: str, x: Any, limits: Range) -> Schedule:
    """A field that takes a schedule, a function of the step, or a number."""
    x = number_or_schedule(where, x, limits)
    return x if isinstance(x, Schedule) else constant_schedule(x)


@value
class constant_schedule(Schedule):
    """The same number at every step."""

    value: Number = number("the number")

    def at(self, k):
        return jnp.full_like(k, self.value)


@value
class linear_schedule(Schedule):
    """A straight line from one value to another, constant before and after. PyTorch's ``LinearLR``.

    >>> import chainax as cx
    >>> cx.linear_schedule(1.0, 0.0, 4)(2)
    Array(0.5, dtype=float32)
    """

    init_value: Number = number("value until the transition begins")
    end_value: Number = number("value when it has ended")
    transition_steps: Number = number("its length, in steps", low=0.0)
    transition_begin: Number = number("the step at which it begins", default=0.0, low=0.0)

    def at(self, k):
        return _line(self.init_value, self.end_value, k - self.transition_begin, self.transition_steps)


@value
class polynomial_schedule(Schedule):
    """A power of the way still to go: end + (init − end)·(1 − k/T)^power. PyTorch's ``PolynomialLR``."""

    init_value: Number = number("value until the transition begins")
    end_value: Number = number("value when it has ended")
    power: Number = number("1 is a straight line", low=0.0)
    transition_steps: Number = number("its length T, in steps", low=0.0)
    transition_begin: Number = number("the step at which it begins", default=0.0, low=0.0)

    def at(self, k):
        left = _left(k - self.transition_begin, self.transition_steps)
        # The inner `where` keeps the derivative of 0^power, infinite below power 1, out of gradients.
        weight = jnp.where(left > 0, jnp.where(left > 0, left, 1) ** self.power, 0)
        return _mix(self.init_value, self.end_value, weight)


@value
class exponential_decay(Schedule):
    """init·rate^(k/T). With T = 1 PyTorch's ``ExponentialLR``; ``staircase`` holds the value for T steps at a time."""

    init_value: Number = number("value at step 0")
    transition_steps: Number = number("T, the steps in which the value falls by the rate", low=1.0)
    decay_rate: Number = number("the factor", low=0.0)
    staircase: bool = static("fall at multiples of T only", default=False, one_of=(False, True))

    def at(self, k):
        exponent = k // self.transition_steps if self.staircase else k / self.transition_steps
        return self.init_value * _power(self.decay_rate, exponent)


@value
class step_schedule(Schedule):
    """Multiplied by γ every ``step_size`` steps. PyTorch's ``StepLR``."""

    init_value: Number = number("value at step 0")
    step_size: Number = number("steps between the falls", low=1.0)
    gamma: Number = number("the factor", default=0.1, low=0.0)

    def at(self, k):
        return self.init_value * _power(self.gamma, k // self.step_size)


@value
class inverse_time_decay_schedule(Schedule):
    """init / (1 + rate·k). PyTorch's ``lr_decay`` of Adagrad; Robbins & Monro 1951."""

    init_value: Number = number("value at step 0")
    decay_rate: Number = number("growth of the denominator in a step", low=0.0)

    def at(self, k):
        return self.init_value / (1 + self.decay_rate * k)


@value
class cosine_decay_schedule(Schedule):
    """Half a cosine from ``init_value`` down to ``alpha·init_value``, which it then keeps.

    Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5. PyTorch's ``CosineAnnealingLR`` up to its
    ``T_max``, after which PyTorch climbs again.
    """

    init_value: Number = number("value at step 0")
    decay_steps: Number = number("length of the decay, in steps", low=0.0)
    alpha: Number = number("the last value, as a fraction of the first", default=0.0)

    def at(self, k):
        return self.init_value * _mix(1, self.alpha, _half_cosine(_left(k, self.decay_steps)))


@value
class warm_restarts_schedule(Schedule):
    """SGDR: a cosine decay that restarts, each period ``factor`` times as long as the last.

    Loshchilov & Hutter 2017, arXiv:1608.03983, section 3. PyTorch's ``CosineAnnealingWarmRestarts``.
    At ``factor`` 1 the derivative by it is given as 0.
    """

    init_value: Number = number("value at each restart")
    period: Number = number("length of the first period, in steps", low=1.0)
    factor: Number = number("each period's length over the last's", default=1.0, low=1.0)
    end_value: Number = number("value that each period decays to", default=0.0)

    def at(self, k):
        even = jnp.asarray(self.factor) == 1
        f = jnp.where(even, 2.0, self.factor)  # keeps the branch that is not taken finite
        x = k * (f - 1)

        def start(n):  # of period n, times f − 1: exact for whole numbers, as a quotient would not be
            return self.period * (f**n - 1)

        n = jnp.floor(jnp.log1p(x / self.period) / jnp.log(f))
        n = jnp.where(x < start(n), n - 1, jnp.where(x < start(n + 1), n, n + 1))  # the logarithm rounds
        left = jnp.where(
            even,
            _left(jnp.mod(k, self.period), self.period),
            _share(start(n + 1) - x, start(n + 1) - start(n)),
        )
        return _mix(self.init_value, self.end_value, _half_cosine(left))


@value
class warmup_schedule(Schedule):
    """A straight line up to where another schedule begins, then that schedule.

    With ``restart`` the other schedule begins when the warm-up ends; without, it has been counting
    from the first step, as BERT's does.
    """

    after: Hyper = number("what follows, a schedule or a number", check=_schedule)
    warmup_steps: Number = number("length of the warm-up, in steps", low=0.0)
    init_value: Number = number("value at step 0", default=0.0)
    restart: bool = static("count the other schedule from the end of the warm-up", default=True, one_of=(False, True))

    def at(self, k):
        rising = _line(self.init_value, self.after(jnp.zeros_like(k)), k, self.warmup_steps)
        start = self.warmup_steps if self.restart else 0
        return jnp.where(k < self.warmup_steps, rising, self.after(jnp.maximum(k - start, 0)))


@value
class warmup_cosine_decay_schedule(Schedule):
    """A straight line up to ``peak_value``, then half a cosine down to ``end_value``, which it then keeps.

    >>> import chainax as cx
    >>> [cx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 110)(k).item() for k in (0, 5, 10, 110)]
    [0.0, 0.5, 1.0, 0.0]
    """

    init_value: Number = number("value at step 0")
    peak_value: Number = number("value when the warm-up ends")
    warmup_steps: Number = number("length of the warm-up, in steps", low=0.0)
    decay_steps: Number = number("length of warm-up and decay together, in steps", low=0.0)
    end_value: Number = number("the last value", default=0.0)

    def check(self):
        lengths = self.warmup_steps, self.decay_steps
        if not any(map(is_array, lengths)) and self.decay_steps <= self.warmup_steps:
            raise ValueError(
                "`warmup_cosine_decay_schedule.decay_steps` counts the warm-up too and must exceed warmup_steps, "
                f"got decay_steps={code(self.decay_steps)} and warmup_steps={code(self.warmup_steps)}"
            )

    def at(self, k):
        rising = _line(self.init_value, self.peak_value, k, self.warmup_steps)
        left = _left(k - self.warmup_steps, self.decay_steps - self.warmup_steps)
        falling = _mix(self.peak_value, self.end_value, _half_cosine(left))
        return jnp.where(k < self.warmup_steps, rising, falling)


@value
class join_schedules(Schedule):
    """One schedule after another, each counting from its boundary. PyTorch's ``SequentialLR``."""

    schedules: tuple[Any, ...] = number("the schedules or numbers, in order", check=each(_schedule))
    boundaries: tuple[Any, ...] = number(
        doc="the steps at which the second, third, ... begins", low=0.0, check=each(check_number)
    )

    def check(self):
        if len(self.boundaries) != len(self.schedules) - 1:
            raise ValueError(
                "`join_schedules.boundaries` must be one fewer than the schedules, "
                f"got {len(self.boundaries)} for {len(self.schedules)} schedules"
            )
        plain = [b for b in self.boundaries if not is_array(b)]
        if plain != sorted(plain):
            raise ValueError(f"`join_schedules.boundaries` must not fall, got {code(self.boundaries)}")

    def at(self, k):
        result = self.schedules[0](k)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            result = jnp.where(k < boundary, result, schedule(jnp.maximum(k - boundary, 0)))
        return result


@value
class bias_corrected_schedule(Schedule):
    """α·√(1−β₂ᵗ)/(1−β₁ᵗ), t = k + 1: MXNet's learning rate, which carries Adam's bias correction.

    Kingma & Ba 2015, arXiv:1412.6980, end of section 2.
    """

    learning_rate: Hyper = number("α, a schedule or a number", check=_schedule)
    b1: Number = number("β₁, decay of the mean", default=0.9, low=0.0, high=1.0)
    b2: Number = number("β₂, decay of the mean square", default=0.999, low=0.0, high=1.0)

    def at(self, k):
        return self.learning_rate(k) * jnp.sqrt(one_minus_power(self.b2, k + 1)) / one_minus_power(self.b1, k + 1)


def _share(part, whole):
    """part / whole within [0, 1]. Both ends are exact: XLA may multiply by a rounded 1 / whole."""
    part = jnp.clip(part, 0, whole)
    return jnp.where(part < whole, part / whole, 1)


def _left(done, length):
    """The share of a transition that is still to go. Steps are subtracted first, while they are whole numbers."""
    length = jnp.maximum(length, 1)
    return _share(length - done, length)


def _line(start, end, done, length):
    return start * _left(done, length) + end * _share(done, jnp.maximum(length, 1))


def _mix(a, b, weight):
    """``a`` at weight 1, ``b`` at weight 0, without the rounding of b + (a − b) where b is small."""
    return a * weight + b * (1 - weight)


def _half_cosine(left):
    """½(1 + cos π(1 − left)), as a square that is accurate near 0 too."""
    return jnp.square(jnp.sin(0.5 * jnp.pi * left))


def _power(base, exponent):
    """base^exponent. A Python ``base`` has its logarithm taken in double precision: float32 holds 1 − base badly."""
    if isinstance(base, float) and base > 0:
        return jnp.exp(exponent * math.log(base))
    # The inner `where` keeps the derivative of 0^0 out of gradients.
    safe = jnp.where(jnp.asarray(base) > 0, base, jnp.ones_like(exponent))
    return jnp.where(jnp.asarray(base) > 0, safe**exponent, jnp.where(exponent == 0, 1.0, 0.0))
