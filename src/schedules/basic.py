"""Schedules as values: hyperparameters that depend on the step.

Every schedule maps ``k``, the number of steps taken so far (0 at the first update), to a number.
All lengths and boundaries are in steps. A length below one step counts as one, so that the end
value is reached at the next step. Schedules can be printed, compared, swept and differentiated with respect to
their fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..core.values.contents import code, is_array
from ..core.values.errors import explained
from ..core.values.hyper import Hyper
from ..core.values.numerics import Count, as_count, cycles, elapsed, minus, one_minus_power, since
from ..core.values.schedule import Schedule, counted, raised, to_schedule, value_at
from ..core.values.types import Scalar
from ..core.values.value import Number, Range, check_number, number, static, value
from .curves import at_least_one, half_cosine, left, line, mix


def optional_number(where: str, x: Scalar | None, limits: Range) -> Scalar | None:
    """The check of a field that accepts a number or ``None``."""
    return x if x is None else check_number(where, x, limits)


def step_pairs(where: str, x: Any, limits: Range) -> tuple[tuple[Scalar, Scalar], ...]:
    """The check of a field that accepts numbers by step: a dict, or pairs, which are sorted."""
    pairs = tuple(x.items() if isinstance(x, Mapping) else x) if isinstance(x, Iterable) else None
    if pairs is None or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"`{where}` must be {{step: number}} or pairs of them, got {code(x)}")
    of_x = dataclasses.replace(limits, steps=False)
    pairs = tuple((check_number(where, step, limits), check_number(where, x, of_x)) for step, x in pairs)
    return pairs if any(is_array(step) for step, _ in pairs) else tuple(sorted(pairs, key=lambda pair: pair[0]))


@value
class linear_schedule(Schedule):
    """Linear from one value to another, constant before and after. PyTorch's ``LinearLR``.

    >>> import chainax as cx
    >>> cx.linear_schedule(1.0, 0.0, 4)(2)
    Array(0.5, dtype=float32)
    """

    init_value: Number = number("value until the transition begins")
    end_value: Number = number("value when it has ended")
    transition_steps: Number = number("its length, in steps", low=0.0, steps=True)
    transition_begin: Number = number("the step at which it begins", default=0.0, low=0.0, steps=True)

    phrase = "a line from {init_value} to {end_value} over {transition_steps} steps; begun at step {transition_begin}"

    @counted
    def at(self, k):
        return line(self.init_value, self.end_value, since(k, self.transition_begin), self.transition_steps)


@value
class polynomial_schedule(Schedule):
    """Polynomial decay: end + (init − end)·(1 − k/T)^power. PyTorch's ``PolynomialLR``."""

    init_value: Number = number("value until the transition begins")
    end_value: Number = number("value when it has ended")
    power: Number = number("the exponent; 1 is linear", low=0.0)
    transition_steps: Number = number("its length T, in steps", low=0.0, steps=True)
    transition_begin: Number = number("the step at which it begins", default=0.0, low=0.0, steps=True)

    phrase = (
        "from {init_value} to {end_value} over {transition_steps} steps as the way left to the power {power}; "
        "begun at step {transition_begin}"
    )

    @counted
    def at(self, k):
        to_go = left(since(k, self.transition_begin), self.transition_steps)
        # At the end the weight is 0 for power 0 too, where 0^0 would be 1.
        weight = jnp.where(to_go > 0, raised(to_go, self.power * jnp.ones_like(to_go)), 0)
        return mix(self.init_value, self.end_value, weight)


@value
class exponential_decay(Schedule):
    """init·rate^(k/T). PyTorch's ``ExponentialLR`` if T = 1. With ``staircase`` it changes only every T steps."""

    init_value: Number = number("value at step 0")
    transition_steps: Number = number("T, the steps in which the value is multiplied by the rate", low=1.0, steps=True)
    decay_rate: Number = number("the factor", low=0.0)
    transition_begin: Number = number("the step at which the decay begins", default=0.0, low=0.0, steps=True)
    staircase: bool = static("decay at multiples of T only", default=False, one_of=(False, True))
    end_value: Number = number("bound of the decay (or growth), if any", default=None, check=optional_number)

    phrase = (
        "{init_value}·{decay_rate}^(k/{transition_steps}); begun at step {transition_begin}; "
        "in stairs: {staircase}; no farther than {end_value}"
    )

    @counted
    def at(self, k):
        k, length = since(k, self.transition_begin), self.transition_steps
        exponent = cycles(k, length)[0] if self.staircase else elapsed(k) / length
        decayed = self.init_value * raised(self.decay_rate, exponent)
        if self.end_value is None:
            return decayed
        falls = jnp.asarray(self.decay_rate) < 1
        return jnp.where(falls, jnp.maximum(decayed, self.end_value), jnp.minimum(decayed, self.end_value))


@value
class step_schedule(Schedule):
    """Multiplied by γ every ``step_size`` steps. PyTorch's ``StepLR``."""

    init_value: Number = number("value at step 0")
    step_size: Number = number("steps between the reductions", low=1.0, steps=True)
    gamma: Number = number("the factor", default=0.1, low=0.0)

    phrase = "{init_value}, times {gamma} every {step_size} steps"

    @counted
    def at(self, k):
        return self.init_value * raised(self.gamma, cycles(k, self.step_size)[0])


@value
class piecewise_constant_schedule(Schedule):
    """Multiplied by a factor at each of the given steps.

    PyTorch's ``MultiStepLR``, with ``[(step, gamma) for step in milestones]``. Pairs may repeat a step, which a dict
    cannot.

    >>> import chainax as cx
    >>> cx.piecewise_constant_schedule(1.0, {30: 0.1, 80: 0.5})
    piecewise_constant_schedule(1, ((30, 0.1), (80, 0.5)))
    """

    init_value: Number = number("value at step 0")
    boundaries_and_scales: tuple[tuple[Scalar, Scalar], ...] = number(
        "the factors by step: a dict or pairs", low=0.0, steps=True, check=step_pairs
    )

    phrase = "{init_value}; times the second of each (step, factor) in {boundaries_and_scales}"

    @counted
    def at(self, k):
        result = jnp.full_like(elapsed(k), self.init_value)
        for boundary, scale in self.boundaries_and_scales:
            result = jnp.where(minus(k, boundary) < 0, result, result * scale)
        return result


@value
class multiplicative_schedule(Schedule):
    """init·factor(1)·factor(2)·…·factor(k), where k stops at ``transition_steps``. PyTorch's ``MultiplicativeLR``.

    Each evaluation takes ``transition_steps`` multiplications. For a constant factor use `exponential_decay`,
    for factors at a few steps `piecewise_constant_schedule`.
    """

    init_value: Number = number("value at step 0")
    factor: Hyper = number("the factor of each step: a schedule, a function of the step or a number", check=to_schedule)
    transition_steps: int = static("the last step with a factor of its own", least=0, most=10**6)

    phrase = "{init_value}, at each of {transition_steps} steps times: {factor}"

    def at(self, k):
        factors = value_at(self.factor, jnp.arange(1, self.transition_steps + 1, dtype=k.dtype))
        products = jnp.concatenate([jnp.ones(1, k.dtype), jnp.cumprod(factors)])
        return self.init_value * products[jnp.clip(k, 0, self.transition_steps).astype(jnp.int32)]


@value
class inverse_time_decay_schedule(Schedule):
    """init / (1 + rate·k). PyTorch's ``lr_decay`` of Adagrad; Robbins & Monro 1951."""

    init_value: Number = number("value at step 0")
    decay_rate: Number = number("growth of the denominator per step", low=0.0)

    phrase = "{init_value} / (1 + {decay_rate}·k)"

    def at(self, k):
        return self.init_value / (1 + self.decay_rate * k)


@value
class inverse_sqrt_schedule(Schedule):
    """Linear warm-up to ``peak_value``, then peak·√(warmup/t). Vaswani et al. 2017, arXiv:1706.03762, equation 3.

    The paper's rate for a model of width d is ``inverse_sqrt_schedule((d * warmup) ** -0.5, warmup, first_step=1)``.
    With ``init_value = peak_value`` the warm-up is flat, as in T5: Raffel et al. 2020, arXiv:1910.10683, 3.1.2.
    """

    peak_value: Number = number("value when the warm-up ends")
    warmup_steps: Number = number("length of the warm-up, in steps", low=0.0, steps=True)
    init_value: Number = number("value at t = 0", default=0.0)
    first_step: Number = number("t at the first update: the paper counts from 1", default=0.0, low=0.0, steps=True)

    phrase = (
        "a line from {init_value} to {peak_value} over {warmup_steps} steps, then {peak_value}·√({warmup_steps}/t); "
        "where t counts from {first_step}"
    )

    def at(self, k):
        t, warmup = k + self.first_step, jnp.maximum(self.warmup_steps, 1)
        falling = self.peak_value * jnp.sqrt(warmup / jnp.maximum(t, warmup))
        return jnp.where(t < warmup, line(self.init_value, self.peak_value, t, warmup), falling)


@value
class cosine_decay_schedule(Schedule):
    """Half a cosine from ``init_value`` to ``alpha·init_value``, constant after that.

    Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5. `cosine_annealing_schedule` rises again.
    """

    init_value: Number = number("value at step 0")
    decay_steps: Number = number("length of the decay, in steps", low=0.0, steps=True)
    alpha: Number = number("the last value, as a fraction of the first", default=0.0)
    exponent: Number = number("the power to which the cosine is raised", default=1.0, low=0.0)

    phrase = "half a cosine from {init_value} to {alpha}·{init_value} over {decay_steps} steps; to the power {exponent}"

    @counted
    def at(self, k):
        return self.init_value * mix(1, self.alpha, _cosine_power(left(k, self.decay_steps), self.exponent))


@value
class rex_schedule(Schedule):
    """Almost constant at first, steep at the end. Chen et al. 2021, arXiv:2107.04197.

    end + (init − end)·z / (½ + ½z), where z is the remaining fraction. ``end_value`` is not in the paper.
    """

    init_value: Number = number("value at step 0")
    decay_steps: Number = number("length of the decay, in steps", low=0.0, steps=True)
    end_value: Number = number("the last value", default=0.0)

    phrase = "REX from {init_value} to {end_value} over {decay_steps} steps"

    @counted
    def at(self, k):
        z = left(k, self.decay_steps)
        return mix(self.init_value, self.end_value, z / (0.5 + 0.5 * z))


@value
class warmup_schedule(Schedule):
    """Linear warm-up to the start of another schedule, then that schedule.

    With ``restart`` the other schedule counts from the end of the warm-up; without it, from
    the first step, as in BERT.
    """

    after: Hyper = number("the schedule or number that follows", check=to_schedule)
    warmup_steps: Number = number("length of the warm-up, in steps", low=0.0, steps=True)
    init_value: Number = number("value at step 0", default=0.0)
    restart: bool = static("count the other schedule from the end of the warm-up", default=True, one_of=(False, True))

    phrase = "a line from {init_value} over {warmup_steps} steps; restart: {restart}; up to: {after}"

    @counted
    def at(self, k):
        k, rises = as_count(k), minus(k, self.warmup_steps) < 0
        later = since(k, self.warmup_steps) if self.restart else Count(*(jnp.where(rises, 0.0, x) for x in k))
        after = value_at(self.after, later)  # during the warm-up, its value at the end of the warm-up
        return jnp.where(rises, line(self.init_value, after, k, self.warmup_steps), after)


@value
class warmup_cosine_decay_schedule(Schedule):
    """Linear warm-up to ``peak_value``, then half a cosine to ``end_value``, constant after that.

    >>> import chainax as cx
    >>> [cx.warmup_cosine_decay_schedule(0.0, 1.0, 10, 110)(k).item() for k in (0, 5, 10, 110)]
    [0.0, 0.5, 1.0, 0.0]
    """

    init_value: Number = number("value at step 0")
    peak_value: Number = number("value when the warm-up ends")
    warmup_steps: Number = number("length of the warm-up, in steps", low=0.0, steps=True)
    decay_steps: Number = number("length of warm-up and decay together, in steps", low=0.0, open=True, steps=True)
    end_value: Number = number("the last value", default=0.0)
    exponent: Number = number("the power to which the cosine is raised", default=1.0, low=0.0)

    phrase = (
        "a line from {init_value} to {peak_value} over {warmup_steps} steps, then half a cosine to {end_value} "
        "at step {decay_steps}; to the power {exponent}"
    )

    def check(self):
        lengths = self.warmup_steps, self.decay_steps
        if not any(map(is_array, lengths)) and self.decay_steps <= self.warmup_steps:
            raise ValueError(
                "`warmup_cosine_decay_schedule.decay_steps` counts the warm-up too and must exceed warmup_steps, "
                f"got decay_steps={code(self.decay_steps)} and warmup_steps={code(self.warmup_steps)}"
            )

    @counted
    def at(self, k):
        rising = line(self.init_value, self.peak_value, k, self.warmup_steps)
        to_go = left(since(k, self.warmup_steps), self.decay_steps - self.warmup_steps)
        falling = mix(self.peak_value, self.end_value, _cosine_power(to_go, self.exponent))
        return jnp.where(minus(k, self.warmup_steps) < 0, rising, falling)


@value
class half_life_schedule(Schedule):
    """A decay β whose time constant, −1/log β, grows linearly.

    Pagliardini et al. 2024, arXiv:2409.03137, the scheduler of β₃ in section 3. At a β of 0 at either end, the
    derivatives with respect to it are infinite, and replaced by 0.

    >>> import chainax as cx
    >>> [round(cx.half_life_schedule(0.9, 0.999, 100)(k).item(), 4) for k in (0, 50, 100)]
    [0.9, 0.998, 0.999]
    """

    init_value: Number = number("β until the transition begins", low=0.0, high=1.0)
    end_value: Number = number("β when it has ended", low=0.0, high=1.0)
    transition_steps: Number = number("its length, in steps", low=0.0, steps=True)
    transition_begin: Number = number("the step at which it begins", default=0.0, steps=True)

    phrase = (
        "a decay from {init_value} to {end_value} whose memory grows along a line over {transition_steps} steps; "
        "begun at step {transition_begin}"
    )

    @counted
    def at(self, k):
        k, length = since(k, self.transition_begin), at_least_one(self.transition_steps)
        memory = line(_memory(self.init_value), _memory(self.end_value), k, length)
        # β is 0 where the time constant is 0; the inner `where` keeps the derivatives finite.
        decay = jnp.where(memory > 0, jnp.exp(-1 / jnp.where(memory > 0, memory, 1.0)), 0.0)
        decay = jnp.where(elapsed(k) > 0, decay, self.init_value)
        return jnp.where(minus(k, length) < 0, decay, self.end_value)


@value
class bias_corrected_schedule(Schedule):
    """α·√(1−β₂ᵗ)/(1−β₁ᵗ) with t = k + 1: MXNet's learning rate, which includes Adam's bias correction.

    Kingma & Ba 2015, arXiv:1412.6980, end of section 2.
    """

    learning_rate: Hyper = number("α, a schedule or a number", check=to_schedule)
    b1: Number = number("β₁, decay of the mean", default=0.9, low=0.0, high=1.0)
    b2: Number = number("β₂, decay of the mean square", default=0.999, low=0.0, high=1.0)

    phrase = "√(1−{b2}^t) / (1−{b1}^t), t = k + 1, times: {learning_rate}"

    @counted
    def at(self, k):
        rate, t = value_at(self.learning_rate, k), elapsed(k) + 1
        return rate * jnp.sqrt(one_minus_power(self.b2, t)) / one_minus_power(self.b1, t)


@explained
def warmup_constant_schedule(init_value: Scalar, peak_value: Scalar, warmup_steps: Scalar) -> warmup_schedule:
    """Linear warm-up to a constant."""
    return warmup_schedule(peak_value, warmup_steps, init_value)


@explained
def warmup_exponential_decay_schedule(
    init_value: Scalar,
    peak_value: Scalar,
    warmup_steps: Scalar,
    transition_steps: Scalar,
    decay_rate: Scalar,
    transition_begin: Scalar = 0.0,
    staircase: bool = False,
    end_value: Any = None,
) -> warmup_schedule:
    """Linear warm-up to ``peak_value``, then an `exponential_decay`, which counts from the end of the warm-up."""
    decay = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return warmup_schedule(decay, warmup_steps, init_value)


def _cosine_power(to_go: jax.Array, exponent: Scalar) -> jax.Array:
    return raised(half_cosine(to_go), exponent * jnp.ones_like(to_go))


def _memory(decay: Scalar) -> Scalar:
    """−1/log β. The logarithm of a Python number is taken in double precision, as 1 − β may be small."""
    if isinstance(decay, float):
        return -1 / math.log(decay) if decay else 0.0
    safe = jnp.where(decay > 0, decay, 0.5)
    return jnp.where(decay > 0, -1 / jnp.log(safe), 0.0)
