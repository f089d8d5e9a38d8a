"""What links share that treat all parameters together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..core.tree import flatten, is_trainable
from .vector import Space, Vector


class Moving(Space):
    """The vectors of the parameters that have an update at this step, all in one dtype.

    `write` leaves everything else as it was, so that a parameter without an update keeps its state.
    """

    def __init__(self, updates: Any, params: Any, dtype: Any) -> None:
        flat = flatten(params)
        us = flat.line_up("The updates", updates)
        super().__init__(flat.build([p if is_trainable(u) else None for p, u in zip(flat.leaves, us)]))
        self.dtype = dtype

    def read(self, tree: Any, what: str = "The arrays") -> Vector:
        return [x.astype(self.dtype) for x in super().read(tree, what)]


def copied(params: Any) -> Any:
    """The parameters as a state of their own: their buffers may be donated."""
    space = Space(params)
    return space.keep([jnp.copy(x) for x in space.read(params)])


def zeros(params: Any) -> Any:
    """A state of the parameters' shapes that starts at 0."""
    space = Space(params)
    return space.keep([jnp.zeros_like(x) for x in space.read(params)])


def over(a: jax.Array, b: jax.Array) -> jax.Array:
    """a/b, and 0 where b is not positive: nothing is known yet. So are its derivatives."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
