"""The direction of one chain's update with the size of another's."""

from __future__ import annotations

from typing import Any

import jax

from ...core.engine.protocol import Visit
from ...core.facade.link import transform
from ...core.facade.parts import all_links
from ...core.values.matrices import check_matrices
from ...core.values.numerics import largest, norm, safe_div
from ...core.values.tables import Keyed, pick
from ...core.values.tree import flatten, is_trainable, show
from ...core.values.types import Params, PyTree
from ...core.values.value import child, static
from ..shared.wrappers import Entry, Wrapper, check_chain, forwarded_arguments, init_inner


def _check(where: str, x: Any, limits: None) -> Any:
    return None if x is None else check_matrices(where, x)


@transform
class graft(Wrapper):
    """Resize each leaf of one chain's update to the norm of another's. Agarwal et al. 2020, arXiv:2002.11803.

    Both chains get the same updates. ``graft(scale_by_shampoo(), scale_by_adagrad())`` takes learning rates of Adagrad.
    An update of 0 stays 0. ``matrices`` gives norms to each matrix of a leaf, such as the layers of a stack, in place
    of one to the leaf. Put the learning rate, the decay and guards into the outer chain.
    """

    direction: Any = child("the chain whose direction is taken")
    magnitude: Any = child("the chain whose norm is taken")
    matrices: Any = static("the matrices of a leaf that have norms of their own", default=None, check=_check)

    passes_updates = False
    moves_params = False
    inner_updates_differ = True
    knows_shards = False  # the norm of a part is not that of the leaf
    equation = "u ← direction(u)·‖magnitude(u)‖ / ‖direction(u)‖"

    def check(self) -> None:
        for field in ("direction", "magnitude"):
            where, tx = f"graft.{field}", getattr(self, field)
            check_chain(where, tx)
            for name, link in all_links(tx):
                if getattr(link, "can_reject", False):
                    raise ValueError(f"`{where}`: {name!r} may reject steps: put it in the outer chain, before graft")
                if link.final_rounding is not None:
                    raise ValueError(f"`{where}`: {name!r} rounds parameters: put it at the end of the outer chain")

    def init_tree(self, params):
        return {field: init_inner(tx, params) for field, tx in self.inner.items()}

    def update_tree(self, updates, state, params, at):
        made, entries = {}, {}
        for field, tx in self.inner.items():
            extra = forwarded_arguments(tx, at.extra, params)
            made[field], entries[field] = tx.update(updates, state[field], params, **extra)
        flat = flatten(made["direction"])
        pairs = zip(flat.paths, flat.leaves, flat.line_up("The updates", made["magnitude"]))
        return flat.build([self.grafted(*x) if is_trainable(x[1]) else x[1] for x in pairs]), entries

    def grafted(self, path: str, u: jax.Array, like: jax.Array) -> jax.Array:
        """``u`` with the norms of ``like``."""
        words = self.matrices
        if isinstance(words, Keyed):
            _, words = pick("graft.matrices", words, path, u.shape)
        if words is None:
            return _resized(u, like, None)
        try:
            form = words.form(u.shape)
        except ValueError as e:
            raise TypeError(
                f"Link 'graft' resizes matrices, and {path!r}, {show(u)}, {e}: name its rows and columns in matrices, "
                "or leave matrices out for one norm of the leaf"
            ) from None
        return form.leaf([_resized(x, y, (1, 2)) for x, y in zip(form.stacks(u), form.stacks(like))])

    def visit(self, visit: Visit, params: Params, entry: Entry) -> dict[str, PyTree]:
        found = [visit(tx, params, entry[field]) for field, tx in self.inner.items()]
        return found[1] | found[0]


def _resized(u: jax.Array, like: jax.Array, axes: tuple[int, ...] | None) -> jax.Array:
    # Both divided by their largest number: the ratio of the norms may be too large where the result is not.
    sizes = [largest(x) for x in (u, like)]
    unit, other = (x / size.astype(x.dtype) for x, size in zip((u, like), sizes))
    return unit * (safe_div(norm(other, axes), norm(unit, axes)) * sizes[1]).astype(u.dtype)
