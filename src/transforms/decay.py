"""Weight decay and penalties: links that read the parameters."""

from __future__ import annotations

import jax.numpy as jnp

from ..core.facade.link import Leafwise, transform
from ..core.values.hyper import Hyper, hyper
from ..core.values.numerics import add, mul


@transform
class add_decayed_weights(Leafwise):
    """Add a multiple of the parameters to the update. Its position in the chain determines the kind of decay.

    Before the preconditioner: L2 regularization, coupled (the gradient of ½λ‖θ‖²). Between it and
    `scale_by_lr`: decoupled, as in AdamW. Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2.
    """

    weight_decay: Hyper = hyper("λ", "multiple of the parameters that is added")

    equation = "u ← u + λθ"
    role = "decay"
    decay_field = "weight_decay"
    reads_params = True

    def leaf(self, u, slot, p, scalars):
        return add(u, mul(self.weight_decay, p))


@transform
class add_l1(Leafwise):
    """Add the gradient of λ‖θ‖₁, which is λ·sign(θ). Tibshirani 1996.

    At θ = 0 the subgradient is 0, where ``jax.grad(jnp.abs)(0.0)`` is 1.
    """

    l1: Hyper = hyper("λ", "weight of the penalty")

    equation = "u ← u + λ·sign(θ)"
    role = "penalty"
    reads_params = True

    def leaf(self, u, slot, p, scalars):
        return u + self.l1 * jnp.sign(p)


@transform
class decay_after_step(Leafwise):
    """Shrink the parameters in a separate step after the main one: θ ← θ − λ(θ + u).

    Place it after `scale_by_lr`, which then does not scale it: the decay is independent of the
    learning rate. With a schedule for λ it is the second optimizer of decoupling by "two optimizers",
    and the last step of MXNet 0.7's Adam.
    """

    rate: Hyper = hyper("λ", "fraction that is removed at each step", high=1.0, closed=True)

    equation = "u ← u − λ(θ + u)"
    role = "decay_after"
    decay_field = "rate"
    reads_params = True

    def leaf(self, u, slot, p, scalars):
        return u - self.rate * (p + u)
