"""L-BFGS: an approximate inverse Hessian from the most recent steps."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from ...core.facade.link import Treewise, slot_like, transform
from ...core.values.value import derived, static
from ..shared.vector import Space, Vector, add, dot


@transform
class scale_by_lbfgs(Treewise):
    """Multiply by an inverse Hessian estimated from the last m steps. Nocedal & Wright 2006, Algorithm 7.4.

    Pairs with nonpositive sᵀy, or with an infinite yᵀy, are discarded, so that H stays positive definite even without
    a line search. Before the first pair H₀ is I/max(1, ‖u‖), which the book leaves open. A gradient of
    ``None`` counts as 0. The state holds 2m + 2 arrays of each parameter's shape.
    """

    memory_size: int = static("the number of pairs in the state", default=10, least=1, most=10_000)
    scale_init_precond: bool = static(
        "start the recursion at the newest pair's scale instead of I", default=True, one_of=(False, True)
    )

    knows_shards = True
    slots = ("s", "y", "params", "updates")
    sees_holes = True
    role = "precondition"
    reads_params = True

    @derived
    def equation(self) -> str:
        start = "(sᵀy/yᵀy)·I" if self.scale_init_precond else "I"
        return f"s = Δθ,  y = Δu,  H ← (I − ρsyᵀ)H(I − ρysᵀ) + ρssᵀ,  H₀ = {start},  u ← Hu"

    def init_tree(self, params):
        space, m = Space(params), self.memory_size
        zeros = [slot_like(x) for x in space.read(params)]
        stacks = [jnp.broadcast_to(x, (m, *x.shape)) for x in zeros]  # sharded as the parameters are
        dtype = space.dtype
        return {
            "s": space.keep(stacks),
            "y": space.keep([jnp.copy(x) for x in stacks]),
            "rho": jnp.zeros(m, dtype),
            "gamma": jnp.zeros((), dtype),  # 0 until there is a pair
            "row": jnp.full((), -1, dtype),  # of the next pair; −1 before the first point
            "params": space.keep(zeros),
            "updates": space.keep([jnp.copy(x) for x in zeros]),
        }

    def update_tree(self, updates, state, params, at):
        space, m = Space(params), self.memory_size
        x, g, old_x, old_g, S, Y = map(
            space.read, (params, updates, state["params"], state["updates"], state["s"], state["y"])
        )
        rho, gamma = state["rho"].astype(at.dtype), state["gamma"].astype(at.dtype)
        # A parameter that has just joined has not moved yet.
        old_x, old_g = space.begun(at, old_x, x), space.begun(at, old_g, g)

        minus, tiny = -jnp.ones((), at.dtype), jnp.finfo(at.dtype).tiny
        s, y = add(x, minus, old_x), add(g, minus, old_g)
        sy, yy = dot(s, y, at.dtype), dot(y, y, at.dtype)
        good = (state["row"] >= 0) & (jnp.minimum(sy, yy) > tiny)  # and 1/sᵀy is finite
        good &= jnp.isfinite(sy) & jnp.isfinite(yy)
        row = jnp.maximum(state["row"], 0).astype(jnp.int32)
        S, Y = [_written(M, row, v, good) for M, v in zip(S, s)], [_written(M, row, v, good) for M, v in zip(Y, y)]
        rho = _written(rho, row, 1 / jnp.where(good, sy, 1.0), good)
        gamma = jnp.where(good, sy / jnp.where(good, yy, 1.0), gamma)
        row = jnp.where(good, (row + 1) % m, row)

        first = 1 / jnp.maximum(at.global_norm(), 1.0)
        scale = jnp.where(gamma > 0, gamma, first) if self.scale_init_precond else jnp.ones((), at.dtype)
        # With a very large gradient, sums of products would overflow although Hu does not.
        huge = jnp.finfo(at.dtype).max ** 0.5
        unit = jnp.where(at.global_norm() < huge, 1.0, huge).astype(at.dtype)
        u = _two_loops(g, S, Y, rho, (row - 1 - jnp.arange(m, dtype=row.dtype)) % m, scale, unit)
        state = {
            "s": space.keep(S),
            "y": space.keep(Y),
            "rho": rho,
            "gamma": gamma,
            "row": row.astype(at.dtype),
            "params": space.keep(x),
            "updates": space.keep(g),
        }
        return space.write(u, updates), state


def _written(rows: jax.Array, i: jax.Array, x: jax.Array, good: jax.Array) -> jax.Array:
    """The array with row ``i`` replaced by ``x``, if ``good``."""
    return rows.at[i].set(jnp.where(good, x, rows[i]))


def _two_loops(
    q: Vector, S: Vector, Y: Vector, rho: jax.Array, rows: jax.Array, gamma: jax.Array, unit: jax.Array
) -> Vector:
    """Algorithm 7.4: Hq, from the pairs in these rows, newest first. Unused rows have ρ = 0.

    Products with q are computed in multiples of ``unit``.
    """
    past, present = (functools.partial(f, S, Y, rho, unit) for f in (_towards_the_past, _towards_the_present))
    q, a = jax.lax.scan(past, q, rows)
    return jax.lax.scan(present, _scaled(q, gamma), (rows, a), reverse=True)[0]


def _towards_the_past(
    S: Vector, Y: Vector, rho: jax.Array, unit: jax.Array, q: Vector, i: jax.Array
) -> tuple[Vector, jax.Array]:
    a = rho[i] * dot([s[i] for s in S], _scaled(q, 1 / unit), rho.dtype)
    return add(q, -a, _scaled([y[i] for y in Y], unit)), a


def _towards_the_present(
    S: Vector, Y: Vector, rho: jax.Array, unit: jax.Array, r: Vector, row: tuple[jax.Array, jax.Array]
) -> tuple[Vector, None]:
    i, a = row
    b = rho[i] * dot([y[i] for y in Y], _scaled(r, 1 / unit), rho.dtype)
    return add(r, a - b, _scaled([s[i] for s in S], unit)), None


def _scaled(vector: Vector, factor: jax.Array) -> Vector:
    return [factor.astype(x.dtype) * x for x in vector]
