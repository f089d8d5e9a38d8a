"""Distance over gradients: step sizes without a learning rate to tune.

Evaluate at an average of the parameters, since the steps do not shrink to 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.facade.link import Leafwise, slot_like, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import safe_div, sqrt
from ...core.values.tree import global_norm, leaf_sum, widest
from ...core.values.types import DType, Params, Scalar
from ...core.values.value import derived, static
from ..shared.vector_link import VectorLink


@transform
class scale_by_dog(VectorLink):
    """Scale by the distance from the start over the root sum of squares. Ivgi et al. 2023, arXiv:2302.12022, (DoG).

    The paper suggests r_ε relative to 1 + ‖θ₀‖: 1e-6, or 1e-4 with batch normalization.
    """

    r_eps: Hyper = hyper("r_ε", "initial distance", default=1e-6)
    relative: bool = static("multiply the initial distance by 1 + ‖θ₀‖", default=True, one_of=(False, True))
    eps: Hyper = hyper("ε", "floor of the denominator, inside the root", default=1e-8)

    knows_shards = True
    slots = ("start",)
    nonnegative = ("distance", "total")
    role = "scale"
    undoes_scale = True
    reads_params = True

    @derived
    def equation(self) -> str:
        return f"r̄ ← max(r̄, ‖θ − θ₀‖) from {_first(self)},  {self.rule}"

    @property
    def rule(self) -> str:
        """The second part of the equation."""
        return "G ← G + ‖u‖²,  u ← r̄/√(G + ε)·u"

    def init_vector(self, x):
        return {"start": x, "distance": _start(self.r_eps, self.relative, x, widest(a.dtype for a in x)), "total": 0.0}

    def update_vector(self, u, state, x, at):
        moved = [a - b for a, b in zip(x + at.still_params(), state["start"] + at.still("start"))]
        distance = jnp.maximum(state["distance"], at.norm(moved))
        rate, total = self.rate(distance, jnp.square(at.global_norm()), state["total"])
        return [rate * a for a in u], {**state, "distance": distance, "total": total}

    def metrics(self, entry):
        return {"distance": entry["distance"]}

    def rate(self, r: jax.Array, square: jax.Array, total: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The factor of the update, and the next sum of squares."""
        total = total + square
        return safe_div(r, sqrt(total + self.eps)), total


@transform
class scale_by_dowg(scale_by_dog):
    """`scale_by_dog` with each square weighted by the distance at its step. Khaled et al. 2023, arXiv:2305.16284.

    Algorithm 2. The published code adds ε = 1e-4, which the paper does not have.
    """

    r_eps: Hyper = hyper("r_ε", "initial distance", default=1e-2)
    relative: bool = static("multiply the initial distance by 1 + ‖θ₀‖", default=False, one_of=(False, True))
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=0.0)

    @property
    def rule(self) -> str:
        return "v ← v + r̄²‖u‖²,  u ← r̄²/(√v + ε)·u"

    def rate(self, r, square, total):
        total = total + jnp.square(r) * square
        return safe_div(jnp.square(r), sqrt(total) + self.eps), total


@transform
class scale_by_ldog(Leafwise):
    """`scale_by_dog` leaf by leaf. Ivgi et al. 2023, arXiv:2302.12022, (L-DoG)."""

    r_eps: Hyper = hyper("r_ε", "initial distance", default=1e-6)
    relative: bool = static("multiply the initial distance by 1 + ‖θ₀‖", default=True, one_of=(False, True))
    eps: Hyper = hyper("ε", "floor of the denominator, inside the root", default=1e-8)

    slots = ("start", "distance", "total")
    nonnegative = ("distance", "total")
    role = "scale"
    undoes_scale = True
    reads_params = knows_shards = True

    @derived
    def equation(self) -> str:
        return f"r̄ ← max(r̄, ‖θ − θ₀‖) from {_first(self)},  G ← G + ‖u‖²,  u ← r̄/√(G + ε)·u,  leaf by leaf"

    def init_leaf(self, p):
        like = slot_like(p)
        start = like + p.astype(like.dtype)
        first = _start(self.r_eps, self.relative, start, like.real.dtype)
        return {"start": start, "distance": first, "total": jnp.zeros_like(first)}

    def leaf(self, u, slot, p, scalars):
        distance = jnp.maximum(slot.distance, sqrt(leaf_sum(jnp.square(p - slot.start))))
        total = slot.total + leaf_sum(jnp.square(u))
        rate = safe_div(distance, sqrt(total + self.eps))
        return rate * u, {"start": slot.start, "distance": distance, "total": total}


def _first(link: scale_by_dog | scale_by_ldog) -> str:
    return "r_ε(1 + ‖θ₀‖)" if link.relative else "r_ε"


def _start(r_eps: Scalar, relative: bool, params: Params, dtype: DType) -> jax.Array:
    first = jnp.asarray(r_eps, dtype)
    return first * (1 + global_norm(params).astype(dtype)) if relative else first
