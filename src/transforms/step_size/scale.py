"""Multiplication by a number: a scale, and the negative learning rate."""

from __future__ import annotations

import math

from ...core.facade.link import Scaling, transform
from ...core.values.hyper import Hyper, hyper


@transform
class scale(Scaling):
    """Multiply the update by a number."""

    step_size: Hyper = hyper("γ", "the factor", low=-math.inf)

    equation = "u ← γu"
    role = "scale"
    factor_field = "step_size"

    def factor(self, at):
        return self.step_size


@transform
class scale_by_lr(Scaling):
    """Multiply by the negative learning rate. Usually the last link of a chain."""

    learning_rate: Hyper = hyper("α", "length of the step")

    equation = "u ← −αu"
    role = "descend"
    factor_field = "learning_rate"

    def factor(self, at):
        return -self.learning_rate
