"""Momentum: sums and averages of past updates."""

from __future__ import annotations

import jax.numpy as jnp

from ...core.facade.link import Leafwise, transform
from ...core.values.contents import code, is_array
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import add, averaged, is_zero, mul
from ...core.values.value import derived, static


@transform
class trace(Leafwise):
    """Accumulate updates in a decaying sum. Polyak 1964; Sutskever et al. 2013.

    PyTorch's form: the first update is not dampened. Before `scale_by_lr` the learning
    rate multiplies the entire buffer; after it each gradient keeps the rate of its own step, which is
    Sutskever's form. With ``nesterov`` the update looks one step ahead, g + μb. To take
    the gradient at the look-ahead point instead, see `chain.lookahead`.
    """

    momentum: Hyper = hyper("μ", "decay of the sum; 1 sums all updates", high=1.0, closed=True)
    dampening: Hyper = hyper("τ", "fraction of a new update that is dropped", default=0.0, high=1.0, closed=True)
    nesterov: bool = static("look one step ahead", default=False, one_of=(False, True))

    slots = ("trace",)
    role = "accumulate"

    @derived
    def equation(self) -> str:
        return "b ← μb + (1−τ)u,  b₁ = u₁,  " + ("u ← u + μb" if self.nesterov else "u ← b")

    def check(self) -> None:
        if self.nesterov and not is_array(self.dampening) and self.dampening != 0.0:
            raise ValueError(f"`trace.nesterov` needs dampening = 0, got {code(self.dampening)}")

    def scalars(self, at):
        if is_zero(self.dampening):
            return 1.0
        return jnp.where(at.step == 1, 1.0, 1 - self.dampening)

    def leaf(self, u, slot, p, intake):
        b = add(mul(self.momentum, slot.trace), mul(intake, u))
        return (add(u, mul(self.momentum, b)) if self.nesterov else b), {"trace": b}


@transform
class ema(Leafwise):
    """Average updates exponentially from 0, without bias correction. Optax's ``ema`` is `debiased_ema`."""

    decay: Hyper = hyper("β", "decay of the mean", high=1.0)

    slots = ("ema",)
    holds = {"ema": "E[u]"}
    equation = "m ← βm + (1−β)u,  u ← m"
    role = "accumulate"

    def leaf(self, u, slot, p, scalars):
        m = averaged(slot.ema, u, self.decay)
        return m, {"ema": m}


@transform
class debiased_ema(ema):
    """Average updates exponentially, with bias correction: the numerator of Adam."""

    holds = {"ema": "E[u]"}
    equation = "m ← βm + (1−β)u,  u ← m̂"

    def scalars(self, at):
        return at.debias(self.decay)

    def leaf(self, u, slot, p, scalars):
        m, slots = super().leaf(u, slot, p, None)
        return m * scalars, slots
