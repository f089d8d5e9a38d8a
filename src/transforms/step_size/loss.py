"""Step sizes from a model of the loss. ``update`` and ``step`` require ``value``, the loss at the parameters."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ...core.engine.step_info import StepInfo
from ...core.facade.link import Treewise, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import averaged, safe_div, sqrt
from ...core.values.types import DType, PyTree, Scalar
from ...core.values.value import derived, static
from ..shared.vector import Space, Vector, dot
from ..shared.whole import Moving, zeros

MEANS = "d ← β₁d + (1−β₁)u,  f̄ ← β₁f̄ + (1−β₁)f(θ),  γ ← β₁γ + (1−β₁)uᵀθ"


@transform
class scale_by_momo(Treewise):
    """Momentum with Polyak's step size, from the means of losses and slopes. Schaipp et al. 2023, arXiv:2305.07583.

    Algorithm 1. θ moves to the minimum of the mean of the linear models, truncated at f*, plus
    ‖θ′ − θ‖²/2α + λ‖θ′‖²/2. This requires dividing τd by 1+αλ, which Optax omits. With ``adapt_lower_bound``
    f* is estimated from the losses so far, and is at least ``lower_bound`` (MoMo*). α and λ are fields
    because they are part of the model: the `scale_by_lr` after this link has the rate 1. ``update`` and ``step``
    require ``value``, the loss at the parameters.
    """

    learning_rate: Hyper = hyper("α", "the longest step", default=1.0)
    b1: Hyper = hyper("β₁", "decay of the means", default=0.9, high=1.0)
    lower_bound: Hyper = hyper("f*", "the lowest loss, or a bound below it", default=0.0, low=-math.inf)
    weight_decay: Hyper = hyper("λ", "weight of ½‖θ‖²", default=0.0)
    adapt_lower_bound: bool = static("whether f* is estimated", default=False, one_of=(False, True))

    knows_shards = True
    slots = ("mu",)
    sees_holes = True
    role = "accumulate"
    undoes_scale = True
    reads_params = True
    decay_field = "weight_decay"
    extra = ("value",)

    @derived
    def equation(self) -> str:
        adapted = "f* ← max(f*, f̄ − γ + dᵀθ − ½τ‖d‖²),  " if self.adapt_lower_bound else ""
        return (
            f"{MEANS} from the first,  τ = min(α, max((1+αλ)(f̄ − γ − f*) + dᵀθ, 0)/‖d‖²),  {adapted}"
            "u ← (τd + αλθ)/(1+αλ)"
        )

    def init_tree(self, params):
        dtype = Space(params).dtype
        state = {"mu": zeros(params), "value": jnp.zeros((), dtype), "slope": jnp.zeros((), dtype)}
        return {**state, "bound": jnp.asarray(self.lower_bound, dtype)} if self.adapt_lower_bound else state

    def update_tree(self, updates, state, params, at):
        space = Moving(updates, params, at.dtype)
        x, g, d = map(space.read, (params, updates, state["mu"]))
        mean, slope = state["value"].astype(at.dtype), state["slope"].astype(at.dtype)
        b = self.decay(at)
        d = [averaged(a, c, b) for a, c in zip(d, g)]
        # The model covers all parameters. One without a gradient keeps its mean, which serves as its gradient.
        still = space.still(state["mu"])
        x, g, d = x + space.still(params), g + still, d + still
        mean = averaged(mean, jnp.asarray(at.extra["value"], at.dtype), b)
        slope = averaged(slope, dot(g, x, at.dtype), b)
        scaled, rho, more = self.scaled(d, g, space, state, at)
        inner, norm = dot(d, x, at.dtype), dot(d, scaled, at.dtype)

        q = 1 + self.learning_rate * self.weight_decay
        model = q * (mean - slope) + inner
        bound = self.bound(model / (q * rho), state, at.dtype)
        tau = jnp.minimum(self.learning_rate / rho, safe_div(jnp.maximum(model - q * rho * bound, 0.0), norm))
        if self.adapt_lower_bound:
            fall = jnp.where(tau > 0, 0.5 * tau * norm, 0.0)  # also where ‖d‖² overflows
            more["bound"] = jnp.maximum((mean - slope + inner - fall) / rho, self.lower_bound)
        decay = self.learning_rate * self.weight_decay
        u = [(tau * a + decay * c) / q for a, c in zip(scaled, x)]
        return space.write(u, updates), {"mu": space.write(d, state["mu"]), "value": mean, "slope": slope, **more}

    def metrics(self, entry):
        return {"bound": entry["bound"]} if self.adapt_lower_bound else {}

    def decay(self, at: StepInfo) -> Scalar:
        """β₁, but 0 at the first step, so that the means start at its values."""
        return jnp.where(at.step == 1, 0.0, self.b1)

    def scaled(
        self, d: Vector, g: Vector, space: Moving, state: PyTree, at: StepInfo
    ) -> tuple[Vector, Scalar, dict[str, PyTree]]:
        """d/D, ρ, and the next state of the metric D."""
        return d, 1.0, {}

    def bound(self, model: jax.Array, state: PyTree, dtype: DType) -> Scalar:
        """f*, or half the value of the model at θ if that is below the estimated f*."""
        if not self.adapt_lower_bound:
            return self.lower_bound
        bound = state["bound"].astype(dtype)
        return jnp.where(model < bound, jnp.maximum(0.5 * model, self.lower_bound), bound)


@transform
class scale_by_momo_adam(scale_by_momo):
    """Adam with Polyak's step size, as `scale_by_momo`. Schaipp et al. 2023, arXiv:2305.07583, Algorithm 2."""

    learning_rate: Hyper = hyper("α", "the longest step", default=1e-2)
    b2: Hyper = hyper("β₂", "decay of the mean square", default=0.999, high=1.0)
    eps: Hyper = hyper("ε", "floor of the metric, outside the root", default=1e-8)

    slots = ("mu", "nu")
    nonnegative = ("nu",)
    role = "precondition"

    @derived
    def equation(self) -> str:
        adapted = "f* ← max(f*, (f̄ − γ + dᵀθ − ½τdᵀ(d/D))/ρ),  " if self.adapt_lower_bound else ""
        return (
            f"{MEANS},  v ← β₂v + (1−β₂)u²,  D = √v̂ + ε,  ρ = 1−β₁ᵗ,  "
            f"τ = min(α/ρ, max((1+αλ)(f̄ − γ − ρf*) + dᵀθ, 0)/dᵀ(d/D)),  {adapted}u ← (τd/D + αλθ)/(1+αλ)"
        )

    def init_tree(self, params):
        return {**super().init_tree(params), "nu": zeros(params)}

    def decay(self, at):
        return self.b1

    def scaled(self, d, g, space, state, at):
        v = [averaged(a, jnp.square(b), self.b2) for a, b in zip(space.read(state["nu"]), g)]
        debias = [c for part in (space, space.others) for c in part.each(at, lambda own: own.debias(self.b2))]
        D = [sqrt(c * a) + self.eps for c, a in zip(debias, v + space.still(state["nu"]))]
        return [a / b for a, b in zip(d, D)], 1 / at.debias(self.b1), {"nu": space.write(v, state["nu"])}
