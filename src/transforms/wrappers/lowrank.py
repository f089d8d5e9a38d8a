"""Optimization in a low-rank projection of the gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.values.conditions import cond
from ...core.values.hyper import Hyper, hyper, integer, whole
from ...core.values.numerics import product
from ...core.values.tree import flatten, is_trainable, not_divided, replicated, sharded_like
from ...core.values.types import Leaf, Updates
from ...core.values.value import child, derived, static
from ..shared.whole import check_guards, unless_rejected
from ..shared.wrappers import Wrapper, check_tables, forwarded_arguments, init_inner


@transform
class scale_by_galore(Wrapper):
    """Apply a chain to the gradients' leading singular directions. Zhao et al. 2024, arXiv:2403.03507, Algorithm 2.

    Matrices are projected, on the shorter side as in the paper or on the longer as in Optax; all other
    leaves pass through the chain unprojected. The state of an m × n matrix is that of the chain for r × n, plus
    the m × r projector. As in the paper, the chain's state is not rotated when the projector changes.
    Derivatives treat the projector as constant. In a sweep it is computed at every step, since the state says whether
    a matrix, before its first gradient, has none. The chain must not read the parameters: put weight decay after this
    link.
    """

    tx: Any = child("the chain for the projected gradients")
    rank: int = static("the number of directions, at most the shorter side", default=128, least=1)
    update_proj_gap: Hyper = whole("k", "steps between two projectors", default=200)
    scale: Hyper = hyper("α", "factor of the update", default=0.25)
    side: str = static("the projected side", default="shorter", one_of=("shorter", "longer"))

    passes_updates = False
    inner_updates_differ = True
    slots = ("projector",)
    knows_shards = False  # the singular vectors of a shard are not those of the matrix
    moves_params = False

    @derived
    def equation(self) -> str:
        return f"P ← {self.rank} leading left singular vectors of u every k steps,  u ← αP·tx(Pᵀu)"

    def check(self) -> None:
        super().check()
        check_guards("scale_by_galore.tx", self.tx)
        check_tables(self.tx, "scale_by_galore", "projected matrices", sizes_only=True)
        for name, link in self.tx.links.items():
            if link.reads_params:
                raise ValueError(
                    f"`scale_by_galore.tx`: {name!r} reads the parameters, which are not projected: "
                    "put it after scale_by_galore"
                )

    def init_tree(self, params):
        flat = flatten(params)
        projectors = [self.no_projector(p) for p in flat.leaves]
        low = [p if P is None else self.project(P, p) for P, p in zip(projectors, flat.leaves)]
        return {"projector": flat.build(projectors), "tx": init_inner(self.tx, flat.build(low))}

    def update_tree(self, updates, state, params, at):
        flat, inner = flatten(updates), state["tx"]
        us, projectors = flat.leaves, flat.line_up("The projectors", state["projector"])
        moving = [i for i, (P, u) in enumerate(zip(projectors, us)) if P is not None and u is not None]
        due = inner.step % integer(self.update_proj_gap) == 0
        for i in moving:
            projectors[i] = self.renewed(projectors[i], us[i], due)
        low = [self.project(projectors[i], u) if i in moving else u for i, u in enumerate(us)]
        low, inner = self.tx.update(flat.build(low), inner, **forwarded_arguments(self.tx, at.extra))
        low = flat.line_up("The updates", low)

        def take(_: jax.Array | None) -> tuple[Updates, dict[str, Updates]]:
            high = [self.unproject(projectors[i], x, us[i]) if i in moving else x for i, x in enumerate(low)]
            return flat.build(high), {"projector": flat.build(projectors)}

        return unless_rejected(self.tx, inner, state, updates, params, take)

    def oriented(self, x: jax.Array, like: jax.Array) -> jax.Array:
        """``x``, transposed if the projected side of ``like`` is the second. It is its own inverse."""
        rows, columns = like.shape
        return x.T if (rows > columns) == (self.side == "shorter") and rows != columns else x

    @classmethod
    def projects(cls, p):
        return is_trainable(p) and jnp.ndim(p) == 2 and p.size > 0

    def no_projector(self, p: Leaf) -> jax.Array | None:
        """Zeros with the shape of a projector; ``None`` for leaves that are not projected."""
        if not self.projects(p):
            return None
        return jnp.zeros((self.oriented(p, p).shape[0], min(self.rank, *p.shape)), p.dtype)

    def renewed(self, P: jax.Array, u: jax.Array, due: jax.Array) -> jax.Array:
        """The projector for this step: a new one if it is due, or if the leaf has had no gradient before."""
        missing = jnp.all(P == 0)
        return not_divided(cond(due | missing, lambda: self.projector(jax.lax.stop_gradient(u)), lambda: P))

    def projector(self, u: jax.Array) -> jax.Array:
        """The leading left singular vectors."""
        left, _, _ = jnp.linalg.svd(replicated(self.oriented(u, u)), full_matrices=False)
        return left[:, : self.rank]

    def project(self, P: jax.Array, u: jax.Array) -> jax.Array:
        """Pᴴu."""
        return not_divided(product(P.conj().T, replicated(self.oriented(u, u))))

    def unproject(self, P: jax.Array, low: jax.Array, u: jax.Array) -> jax.Array:
        """αPx, in the orientation of u."""
        return sharded_like(jnp.asarray(self.scale, u.dtype) * self.oriented(product(P, not_divided(low)), u), u)
