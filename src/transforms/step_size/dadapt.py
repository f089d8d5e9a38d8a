"""Learning rates from an estimate of the distance to the solution, which grows from a very small value.

The gradients so far give a lower bound on the distance. The learning rate γ multiplies the estimate:
leave it at 1, or use a schedule with the peak 1. It also enters the estimate, and is therefore a field of these
links; the `scale_by_lr` after them has the rate 1. The same holds for decoupled weight decay, λ, which is
scaled by the estimate like the step. For L2 put `add_decayed_weights` before them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.engine.step_info import StepInfo
from ...core.facade.link import transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, safe_div, sqrt
from ...core.values.value import derived, static
from ..shared.vector import Vector
from ..shared.vector_link import VectorInfo, VectorLink


@transform
class scale_by_dadapt_sgd(VectorLink):
    """Dual averaging with an estimated rate, and momentum. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 4.

    ‖g‖ is the norm of the first nonzero gradient.
    """

    learning_rate: Hyper = hyper("γ", "multiple of the estimate", default=1.0)
    momentum: Hyper = hyper("β", "weight of θ in the next θ", default=0.9, high=1.0)
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

    def init_vector(self, x):
        return {"start": x, "estimate": self.estim_lr0, "inner": 0.0, "norm": 0.0}

    def update_vector(self, u, state, x, at):
        s, d, r, norm = (state[name] for name in ("sum", "estimate", "inner", "norm"))
        norm = jnp.where(norm > 0, norm, at.global_norm())
        rate = safe_div(self.learning_rate * d, norm)
        r = r + rate * at.dot(u, s)
        s = [a + rate * b for a, b in zip(s, u)]
        d = jnp.maximum(d, safe_div(2 * r, at.norm(s + at.still("sum"))))
        u = [(1 - self.momentum) * (a - b + c) for a, b, c in zip(x, state["start"], s)]
        return u, {**state, "sum": s, "estimate": d, "inner": r, "norm": norm}

    def metrics(self, entry):
        return {"estimate": entry["estimate"]}


@transform
class scale_by_dadapt_adam(VectorLink):
    """Adam with an estimated rate. Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 5.

    The published code and Optax compute the product with s in the metric of the previous step, with the previous
    v; the paper in that of the current step. With ``debias`` the rate has Adam's bias correction, as in Optax.
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

    def init_vector(self, x):
        return {"estimate": self.estim_lr0, "inner": 0.0}

    def update_vector(self, u, state, x, at):
        m, v, s, d, r = (state[name] for name in ("mu", "nu", "sum", "estimate", "inner"))
        b3 = self.b2**0.5 if isinstance(self.b2, float) else sqrt(self.b2)  # whose derivative at 0 is finite
        rates = at.each(lambda own: _rate(self, d, own))
        scaled = [rate * b for rate, b in zip(rates, u)]
        m = [averaged(a, b, self.b1) for a, b in zip(m, scaled)]
        v = [averaged(a, jnp.square(b), self.b2) for a, b in zip(v, u)]
        A = [sqrt(a) + self.eps for a in v]
        r = averaged(r, at.dot(scaled, [a / b for a, b in zip(s, A)]), b3)
        s = [averaged(a, b, b3) for a, b in zip(s, scaled)]
        d = jnp.maximum(d, safe_div(r, (1 - b3) * _absolute(s, at)))
        u = [a / b + self.weight_decay * rate * c for rate, a, b, c in zip(rates, m, A, x)]
        return u, {"mu": m, "nu": v, "sum": s, "estimate": d, "inner": r}

    def metrics(self, entry):
        return {"estimate": entry["estimate"]}


@transform
class scale_by_prodigy(VectorLink):
    """D-Adaptation with weights of d², which grows faster. Mishchenko & Defazio 2024, arXiv:2306.06101, Algorithm 4.

    The paper has β₃ = √β₂ and c = 1. With ``debias`` the rate has Adam's bias correction, as in Optax.
    With ``safeguard_warmup`` s does not contain γ, so that the small γ of a warm-up do not increase d.
    The published code uses the next d in εd, the paper the current one.
    """

    learning_rate: Hyper = hyper("γ", "multiple of the estimate", default=1.0)
    b1: Hyper = hyper("β₁", "decay of the mean", default=0.9, high=1.0)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.999, high=1.0)
    b3: Hyper = hyper("β₃", "decay of the sums in the estimate", default=0.999**0.5, high=1.0)
    eps: Hyper = hyper("ε", "floor of the denominator, outside the root", default=1e-8)
    estim_lr0: Hyper = hyper("d₀", "the first estimate", default=1e-6)
    estim_lr_coef: Hyper = hyper("c", "multiple of the estimate from the gradients", default=1.0)
    weight_decay: Hyper = hyper("λ", "multiple of the parameters that is added", default=0.0)
    debias: bool = static("whether bias is corrected", default=False, one_of=(False, True))
    safeguard_warmup: bool = static("omit γ in s", default=False, one_of=(False, True))

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

    def init_vector(self, x):
        return {"start": x, "estimate": self.estim_lr0, "inner": 0.0}

    def update_vector(self, u, state, x, at):
        m, v, s, d, r = (state[name] for name in ("mu", "nu", "sum", "estimate", "inner"))
        rates = at.each(lambda own: _rate(self, d, own))
        m = [averaged(a, d * b, self.b1) for a, b in zip(m, u)]
        v = [averaged(a, jnp.square(d * b), self.b2) for a, b in zip(v, u)]
        scaled = [rate * d * b for rate, b in zip(rates, u)]
        r = self.b3 * r + at.dot(scaled, [a - b for a, b in zip(state["start"], x)])
        added = [jnp.square(d) * b for b in u] if self.safeguard_warmup else scaled
        s = [self.b3 * a + b for a, b in zip(s, added)]
        # 0 where d = 0, and where ε = 0 and all gradients so far were 0.
        steps = (safe_div(a, sqrt(b) + self.eps * d) + self.weight_decay * c for a, b, c in zip(m, v, x))
        u = [rate * step for rate, step in zip(rates, steps)]
        d = jnp.maximum(d, safe_div(self.estim_lr_coef * r, _absolute(s, at)))
        return u, {**state, "mu": m, "nu": v, "sum": s, "estimate": d, "inner": r}

    def metrics(self, entry):
        return {"estimate": entry["estimate"]}


def _rate(link: scale_by_dadapt_adam | scale_by_prodigy, d: jax.Array, at: StepInfo) -> jax.Array:
    rate = link.learning_rate * d
    return rate * at.debias(link.b1) / sqrt(at.debias(link.b2)) if link.debias else rate


def _correction(link: scale_by_dadapt_adam | scale_by_prodigy) -> str:
    return "·√(1−β₂ᵗ)/(1−β₁ᵗ)" if link.debias else ""


def _absolute(s: Vector, at: VectorInfo) -> jax.Array:
    """‖s‖₁, over all parameters."""
    return at.total([jnp.abs(a) for a in s + at.still("sum")])
