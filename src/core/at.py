"""What a link may know about the step when it computes its scalars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from .numerics import one_minus_power


class At:
    """The step, as the leaves that share these scalars see it.

    ``step`` counts t = 1, 2, ..., the steps since the link's slots for these leaves began, as a
    floating-point scalar of the ``dtype`` that the leaves are computed in. ``extra`` holds the extra
    arguments of ``update``.
    """

    def __init__(self, step: jax.Array, dtype: Any, norm: Callable[[], jax.Array], extra: dict[str, Any]) -> None:
        self.step = step
        self.dtype = dtype
        self.extra = extra
        self._norm = norm

    def debias(self, decay: Any) -> jax.Array:
        """1 / (1 − decayᵗ): the correction of a moving average that started at zero."""
        return 1 / one_minus_power(decay, self.step)

    def global_norm(self) -> jax.Array:
        """The norm of the whole tree of updates as it stands before this link (`Leafwise.needs_all_updates`)."""
        return self._norm().astype(self.dtype)
