"""Clipping: bounds on the size of the update."""

from __future__ import annotations

import jax.numpy as jnp

from ..core.hyper import Hyper, hyper
from ..core.link import Leafwise, transform


@transform
class clip(Leafwise):
    """Clip every coordinate to [−c, c]."""

    max_delta: Hyper = hyper("c", "the largest magnitude")

    equation = "u ← min(max(u, −c), c)"
    role = "clip"

    def leaf(self, u, slot, p, scalars):
        return jnp.clip(u, -self.max_delta, self.max_delta)


@transform
class clip_by_global_norm(Leafwise):
    """Scale all updates down together if their common norm exceeds a bound. Pascanu et al. 2013, arXiv:1211.5063.

    The norm is accumulated in float32 or better. A NaN gradient makes every update NaN; an infinite
    norm (a gradient over 1.8e19 in float32) makes finite updates 0 and infinite ones NaN.
    """

    max_norm: Hyper = hyper("c", "the largest norm of the whole tree")

    equation = "u ← u·min(1, c/‖u‖)"
    role = "clip"
    needs_all_updates = True

    def scalars(self, at):
        norm = at.global_norm()
        within = norm <= self.max_norm  # not so for NaN, which shall spread
        return jnp.where(within, 1.0, self.max_norm / jnp.where(within, 1.0, norm))

    def leaf(self, u, slot, p, factor):
        return u * factor
