"""What links share that treat all parameters together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ...core.values.tree import cond, flatten, is_trainable
from .vector import Space, Vector
from .wrappers import all_links, drop_holes, fill_holes


class Moving(Space):
    """The vectors of the parameters that have an update at this step, all in one dtype.

    `write` leaves everything else as it was, so that a parameter without an update keeps its state. What is
    set against a scalar that the whole tree has made, such as a norm, needs those parameters too: `still`.
    """

    def __init__(self, updates: Any, params: Any, dtype: Any) -> None:
        flat = flatten(params)
        us = flat.line_up("The updates", updates)
        super().__init__(flat.build([p if is_trainable(u) else None for p, u in zip(flat.leaves, us)]))
        self.others = Space(flat.build([None if is_trainable(u) else p for p, u in zip(flat.leaves, us)]))
        self.dtype = dtype

    def read(self, tree: Any, what: str = "The arrays") -> Vector:
        return [x.astype(self.dtype) for x in super().read(tree, what)]

    def still(self, tree: Any) -> Vector:
        """The vectors of the parameters that have no update. Behind those that have one, `write` passes them over."""
        return [x.astype(self.dtype) for x in self.others.read(tree)]


def copied(params: Any) -> Any:
    """The parameters as a state of their own: their buffers may be donated."""
    space = Space(params)
    return space.keep([jnp.copy(x) for x in space.read(params)])


def zeros(params: Any) -> Any:
    """A state of the parameters' shapes that starts at 0."""
    space = Space(params)
    return space.keep([jnp.zeros_like(x) for x in space.read(params)])


def check_guards(where: str, tx: Any) -> None:
    """Raise for a guard that refuses steps inside another link of the chain: `unless_refused` would not see it."""
    for name, link in all_links(tx):
        if getattr(link, "can_reject", False) and link not in tx.links.values():
            raise ValueError(
                f"`{where}`: {name!r} refuses steps inside another link, where {where.partition('.')[0]} cannot see "
                f"it: put it at the front of the chain outside, or of `{where}` itself"
            )


def unless_refused(
    tx: Any, inner: Any, state: dict[str, Any], updates: Any, params: Any, take: Callable[[], tuple[Any, Any]]
) -> tuple[Any, dict[str, Any]]:
    """The updates and the state of a link round ``tx``, of which ``take`` makes all but ``inner``, the chain's state.

    Where a guard in the chain has refused the step, the updates are 0 and the rest of the state as it was.
    """
    if not any(getattr(link, "can_reject", False) for link in tx.links.values()):
        new, rest = take()
        return new, {**rest, "tx": inner}
    before = {name: x for name, x in state.items() if name != "tx"}

    def taken() -> tuple[Any, Any]:
        new, rest = take()
        return drop_holes(new, params)[0], jax.tree.map(lambda x, old: x.astype(old.dtype), rest, before)

    still = jax.tree.map(jnp.zeros_like, drop_holes(updates, params)[0])
    new, rest = cond(inner.step > state["tx"].step, taken, lambda: (still, before))
    return fill_holes(new, updates), {**rest, "tx": inner}
