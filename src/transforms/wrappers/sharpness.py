"""Sharpness-aware minimization: step by the gradient at the worst point nearby.

Pass ``grad_fn`` to ``update`` and ``step``: a function that takes the parameters (widened to float32 or
better) and returns the gradients on the same batch. The link comes first in a chain.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.facade.link import Treewise, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.tree import global_norm
from ..shared.vector import Space, Vector, add


@transform
class sharpness_aware(Treewise):
    """Take the gradient a distance ρ uphill. Foret et al. 2021, arXiv:2010.01412, Algorithm 1.

    Put this link first in a chain, and pass ``grad_fn``, the gradient of the loss on the same batch as a function of
    the parameters, to ``update`` and ``step``.

    Put `dynamic_loss_scale` second. Both gradients are then those of the scaled loss, which does not change
    the direction uphill, and an overflow in either causes the step to be rejected:

    >>> import chainax as cx
    >>> def loss(params):
    ...     return jnp.sum(jnp.square(params))
    >>> tx, params = cx.chain(cx.sharpness_aware(), cx.dynamic_loss_scale(), cx.sgd(0.1)), jnp.ones(3)
    >>> state = tx.init(params)
    >>> grad_fn = jax.grad(lambda params: loss(params) * cx.loss_scale(state))
    >>> params, state = tx.step(params, state, grad_fn(params), grad_fn=grad_fn)

    In the other order ``grad_fn`` must return unscaled gradients, and their overflow goes unnoticed.
    """

    rho: Hyper = hyper("ρ", "how far to go uphill", default=0.05)

    equation = "u ← ∇f(θ + ρu/‖u‖)"
    role = "gradient"
    knows_shards = True
    sees_holes = True
    reads_params = True
    extra = ("grad_fn",)

    def update_tree(self, updates, state, params, at):
        space = Space(params)
        x, g = space.read(params), space.read(updates)
        uphill, norm = self.uphill(x, g)
        moves = norm > 0
        length = jnp.where(moves, self.rho / jnp.where(moves, norm, 1.0), 0.0)
        grads = at.extra["grad_fn"](space.write(add(x, length, uphill), params))
        return space.write(space.read(grads, "The gradients that grad_fn returned"), updates), state

    def uphill(self, x: Vector, g: Vector) -> tuple[Vector, jax.Array]:
        """The direction, and the norm that makes its length ρ."""
        return g, global_norm(g)


@transform
class adaptive_sharpness_aware(sharpness_aware):
    """Like `sharpness_aware`, but farther for large parameters. Kwon et al. 2021, arXiv:2102.11600, Algorithm 1.

    T = |θ| + η makes the step invariant to shifting a factor from one layer to the next. The published
    code has T = 1 for biases; the paper does not.
    """

    rho: Hyper = hyper("ρ", "how far to go uphill, relative to the parameters", default=0.5)
    eta: Hyper = hyper("η", "added to the size of a parameter", default=0.01)

    equation = "u ← ∇f(θ + ρT²u/‖Tu‖),  T = |θ| + η"

    def uphill(self, x, g):
        T = [jnp.abs(v) + jnp.asarray(self.eta, v.dtype) for v in x]
        return [t * t * v for t, v in zip(T, g)], global_norm([t * v for t, v in zip(T, g)])
