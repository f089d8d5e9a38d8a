"""Polyak's step size: the distance at which the linear model reaches the lowest value."""

from __future__ import annotations

import math

import jax.numpy as jnp

from ...core.facade.link import Scaling, transform
from ...core.values.hyper import Hyper, hyper


@transform
class scale_by_polyak(Scaling):
    """Scale by the suboptimality divided by the squared norm. Polyak 1969; Loizou et al. 2021, arXiv:2002.10542.

    The paper's SPS_max with c = 1; for another c scale by 1/c. ``update`` and ``step`` require
    ``value``, the loss whose gradient is taken. For a loss below f* the step ascends, as published.
    """

    f_min: Hyper = hyper("f*", "the lowest value, or a bound below it", default=0.0, low=-math.inf)
    max_learning_rate: Hyper = hyper("γ_max", "the largest factor", default=1.0, closed=True)
    eps: Hyper = hyper("ε", "floor of the denominator", default=0.0)

    equation = "u ← u·min((f(θ) − f*) / (‖u‖² + ε), γ_max)"
    role = "scale"
    undoes_scale = True
    needs_all_updates = True
    extra = ("value",)

    def factor(self, at):
        gap = jnp.asarray(at.extra["value"], at.dtype) - self.f_min
        square = jnp.square(at.global_norm()) + self.eps
        moves = square > 0
        return jnp.where(moves, jnp.minimum(gap / jnp.where(moves, square, 1.0), self.max_learning_rate), 0.0)
