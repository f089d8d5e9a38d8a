"""Clipping: bounds on the size of the update."""

from __future__ import annotations

import jax.numpy as jnp

from ...core.facade.link import Leafwise, Scaling, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import clipped, sqrt
from ...core.values.value import static
from .blocks import bounding


@transform
class clip(Leafwise):
    """Clip every coordinate to [−c, c]."""

    max_delta: Hyper = hyper("c", "the largest magnitude; ∞ for no bound", closed=True)

    equation = "u ← min(max(u, −c), c)"
    role = "clip"
    bounds_size = hides_infinite = True

    def leaf(self, u, slot, p, scalars):
        return clipped(u, self.max_delta)


@transform
class clip_by_global_norm(Scaling):
    """Scale all updates down if their global norm exceeds a bound. Pascanu et al. 2013, arXiv:1211.5063.

    The norm is accumulated in float32 or better. A NaN gradient makes every update NaN; an infinite
    norm (a gradient over 1.8e19 in float32) makes finite updates 0 and infinite ones NaN.
    """

    max_norm: Hyper = hyper("c", "the largest global norm; ∞ for no bound", closed=True)

    equation = "u ← u·min(1, c/‖u‖)"
    role = "clip"
    bounds_size = True
    needs_all_updates = True

    def factor(self, at):
        return bounding(at.global_norm(), self.max_norm)


@transform
class adaptive_grad_clip(Leafwise):
    """Clip each unit's gradient in proportion to its weights. Brock et al. 2021, arXiv:2102.06171, equation 3.

    A unit's weights extend along all axes but the last; along the first axis only in a leaf with three axes
    [in, heads, size]; and along all axes if at most one is longer than 1. ``axis`` overrides this, except for leaves of
    the last kind that lack the axis. A complex leaf has an additional last axis of size 2.
    """

    clipping: Hyper = hyper("λ", "the largest norm, as a multiple of the norm of the weights")
    eps: Hyper = hyper("ε", "lower bound on the norm of the weights", default=1e-3)
    axis: int | tuple[int, ...] | None = static("axes along which a unit's weights extend", default=None)

    equation = "u ← u·min(1, λ·max(‖θ‖, ε)/‖u‖) for each unit"
    role = "clip"
    reads_params = True

    def check(self) -> None:
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        if self.axis is not None and not all(type(axis) is int for axis in axes):
            raise ValueError(f"`adaptive_grad_clip.axis` must be an axis, a tuple of axes or None, got {self.axis!r}")

    def leaf(self, u, slot, p, scalars):
        axes = _axes_of_unit(u.shape, self.axis)
        size, weights = (sqrt(jnp.sum(jnp.square(x), axes, keepdims=True)) for x in (u, p))
        return u * bounding(size, self.clipping * jnp.maximum(weights, self.eps))


def _axes_of_unit(shape: tuple[int, ...], axis: int | tuple[int, ...] | None) -> tuple[int, ...]:
    axes = (axis,) if isinstance(axis, int) else axis
    if axes is not None and all(-len(shape) <= i < len(shape) for i in axes):
        return axes
    if sum(n > 1 for n in shape) <= 1:
        return tuple(range(len(shape)))
    if axes is not None:
        raise ValueError(
            f"`adaptive_grad_clip.axis` is {axis}, but an update of shape {list(shape)} has no such axis: "
            "give such leaves their own link, by partition(by_path({pattern: adaptive_grad_clip(...)}, default=...))"
        )
    return (0,) if len(shape) == 3 else tuple(range(len(shape) - 1))
