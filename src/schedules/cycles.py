"""Schedules that rise and fall: in phases, in cycles, with restarts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..core.values.contents import is_array
from ..core.values.hyper import Hyper
from ..core.values.numerics import Steps, as_count, cycles, minus
from ..core.values.schedule import Schedule, counted, join_schedules, number_or_schedule, value_at
from ..core.values.types import Scalar
from ..core.values.value import Number, number, static, value
from .basic import optional_number, step_pairs, warmup_cosine_decay_schedule
from .curves import SHAPES, fraction, half_cosine, left, mix, through

CURVES = ("linear", "cosine")


@value
class piecewise_interpolate_schedule(Schedule):
    """Interpolated, linearly or by half cosines, between values that are multiplied by factors at the given steps.

    >>> import jax, chainax as cx
    >>> cx.piecewise_interpolate_schedule("linear", 1.0, {10: 5.0, 20: 0.2})(jax.numpy.array([0, 5, 10, 20])).tolist()
    [1.0, 3.0, 5.0, 1.0]
    """

    interpolate_type: str = static("shape of each piece", one_of=CURVES)
    init_value: Number = number("value at step 0")
    boundaries_and_scales: tuple[tuple[Scalar, Scalar], ...] = number(
        "the factors by their step: a dict, or pairs", low=0.0, steps=True, check=step_pairs
    )

    phrase = (
        "{init_value}; times the second of each (step, factor) in {boundaries_and_scales}; {interpolate_type} between"
    )

    @counted
    def at(self, k):
        knots: list[tuple[Scalar, Scalar]] = [(0.0, self.init_value)]
        for boundary, scale in self.boundaries_and_scales:
            knots.append((boundary, knots[-1][1] * scale))
        curve = through(k, knots, [SHAPES[self.interpolate_type]] * (len(knots) - 1))
        return jnp.where(minus(k, knots[-1][0]) < 0, curve, knots[-1][1])  # also if the last two boundaries coincide


@value
class linear_onecycle_schedule(Schedule):
    """Optax's linear one-cycle schedule: up to the peak, back to the first value, then down to the last.

    Smith & Topin 2018, arXiv:1708.07120. The peak is at ``pct_start`` of the steps, rounded down to a step, and the
    return to the first value at ``pct_final``. PyTorch's is `onecycle_schedule`.
    """

    transition_steps: Number = number("length of the cycle, in steps", low=1.0, steps=True)
    peak_value: Number = number("the largest value")
    pct_start: Number = number("fraction of the steps up to the peak", default=0.3, low=0.0, high=1.0, closed=True)
    pct_final: Number = number(
        "fraction of the steps up to the return to the first value", default=0.85, low=0.0, high=1.0, closed=True
    )
    div_factor: Number = number("ratio of the peak to the first value", default=25.0, low=0.0, open=True)
    final_div_factor: Number = number("ratio of the first value to the last", default=1e4, low=0.0, open=True)

    phrase = (
        "lines from {peak_value}/{div_factor} to {peak_value}, back at {pct_final} of {transition_steps} steps, "
        "and to 1/{final_div_factor} of that; peak at {pct_start} of the way"
    )

    @counted
    def at(self, k):
        first, length = self.peak_value / self.div_factor, self.transition_steps
        knots = [
            (0.0, first),
            (_floor(self.pct_start * length), self.peak_value),
            (_floor(self.pct_final * length), first),
            (length, first / self.final_div_factor),
        ]
        return through(k, knots, [SHAPES["linear"]] * 3)


@value
class cosine_onecycle_schedule(Schedule):
    """Optax's one-cycle schedule: half a cosine up to the peak, and half a cosine down.

    Smith & Topin 2018, arXiv:1708.07120. The peak is at ``pct_start`` of the steps, rounded down to a step.
    PyTorch's is `onecycle_schedule`.
    """

    transition_steps: Number = number("length of the cycle, in steps", low=1.0, steps=True)
    peak_value: Number = number("the largest value")
    pct_start: Number = number("fraction of the steps up to the peak", default=0.3, low=0.0, high=1.0, closed=True)
    div_factor: Number = number("ratio of the peak to the first value", default=25.0, low=0.0, open=True)
    final_div_factor: Number = number("ratio of the first value to the last", default=1e4, low=0.0, open=True)

    phrase = (
        "half cosines from {peak_value}/{div_factor} to {peak_value} and to 1/{final_div_factor} of the first "
        "over {transition_steps} steps; peak at {pct_start} of the way"
    )

    @counted
    def at(self, k):
        first, length = self.peak_value / self.div_factor, self.transition_steps
        knots = [
            (0.0, first),
            (_floor(self.pct_start * length), self.peak_value),
            (length, first / self.final_div_factor),
        ]
        return through(k, knots, [SHAPES["cosine"]] * 2)


@value
class onecycle_schedule(Schedule):
    """The learning rate of PyTorch's ``OneCycleLR``. Its momentum is `onecycle_momentum_schedule`.

    Smith & Topin 2018, arXiv:1708.07120, with three linear phases (``three_phase``). The
    peak is at step pct_start·T − 1, which may be fractional; the last value is reached at step T − 1 and kept.
    """

    total_steps: Number = number("length T of the cycle, the last step included", low=1.0, steps=True)
    peak_value: Number = number("the largest value")
    pct_start: Number = number("fraction of the steps up to the peak", default=0.3, low=0.0, high=1.0, closed=True)
    div_factor: Number = number("ratio of the peak to the first value", default=25.0, low=0.0, open=True)
    final_div_factor: Number = number("ratio of the first value to the last", default=1e4, low=0.0, open=True)
    interpolate_type: str = static("shape of each phase", default="cosine", one_of=CURVES)
    three_phase: bool = static("decay to the first value, then to the last", default=False, one_of=(False, True))

    phrase = (
        "one cycle from {peak_value}/{div_factor} to {peak_value} and to 1/{final_div_factor} of the first over "
        "{total_steps} steps; peak at {pct_start} of the way; {interpolate_type}; three phases: {three_phase}"
    )

    @counted
    def at(self, k):
        first = self.peak_value / self.div_factor
        return _one_cycle(self, k, first, self.peak_value, first / self.final_div_factor)


@value
class onecycle_momentum_schedule(Schedule):
    """The momentum, or β₁, of PyTorch's ``OneCycleLR``: low where `onecycle_schedule` is high.

    >>> import chainax as cx
    >>> cx.sgd(cx.onecycle_schedule(90, 0.1), momentum=cx.onecycle_momentum_schedule(90))
    chain(trace(onecycle_momentum_schedule(90)), scale_by_lr(onecycle_schedule(90, 0.1)))
    """

    total_steps: Number = number("length T of the cycle, the last step included", low=1.0, steps=True)
    base_momentum: Number = number("the minimum, when the rate is at its peak", default=0.85)
    max_momentum: Number = number("the first and the last value", default=0.95)
    pct_start: Number = number("fraction of the steps up to the peak", default=0.3, low=0.0, high=1.0, closed=True)
    interpolate_type: str = static("shape of each phase", default="cosine", one_of=CURVES)
    three_phase: bool = static("return when the rate does", default=False, one_of=(False, True))

    phrase = (
        "one cycle from {max_momentum} to {base_momentum} and back over {total_steps} steps; "
        "least at {pct_start} of the way; {interpolate_type}; three phases: {three_phase}"
    )

    @counted
    def at(self, k):
        return _one_cycle(self, k, self.max_momentum, self.base_momentum, self.max_momentum)


@value
class warmup_stable_decay_schedule(Schedule):
    """WSD: a linear warm-up, a constant phase, and a decay that can start at any time.

    Hu et al. 2024, arXiv:2404.06395, section 4. Linear and 1 − √ decays: Hägele et al. 2024,
    arXiv:2405.18392. For any other decay write
    ``warmup_schedule(peak, warmup).then(decay, at=...)``.
    """

    peak_value: Number = number("value of the constant phase")
    warmup_steps: Number = number("length of the warm-up, in steps", low=0.0, steps=True)
    stable_steps: Number = number("length of the constant phase, in steps", low=0.0, steps=True)
    decay_steps: Number = number("length of the decay, in steps", low=0.0, steps=True)
    init_value: Number = number("value at step 0", default=0.0)
    end_value: Number = number("value after the decay", default=0.0)
    decay: str = static("shape of the decay", default="linear", one_of=tuple(SHAPES))

    phrase = (
        "a line from {init_value} over {warmup_steps} steps to {peak_value}, kept for {stable_steps} steps, "
        "then to {end_value} over {decay_steps} steps; decay: {decay}"
    )

    @counted
    def at(self, k):
        stable = self.warmup_steps
        decay = stable + self.stable_steps
        ends = (0.0, self.init_value), (stable, self.peak_value)
        falls = (decay, self.peak_value), (decay + self.decay_steps, self.end_value)
        return through(k, (*ends, *falls), (SHAPES["linear"], SHAPES["linear"], SHAPES[self.decay]))


@value
class cyclic_schedule(Schedule):
    """A triangle wave between two values. Smith 2017, arXiv:1506.01186, section 3. PyTorch's ``CyclicLR``.

    ``scale`` multiplies the height: a number, or a schedule that counts completed cycles from 0 (PyTorch's
    functions count them from 1), or steps. PyTorch's ``triangular2`` is ``scale=exponential_decay(1, 1, 0.5)``, its
    ``exp_range`` is ``scale=exponential_decay(1, 1, gamma), scale_by="step"``. For the inverse cycle of the
    momentum write ``cyclic_schedule(max_momentum, base_momentum, ...)``.
    """

    init_value: Number = number("value at the start of each cycle")
    peak_value: Number = number("value at the top of the first cycle")
    step_size_up: Number = number("steps on the way up", default=2000.0, low=1.0, steps=True)
    step_size_down: Number = number(
        "steps on the way down, by default as many as up", default=None, low=1.0, steps=True, check=optional_number
    )
    scale: Hyper = number("factor of the height", default=1.0, check=number_or_schedule)
    scale_by: str = static("what the scale counts", default="cycle", one_of=("cycle", "step"))

    phrase = (
        "a triangle from {init_value} to {peak_value}, {step_size_up} steps up; {step_size_down} down; "
        "height times: {scale}; counted by {scale_by}"
    )

    @counted
    def at(self, k):
        up = self.step_size_up
        down = up if self.step_size_down is None else self.step_size_down
        cycle, passed = cycles(k, up + down)
        height = jnp.where(passed < up, fraction(passed, up), fraction(up + down - passed, down))
        scale = value_at(self.scale, cycle if self.scale_by == "cycle" else k)
        return mix(self.peak_value, self.init_value, height * scale)


@value
class cosine_annealing_schedule(Schedule):
    """A cosine wave: half a period down, half a period up, and so on. PyTorch's ``CosineAnnealingLR``."""

    init_value: Number = number("value at step 0 and at every second extremum")
    half_period: Number = number("steps between extrema: PyTorch's T_max", low=1.0, steps=True)
    end_value: Number = number("value at the other extrema", default=0.0)

    phrase = "a cosine between {init_value} and {end_value}, {half_period} steps down and as many up"

    @counted
    def at(self, k):
        to_go = self.half_period - cycles(k, 2 * self.half_period)[1]
        return mix(self.init_value, self.end_value, half_cosine(fraction(jnp.abs(to_go), self.half_period)))


@value
class warm_restarts_schedule(Schedule):
    """SGDR: a cosine decay with restarts, each period ``factor`` times as long as the previous one.

    Loshchilov & Hutter 2017, arXiv:1608.03983, section 3. PyTorch's ``CosineAnnealingWarmRestarts``.
    At ``factor`` 1 the derivative with respect to it is 0.
    """

    init_value: Number = number("value at each restart")
    period: Number = number("length of the first period, in steps", low=1.0, steps=True)
    factor: Number = number("ratio of the lengths of successive periods", default=1.0, low=1.0)
    end_value: Number = number("value that each period decays to", default=0.0)

    kinks = ("factor",)
    phrase = (
        "half a cosine from {init_value} to {end_value}, restarted after {period} steps; then {factor} times as long"
    )

    @counted
    def at(self, k):
        k, period, even = as_count(k), self.period, jnp.asarray(self.factor) == 1
        f = jnp.where(even, 2.0, self.factor)  # keeps the unused branch finite
        # Steps multiplied by f − 1, which is exact for integers; a quotient would not be.
        high, low = k.high * (f - 1), k.low * (f - 1)

        def until(n):  # the start of period n
            return (period * f**n - high) - (low + period)

        n = jnp.floor(jnp.log1p((high + low) / period) / jnp.log(f))
        n = jnp.where(until(n) > 0, n - 1, jnp.where(until(n + 1) > 0, n, n + 1))  # the logarithm rounds
        to_go = jnp.where(
            even,
            left(cycles(k, period)[1], period),
            fraction(until(n + 1), period * (f ** (n + 1) - f**n)),
        )
        return mix(self.init_value, self.end_value, half_cosine(to_go))


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> join_schedules:
    """One `warmup_cosine_decay_schedule` after another, each from its own arguments.

    Loshchilov & Hutter 2017, arXiv:1608.03983, section 3. For no warm-ups see `warm_restarts_schedule`.
    """
    cycles = tuple(warmup_cosine_decay_schedule(**cycle) for cycle in cosine_kwargs)
    return join_schedules(cycles, tuple(itertools.accumulate(cycle.decay_steps for cycle in cycles[:-1])))


def _one_cycle(
    s: onecycle_schedule | onecycle_momentum_schedule, k: Steps, first: Scalar, peak: Scalar, last: Scalar
) -> jax.Array:
    top = s.pct_start * s.total_steps - 1
    knots = [(0.0, first), (top, peak), *([(2 * top, first)] if s.three_phase else []), (s.total_steps - 1, last)]
    return through(k, knots, [SHAPES[s.interpolate_type]] * (len(knots) - 1))


def _floor(x: Scalar) -> Scalar:
    return jnp.floor(x) if is_array(x) else float(math.floor(x))
