"""Preconditioning by an estimate of the Hessian's diagonal."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ...core.facade.link import Treewise, slot_like, transform
from ...core.values.hyper import Hyper, hyper, integer, whole
from ...core.values.numerics import averaged
from ...core.values.tree import drawn_like, widened
from ...core.values.types import Params, Updates
from ..shared.vector import Space, Vector
from ..shared.whole import Moving


@transform
class scale_by_sophia(Treewise):
    """Divide the mean gradient by the mean curvature, and clip. Liu et al. 2023, arXiv:2305.14342, Algorithm 3.

    ``update`` and ``step`` require ``hessian``: an estimate of the Hessian's diagonal, as a tree
    like the parameters, or a function of the parameters (in float32 or better) that returns one, such as
    `hutchinson`. It is read or called only at the first of every ``update_interval`` steps.
    Optax corrects the bias of m and divides by the previous curvature.
    """

    b1: Hyper = hyper("β₁", "decay of the mean", default=0.965, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean curvature", default=0.99, high=1.0)
    gamma: Hyper = hyper("γ", "factor of the curvature in the denominator", default=0.01)
    eps: Hyper = hyper("ε", "floor of the denominator", default=1e-12)
    update_interval: Hyper = whole("k", "steps between two estimates", default=10)

    knows_shards = True
    slots = ("mu", "nu")
    sees_holes = True
    equation = "m ← β₁m + (1−β₁)u,  h ← β₂h + (1−β₂)ĥ every k steps,  u ← min(max(m / max(γh, ε), −1), 1)"
    role = "precondition"
    bounds_size = True
    hides_infinite = True
    reads_params = True
    extra = ("hessian",)

    def init_tree(self, params):
        space = Space(params)
        zeros = space.read(jax.tree.map(slot_like, space.drop_holes()))
        return {"mu": space.keep(zeros), "nu": space.keep([jnp.copy(x) for x in zeros])}

    def update_tree(self, updates, state, params, at):
        space, hessian = Moving(updates, params, at.dtype), at.extra["hessian"]
        g, m, h = map(space.read, (updates, state["mu"], state["nu"]))

        regular = at.phase(integer(self.update_interval, at.dtype), 1.0) < 1
        due = space.each(at, lambda own: regular if own is at else regular | (own.count == 1))
        late = [d for d in due if d is not regular]  # parameters that have just joined have no curvature yet

        def estimated() -> Vector:
            estimate = space.read(hessian(params) if callable(hessian) else hessian)
            new = [averaged(a, b, self.b2) for a, b in zip(h, estimate)]
            return [jnp.where(d, b, a) for d, a, b in zip(due, h, new)] if late else new

        m = [averaged(old, new, self.b1) for old, new in zip(m, g)]
        h = jax.lax.cond(functools.reduce(jnp.logical_or, late, regular), estimated, lambda: h)
        u = [jnp.clip(x / jnp.maximum(self.gamma * y, self.eps), -1, 1) for x, y in zip(m, h)]
        return space.write(u, updates), {"mu": space.write(m, state["mu"]), "nu": space.write(h, state["nu"])}


def hutchinson(loss: Callable[[Params], jax.Array], params: Params, key: jax.Array) -> Updates:
    """An unbiased estimate of the diagonal of the loss's Hessian: z ⊙ ∇²f·z with random signs z. Hutchinson 1990.

    Returns a tree like the parameters in float32 or better, with ``None`` where these are not floating-point. For a
    complex parameter, the two parts hold the second derivatives with respect to its two parts.

    >>> import chainax as cx
    >>> key, params = jax.random.key(0), jax.numpy.array([1.0, 2.0])
    >>> cx.hutchinson(lambda x: (x**3).sum(), params, key).tolist()
    [6.0, 12.0]
    """
    space = Space(params)
    x = space.read(params)
    z = [drawn_like(jax.random.rademacher, k, v, v.dtype) for k, v in zip(jax.random.split(key, len(x)), x)]
    _, curved = jax.jvp(jax.grad(lambda x: loss(space.write(x, params))), (x,), (z,))
    return space.write([a * b for a, b in zip(z, curved)], widened(space.drop_holes()))
