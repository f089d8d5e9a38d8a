"""Estimates of the distance to the solution, which grow from far too small, in place of a learning rate.

The gradients met so far bound the distance from below. The learning rate γ multiplies the estimate:
leave it 1, or take a schedule with the peak 1. It enters the estimate too, and so is a field of these
links; `scale_by_lr` after them has the rate 1. So it is with decoupled weight decay, λ, which the
estimate scales as it scales the step; for L2 put `add_decayed_weights` before them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...core.facade.link import Treewise, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, safe_div, sqrt
from ...core.values.tree import global_norm
from ...core.values.value import derived, static
from ..shared.vector import Space, Vector, dot, total
from ..shared.whole import Moving, copied, zeros


@transform
class scale_by_dadapt_sgd(Treewise):
    """Dual averaging with an estimated rate, and momentum. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 4.

    ‖g‖ is the norm of the first gradient that is not 0.
    """

    learning_rate: Hyper = hyper("γ", "multiple of the estimate", default=1.0)
    momentum: Hyper = hyper("β", "share of θ in the next θ", default=0.9, high=1.0)
    estim_lr0: Hyper = hyper("d₀", "the first estimate", default=1e-6)

    equation = (
        "ρ = γd/‖g‖,  r ← r + ρuᵀs,  s ← s + ρu,  d ← max(d, 2r/‖s‖) from d₀,  u ← (1−β)(θ − θ₀ + s)"  # θ₀ − s is z
    )
    knows_shards = True
    slots = ("start", "sum")
    nonnegative = ("estimate", "norm")
    role = "accumulate"
    undoes_scale = True
    reads_params = True

    def init_tree(self, params):
        dtype = Space(params).dtype
        return {"start": copied(params), **_estimate(self.estim_lr0, params, dtype), "norm": jnp.zeros((), dtype)}

    def update_tree(self, updates, state, params, at):
        space = Moving(updates, params, at.dtype)
        x, x0, g, s = map(space.read, (params, state["start"], updates, state["sum"]))
        d, r, norm = (state[name].astype(at.dtype) for name in ("estimate", "inner", "norm"))
        norm = jnp.where(norm > 0, norm, at.global_norm())
        rate = safe_div(self.learning_rate * d, norm)
        r = r + rate * dot(g, s, at.dtype)
        s = [a + rate * b for a, b in zip(s, g)]
        d = jnp.maximum(d, safe_div(2 * r, global_norm(s + space.still(state["sum"]))))
        u = [(1 - self.momentum) * (a - b + c) for a, b, c in zip(x, x0, s)]
        state = {**state, "sum": space.write(s, state["sum"]), "estimate": d, "inner": r, "norm": norm}
        return space.write(u, updates), state


@transform
class scale_by_dadapt_adam(Treewise):
    """Adam with an estimated rate. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 5.

    The published code and Optax take the product with s in the metric of the step before, √v of the
    last v; the paper in that of this step. With ``debias`` the rate has Adam's bias correction, as in Optax.
    """

    learning_rate: Hyper = hyper("γ", "multiple of the estimate", default=1.0)
    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.999, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    estim_lr0: Hyper = hyper("d₀", "the first estimate", default=1e-6)
    weight_decay: Hyper = hyper("λ", "multiple of the parameters that is added", default=0.0)
    debias: bool = static("whether bias is corrected", default=False, one_of=(False, True))

    knows_shards = True
    slots = ("mu", "nu", "sum")
    nonnegative = ("nu", "estimate")
    role = "precondition"
    reads_params = True
    decay_field = "weight_decay"

    @derived
    def equation(self) -> str:
        return (
            f"ρ = γd{_correction(self)},  m ← β₁m + (1−β₁)ρu,  v ← β₂v + (1−β₂)u²,  A = √v + ε,  "
            "r ← √β₂r + (1−√β₂)ρuᵀ(s/A),  s ← √β₂s + (1−√β₂)ρu,  d ← max(d, r/((1−√β₂)‖s‖₁)) from d₀,  "
            "u ← m/A + λρθ"
        )

    def init_tree(self, params):
        estimate = _estimate(self.estim_lr0, params, Space(params).dtype)
        return {"mu": zeros(params), "nu": zeros(params), **estimate}

    def update_tree(self, updates, state, params, at):
        space = Moving(updates, params, at.dtype)
        x, g, m, v, s = map(space.read, (params, updates, state["mu"], state["nu"], state["sum"]))
        d, r = (state[name].astype(at.dtype) for name in ("estimate", "inner"))
        b3 = self.b2**0.5 if isinstance(self.b2, float) else sqrt(self.b2)  # whose derivative at 0 is finite
        rates = space.each(at, lambda own: _rate(self, d, own))
        scaled = [rate * b for rate, b in zip(rates, g)]
        m = [averaged(a, b, self.b1) for a, b in zip(m, scaled)]
        v = [averaged(a, jnp.square(b), self.b2) for a, b in zip(v, g)]
        A = [sqrt(a) + self.eps for a in v]
        r = averaged(r, dot(scaled, [a / b for a, b in zip(s, A)], at.dtype), b3)
        s = [averaged(a, b, b3) for a, b in zip(s, scaled)]
        d = jnp.maximum(d, safe_div(r, (1 - b3) * _absolute(s + space.still(state["sum"]), at.dtype)))
        u = [a / b + self.weight_decay * rate * c for rate, a, b, c in zip(rates, m, A, x)]
        return space.write(u, updates), {
            "mu": space.write(m, state["mu"]),
            "nu": space.write(v, state["nu"]),
            "sum": space.write(s, state["sum"]),
            "estimate": d,
            "inner": r,
        }


@transform
class scale_by_prodigy(Treewise):
    """D-Adaptation that weighs by d², and so grows faster. Mishchenko & Defazio 2024, arXiv:2306.06101, Algorithm 4.

    The paper has β₃ = √β₂ and c = 1. With ``debias`` the rate has Adam's bias correction, as in Optax.
    With ``safeguard_warmup`` γ is left out of s, so that the small γ of a warm-up do not raise d.
    The published code has the next d in εd, where the paper has this one.
    """

    learning_rate: Hyper = hyper("γ", "multiple of the estimate", default=1.0)
    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.999, high=1.0)
    b3: Hyper = hyper("β₃", "decay of what the estimate is made of", default=0.999**0.5, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    estim_lr0: Hyper = hyper("d₀", "the first estimate", default=1e-6)
    estim_lr_coef: Hyper = hyper("c", "multiple of what the gradients say", default=1.0)
    weight_decay: Hyper = hyper("λ", "multiple of the parameters that is added", default=0.0)
    debias: bool = static("whether bias is corrected", default=False, one_of=(False, True))
    safeguard_warmup: bool = static("whether γ is left out of s", default=False, one_of=(False, True))

    knows_shards = True
    slots = ("mu", "nu", "start", "sum")
    nonnegative = ("nu", "estimate")
    role = "precondition"
    reads_params = True
    decay_field = "weight_decay"

    @derived
    def equation(self) -> str:
        weight = "d²" if self.safeguard_warmup else "ρd"
        return (
            f"ρ = γd{_correction(self)},  m ← β₁m + (1−β₁)du,  v ← β₂v + (1−β₂)d²u²,  r ← β₃r + ρd·uᵀ(θ₀ − θ),  "
            f"s ← β₃s + {weight}u,  u ← ρm/(√v + εd) + λρθ,  d ← max(d, cr/‖s‖₁) from d₀"
        )

    def init_tree(self, params):
        estimate = _estimate(self.estim_lr0, params, Space(params).dtype)
        return {"mu": zeros(params), "nu": zeros(params), "start": copied(params), **estimate}

    def update_tree(self, updates, state, params, at):
        space = Moving(updates, params, at.dtype)
        x, x0, g, m, v, s = map(space.read, (params, state["start"], updates, state["mu"], state["nu"], state["sum"]))
        d, r = (state[name].astype(at.dtype) for name in ("estimate", "inner"))
        rates = space.each(at, lambda own: _rate(self, d, own))
        m = [averaged(a, d * b, self.b1) for a, b in zip(m, g)]
        v = [averaged(a, jnp.square(d * b), self.b2) for a, b in zip(v, g)]
        scaled = [rate * d * b for rate, b in zip(rates, g)]
        r = self.b3 * r + dot(scaled, [a - b for a, b in zip(x0, x)], at.dtype)
        added = [jnp.square(d) * b for b in g] if self.safeguard_warmup else scaled
        s = [self.b3 * a + b for a, b in zip(s, added)]
        # 0 where d = 0: nothing moves then, nor where ε = 0 and there was no gradient yet.
        steps = (safe_div(a, sqrt(b) + self.eps * d) + self.weight_decay * c for a, b, c in zip(m, v, x))
        u = [rate * step for rate, step in zip(rates, steps)]
        d = jnp.maximum(d, safe_div(self.estim_lr_coef * r, _absolute(s + space.still(state["sum"]), at.dtype)))
        return space.write(u, updates), {
            "mu": space.write(m, state["mu"]),
            "nu": space.write(v, state["nu"]),
            "start": state["start"],
            "sum": space.write(s, state["sum"]),
            "estimate": d,
            "inner": r,
        }


def _estimate(first: Any, params: Any, dtype: Any) -> dict[str, Any]:
    """The state of an estimate d: s, d and r."""
    return {"sum": zeros(params), "estimate": jnp.asarray(first, dtype), "inner": jnp.zeros((), dtype)}


def _rate(link: scale_by_dadapt_adam | scale_by_prodigy, d: jax.Array, at: Any) -> jax.Array:
    rate = link.learning_rate * d
    return rate * at.debias(link.b1) / sqrt(at.debias(link.b2)) if link.debias else rate


def _correction(link: scale_by_dadapt_adam | scale_by_prodigy) -> str:
    return "·√(1−β₂ᵗ)/(1−β₁ᵗ)" if link.debias else ""


def _absolute(x: Vector, dtype: Any) -> jax.Array:
    """‖x‖₁."""
    return total([jnp.abs(a) for a in x], dtype)
