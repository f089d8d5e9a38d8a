"""Shared code of links that treat all parameters together."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ...core.engine.protocol import ChainLike
from ...core.engine.state import State
from ...core.facade.parts import all_links
from ...core.values.conditions import choose
from ...core.values.tree import flatten, is_trainable
from ...core.values.types import DType, Params, PyTree, Updates
from .vector import Space, Vector
from .wrappers import Entry, drop_holes, fill_holes


class Moving(Space):
    """The vectors of the parameters that have an update at this step, all in one dtype.

    `write` does not change other leaves, so a parameter without an update keeps its state. Sums over all parameters,
    such as a norm, need these parameters too: see `still`.
    """

    def __init__(self, updates: Updates, params: Params, dtype: DType) -> None:
        flat = flatten(params)
        us = flat.line_up("The updates", updates)
        super().__init__(flat.build([p if is_trainable(u) else None for p, u in zip(flat.leaves, us)]))
        self.others = Space(flat.build([None if is_trainable(u) else p for p, u in zip(flat.leaves, us)]))
        self.dtype = dtype

    def read(self, tree: PyTree, what: str = "The arrays") -> Vector:
        return [x.astype(self.dtype) for x in super().read(tree, what)]

    def still(self, tree: PyTree) -> Vector:
        """The arrays of the parameters without an update. If they follow those of `read`, `write` ignores them."""
        return [x.astype(self.dtype) for x in self.others.read(tree)]


def copied(params: Params) -> PyTree:
    """A copy of the parameters for the state, since their buffers may be donated."""
    space = Space(params)
    return space.keep([jnp.copy(x) for x in space.read(params)])


def zeros(params: Params) -> PyTree:
    """Zeros with the shapes of the parameters, for the state."""
    space = Space(params)
    return space.keep([jnp.zeros_like(x) for x in space.read(params)])


def check_guards(where: str, tx: ChainLike) -> None:
    """Raise for a guard inside another link of the chain: `unless_rejected` would not notice that it rejects a step."""
    for name, link in all_links(tx):
        if getattr(link, "can_reject", False) and link not in tx.links.values():
            raise ValueError(
                f"`{where}`: {name!r} rejects steps inside another link, where {where.partition('.')[0]} cannot see "
                f"it: put it at the front of the outer chain, or of `{where}` itself"
            )


def unless_rejected(
    tx: ChainLike,
    inner: State,
    state: Entry,
    updates: Updates,
    params: Params,
    take: Callable[[jax.Array | None], tuple[Updates, Entry]],
) -> tuple[Updates, Entry]:
    """The updates and the state of a wrapper of ``tx``. ``take`` computes both, except for the chain's state ``inner``.

    If a guard in the chain rejected the step, the updates are 0 and the other entries of the state do not change.
    ``take`` gets the bool array of `choose`: where it is True, what is not finite must be replaced by `zero_where`. The
    chain's updates are 0 there.
    """
    if not any(getattr(link, "can_reject", False) for link in tx.links.values()):
        new, own = take(None)
        return new, {**own, "tx": inner}
    before = {name: x for name, x in state.items() if name != "tx"}

    def taken(dropped: jax.Array | None) -> tuple[Updates, Entry]:
        new, own = take(dropped)
        return drop_holes(new, params)[0], jax.tree.map(lambda x, old: x.astype(old.dtype), own, before)

    zero = jax.tree.map(jnp.zeros_like, drop_holes(updates, params)[0])
    new, own = choose(inner.step > state["tx"].step, taken, lambda: (zero, before))
    return fill_holes(new, updates), {**own, "tx": inner}
