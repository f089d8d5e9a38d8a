"""Scaling by the norms of leaves. A layer in the papers is a leaf here."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.facade.link import Leafwise, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import is_zero, safe_div
from ...core.values.types import Scalar
from ...core.values.value import derived
from .blocks import computed_once, norm


@transform
class scale_by_trust_ratio(Leafwise):
    """Give a leaf's update the norm of its parameter. You et al. 2020, arXiv:1904.00962, section 3, with φ(z) = z.

    A leaf is unchanged if one of the norms is 0, as in the published code; in the paper its update would be
    0. ``min_norm`` is Optax's lower bound on both norms.
    """

    min_norm: Hyper = hyper("n", "lower bound on both norms", default=0.0)
    trust_coefficient: Hyper = hyper("η", "norm of the update, as a multiple of the parameter's norm", default=1.0)
    eps: Hyper = hyper("ε", "added to the norm of the update", default=0.0)

    equation = "u ← u·η·max(‖θ‖, n) / (max(‖u‖, n) + ε), or u if a norm is 0"
    role = "scale"
    undoes_scale = True
    reads_params = knows_shards = True

    def leaf(self, u, slot, p, scalars):
        theta, length = (jnp.maximum(norm(x), self.min_norm) for x in (p, u))
        return computed_once(u) * _trust(self.trust_coefficient, theta, length, length + self.eps)


@transform
class scale_by_lars(Leafwise):
    """Add weight decay and scale both by one rate for each leaf. You et al. 2017, arXiv:1708.03888, Algorithm 1.

    The rate is 1 if ‖θ‖ or the denominator is 0, as in the published code. Optax divides by the
    norm of the sum, ‖u + λθ‖: for that use `add_decayed_weights` and `scale_by_trust_ratio`.
    """

    trust_coefficient: Hyper = hyper("η", "norm of a step, as a multiple of the parameter's norm", default=1e-3)
    weight_decay: Hyper = hyper("λ", "multiple of the parameters that is added", default=0.0)
    eps: Hyper = hyper("ε", "added to the denominator", default=0.0)

    equation = "u ← (u + λθ)·η‖θ‖ / (‖u‖ + λ‖θ‖ + ε), or u + λθ if ‖θ‖ or the divisor is 0"
    undoes_scale = True
    reads_params = knows_shards = True
    decay_field = "weight_decay"

    @derived
    def role(self) -> str:
        return "precondition" if is_zero(self.weight_decay) else "decay"

    def leaf(self, u, slot, p, scalars):
        theta = norm(p)
        length = norm(u) + self.weight_decay * theta
        return (u + self.weight_decay * p) * _trust(self.trust_coefficient, theta, length, length + self.eps)


@transform
class normalize_by_block_norm(Leafwise):
    """Divide each leaf by its norm. Yu et al. 2017, arXiv:1707.04822, Algorithm 1, with a leaf for a block."""

    eps: Hyper = hyper("ε", "added to the norm", default=0.0)

    equation = "u ← u / (‖u‖ + ε), 0 if that is 0/0"
    role = "precondition"
    bounds_size = fixes_norm = knows_shards = True

    def leaf(self, u, slot, p, scalars):
        return safe_div(u, norm(u) + self.eps)


def _trust(eta: Scalar, theta: jax.Array, length: jax.Array, denominator: jax.Array) -> jax.Array:
    """η‖θ‖ divided by a denominator, or 1 if one of the norms is 0."""
    compares = (theta > 0) & (length > 0)
    return jnp.where(compares, eta * theta / jnp.where(compares, denominator, 1.0), 1.0)
