"""Coin betting: each bet is a fraction of the wealth so far, so no learning rate is needed."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from ...core.engine.step_info import StepInfo
from ...core.facade.link import Leafwise, slot_like, transform
from ...core.facade.transformation import Transformation
from ...core.values.conditions import zero_where
from ...core.values.hyper import Hyper, hyper
from ...core.values.numerics import safe_div, sqrt
from ...core.values.tree import global_norm
from ...core.values.types import DType, Params, PyTree, Updates
from ...core.values.value import Number, check_number, child, derived, each, number, static
from ..shared.vector import Space, dot
from ..shared.whole import Moving, check_guards, unless_rejected, zeros
from ..shared.wrappers import Wrapper, forwarded_arguments, init_inner


@transform
class scale_by_cocob(Leafwise):
    """Bet on each coordinate. Orabona & Tommasi 2017, arXiv:1705.07795, Algorithm 2.

    Moves each coordinate to the point determined by the bet, even if other links have moved it. The paper does not
    define the step before the first nonzero gradient; with L = ε it is 0.
    """

    alpha: Hyper = hyper("α", "how much smaller the first bets are", default=100.0)
    eps: Hyper = hyper("ε", "lower bound on the gradient scale", default=1e-8)

    slots = ("start", "scale", "total", "reward", "sum")
    nonnegative = ("scale", "total", "reward")
    equation = (
        "L ← max(L, |u|) from ε,  G ← G + |u|,  R ← max(R − u(θ − θ₀), 0),  S ← S − u,  "
        "u ← θ − θ₀ − S(L + R)/(L·max(G + L, αL))"
    )
    role = "precondition"
    reads_params = True

    def init_leaf(self, p):
        zero = slot_like(p)
        return {
            "start": zero + p.astype(zero.dtype),
            "scale": slot_like(p, self.eps),
            "total": slot_like(p),
            "reward": slot_like(p),
            "sum": slot_like(p),
        }

    def leaf(self, u, slot, p, scalars):
        moved = p - slot.start
        L = jnp.maximum(slot.scale, jnp.abs(u))
        G = slot.total + jnp.abs(u)
        R = jnp.maximum(slot.reward - u * moved, 0.0)
        S = slot.sum - u
        bet = S / jnp.maximum(G + L, self.alpha * L) * (1 + R / L)
        return moved - bet, {"start": slot.start, "scale": L, "total": G, "reward": R, "sum": S}


@transform
class mechanize(Wrapper):
    """Tune the scale of a chain's updates by betting on it. Cutkosky et al. 2023, arXiv:2306.00144, Algorithm 1.

    The chain has the learning rate 1, or a schedule with the peak 1. The initial parameters are not stored: the
    update is the change of SΔ. ``clipped`` is Optax's form: no bet loses or wins more than the largest
    before it, R may be negative, and m and s start at ε and s₀.

    >>> import chainax as cx
    >>> tx = cx.mechanize(cx.adamw(1.0))
    """

    tx: Transformation = child("the chain whose updates are scaled")
    weight_decay: Hyper = hyper("λ", "weight of the parameters in the bet", default=1e-2)
    eps: Hyper = hyper("ε", "added to the denominators", default=1e-8)
    s_init: Hyper = hyper("s₀", "initial scale", default=1e-8)
    betas: Number = number(
        "decays of the statistics, one for each bet",
        symbol="β",
        default=(0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999),
        low=0.0,
        high=1.0,
        closed=True,
        check=each(check_number),
    )
    clipped: bool = static("whether bets are clipped", default=False, one_of=(False, True))

    passes_updates = False
    slots = ("delta",)
    nonnegative = ("largest", "square")
    moves_params = False
    reads_params = True
    decay_field = "weight_decay"

    def check(self) -> None:
        super().check()
        check_guards("mechanize.tx", self.tx)
        if not self.betas:
            raise ValueError("`mechanize.betas` must have a number for each bet, got none")

    @derived
    def equation(self) -> str:
        reward = "R ← βR − s·min(max(h, −m), m)" if self.clipped else "R ← max(βR − sh, 0)"
        largest, wealth = ("|h| + ε", "max(R, 0)") if self.clipped else ("|h|", "R")
        return (
            f"S = Σs,  h = Δᵀ(u + λS‖u‖θ/(‖θ‖+ε)),  {reward},  m ← max(βm, {largest}),  v ← β²v + h²,  "
            f"s ← (s₀m/n + {wealth})/(√v + ε) for n bets,  Δ ← Δ + tx(u),  u ← change of SΔ"
        )

    def init_tree(self, params):
        n, dtype = len(self.betas), Space(params).dtype
        bets = {name: jnp.zeros(n, dtype) for name in ("largest", "square", "reward")}
        first = jnp.full(n, self.s_init if self.clipped else 0.0, dtype)
        return {"tx": init_inner(self.tx, params), "delta": zeros(params), "scale": first, **bets}

    def update_tree(self, updates, state, params, at):
        u, inner = self.tx.update(updates, state["tx"], params, **forwarded_arguments(self.tx, at.extra))
        bet = functools.partial(self.bet, u, updates, state, params, at)
        return unless_rejected(self.tx, inner, state, updates, params, bet)

    def metrics(self, entry):
        return {"scale": jnp.sum(entry["scale"], axis=-1)}

    def bet(
        self, u: Updates, updates: Updates, state: PyTree, params: Params, at: StepInfo, dropped: jax.Array | None
    ) -> tuple[Updates, dict[str, PyTree]]:
        """The change of SΔ for the chain's updates, and the next state without the chain's."""
        space = Moving(updates, params, at.dtype)
        x, g, delta, u = map(space.read, (params, updates, state["delta"], u))
        at.global_norm()  # known before, or it would take another pass
        g, at = zero_where(dropped, g), at.zero_where(dropped)
        most = jnp.finfo(at.dtype).max ** 0.48  # keeps the bet and its square finite for any gradient
        decay = self.weight_decay * jnp.minimum(at.global_norm(), most) / (global_norm(x) + self.eps)
        S = jnp.sum(state["scale"].astype(at.dtype))
        h = dot(delta, [jnp.clip(a, -most, most) + decay * S * b for a, b in zip(g, x)], at.dtype)
        bets = self.settled(jnp.clip(h, -most, most), state, at.dtype)
        S_next = jnp.sum(bets["scale"])
        moved = [a + b for a, b in zip(delta, u)]
        u = [S_next * a - S * b for a, b in zip(moved, delta)]
        return space.write(u, updates), {"delta": space.write(moved, state["delta"]), **bets}

    def settled(self, h: jax.Array, state: PyTree, dtype: DType) -> dict[str, jax.Array]:
        """The next scales and their statistics."""
        m, v, r, s = (state[name].astype(dtype) for name in ("largest", "square", "reward", "scale"))
        beta = jnp.stack([jnp.asarray(b, dtype) for b in self.betas])
        r = beta * r - s * (jnp.clip(h, -m, m) if self.clipped else h)
        r = r if self.clipped else jnp.maximum(r, 0.0)
        m = jnp.maximum(beta * m, jnp.abs(h) + (self.eps if self.clipped else 0.0))
        v = jnp.square(beta) * v + jnp.square(h)
        s = safe_div(self.s_init * m / len(self.betas) + jnp.maximum(r, 0.0), sqrt(v) + self.eps)
        return {"largest": m, "square": v, "reward": r, "scale": s}
