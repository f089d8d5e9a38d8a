"""What a link may know about the step when it computes its scalars."""

from __future__ import annotations

from typing import Any, Protocol

import jax

from ..values.errors import PlainKeyError
from ..values.numerics import div, one_minus_power, remainder
from ..values.types import DType, Extra, Scalar


class KnowsUpdates(Protocol):
    """What is known of the whole tree of updates as it stands before a link."""

    def norm(self) -> jax.Array: ...
    def finite(self) -> jax.Array: ...
    def scaled(self, factor: Scalar) -> KnowsUpdates: ...


class _DeclaredArguments(dict[str, Any]):
    """The extra arguments of ``update``, by name."""

    def __missing__(self, name: str) -> Any:
        known = f"; those that links of this chain declare are {', '.join(self)}" if self else ""
        raise PlainKeyError(f"at.extra has no {name!r}: declare extra = ({name!r},) in the class of the link{known}")


class StepInfo:
    """The step, as the leaves that share these scalars see it.

    ``step`` counts t = 1, 2, ..., the steps since the link's slots for these leaves began, as a
    floating-point scalar of the ``dtype`` that the leaves are computed in; ``count`` is the same number in
    int32, which float32 cannot hold from 2²⁴ on. ``extra`` holds the extra arguments of ``update``, and
    ``global_state`` the scalars that the link keeps for the whole tree. In `Leafwise.update_global_state`,
    ``accepted`` is what `Leafwise.accepts` has returned.
    """

    accepted: Any = None

    def __init__(
        self,
        count: jax.Array,
        dtype: DType,
        updates: KnowsUpdates,
        extra: Extra,
        global_state: dict[str, Any],
        late: dict[str, jax.Array] | None = None,
    ) -> None:
        self.count = count
        self.step = jax.lax.convert_element_type(count, dtype)
        self.dtype = dtype
        self.extra = _DeclaredArguments(extra)
        self.global_state = global_state
        self._updates = updates
        self._late = late or {}

    def of(self, path: str) -> StepInfo:
        """The step as the parameter at ``path`` sees it, which may have joined later than the link."""
        if path not in self._late:
            return self
        return StepInfo(self._late[path], self.dtype, self._updates, self.extra, self.global_state)

    def phase(self, period: Scalar, start: Scalar = 0.0) -> jax.Array:
        """(t − start) mod ``period``, exact for whole numbers however many steps were taken; t >= start.

        It is below 1 at the steps that are due: the first at or after start, start + period, start + 2·period, ...
        """
        return remainder(self.count, period, self.dtype, start)

    def debias(self, decay: Scalar) -> jax.Array:
        """1 / (1 − decayᵗ): the correction of a moving average that started at zero."""
        return div(1, one_minus_power(decay, self.step))

    def global_norm(self) -> jax.Array:
        """The norm of the whole tree of updates as it stands before this link (`Leafwise.needs_all_updates`)."""
        return self._updates.norm().astype(self.dtype)

    def all_finite(self, factor: Scalar = 1.0) -> jax.Array:
        """Whether no update of the whole tree, times ``factor``, is infinite or NaN (`Leafwise.needs_all_updates`)."""
        return self._updates.scaled(factor).finite()
