"""Working on a low-rank projection of the gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...core.facade.link import transform
from ...core.values.hyper import Hyper, hyper, integer, whole
from ...core.values.tree import cond, flatten, is_trainable
from ...core.values.types import Leaf, Updates
from ...core.values.value import child, derived, static
from ..shared.whole import check_guards, unless_refused
from ..shared.wrappers import Wrapper, forwarded_arguments, init_inner


@transform
class scale_by_galore(Wrapper):
    """Let a chain work on the gradients' leading singular directions. Zhao et al. 2024, arXiv:2403.03507, Algorithm 2.

    Matrices are projected, on the shorter side as in the paper or on the longer as in Optax; all other
    leaves go through the chain as they are. The state of an m × n matrix is the chain's for r × n, and
    the m × r projector. What the chain remembers is not turned when the projector changes, as in the
    paper. Derivatives hold the projector fixed. The chain must not read the parameters: put weight
    decay behind this link.
    """

    tx: Any = child("the chain that works on the projected gradients")
    rank: int = static("how many directions are kept, where there are as many", default=128, least=1)
    update_proj_gap: Hyper = whole("k", "steps between two projectors", default=200)
    scale: Hyper = hyper("α", "factor of what is projected back", default=0.25)
    side: str = static("which side is projected", default="shorter", one_of=("shorter", "longer"))

    passes_updates = False
    inner_updates_differ = True
    slots = ("projector",)
    knows_shards = False  # a shard has singular vectors of its own
    moves_params = False

    @derived
    def equation(self) -> str:
        return f"P ← {self.rank} leading left singular vectors of u every k steps,  u ← αP·tx(Pᵀu)"

    def check(self) -> None:
        super().check()
        check_guards("scale_by_galore.tx", self.tx)
        for name, link in self.tx.links.items():
            if link.reads_params:
                raise ValueError(
                    f"`scale_by_galore.tx`: {name!r} reads the parameters, which are not projected: "
                    "put it behind scale_by_galore"
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
        low, inner = self.tx.update(flat.build(low), inner, **forwarded_arguments(self.tx, at))
        low = flat.line_up("The updates", low)

        def take() -> tuple[Updates, dict[str, Updates]]:
            high = [self.unproject(projectors[i], x, us[i]) if i in moving else x for i, x in enumerate(low)]
            return flat.build(high), {"projector": flat.build(projectors)}

        return unless_refused(self.tx, inner, state, updates, params, take)

    def turned(self, x: jax.Array, like: jax.Array) -> jax.Array:
        """``x`` with the side of ``like`` that is projected first; the inverse too."""
        rows, columns = like.shape
        return x.T if (rows > columns) == (self.side == "shorter") and rows != columns else x

    def no_projector(self, p: Leaf) -> jax.Array | None:
        """Zeros in the place of a projector, for leaves that are projected."""
        if not is_trainable(p) or jnp.ndim(p) != 2 or not p.size:
            return None
        return jnp.zeros((self.turned(p, p).shape[0], min(self.rank, *p.shape)), p.dtype)

    def renewed(self, P: jax.Array, u: jax.Array, due: jax.Array) -> jax.Array:
        """The projector of this step: a new one if it is due, or the first of a leaf that had no gradient yet."""
        missing = jnp.all(P == 0)
        return cond(due | missing, lambda: self.projector(jax.lax.stop_gradient(u)), lambda: P)

    def projector(self, u: jax.Array) -> jax.Array:
        """The leading left singular vectors."""
        left, _, _ = jnp.linalg.svd(self.turned(u, u), full_matrices=False)
        return left[:, : self.rank]

    def project(self, P: jax.Array, u: jax.Array) -> jax.Array:
        """Pᴴu."""
        return _times(P.conj().T, self.turned(u, u))

    def unproject(self, P: jax.Array, low: jax.Array, u: jax.Array) -> jax.Array:
        """αPx, in the place of u."""
        return jnp.asarray(self.scale, u.dtype) * self.turned(_times(P, low), u)


def _times(a: jax.Array, b: jax.Array) -> jax.Array:
    """ab, which accelerators would round to fewer bits unless asked not to."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
