"""The information about the step that a link receives when it computes its scalars."""

from __future__ import annotations

from typing import NoReturn, Protocol

import jax

from ..values.errors import PlainKeyError
from ..values.numerics import div, one_minus_power, remainder
from ..values.types import DType, Extra, Scalar


class KnowsUpdates(Protocol):
    """Facts about all updates that enter a link."""

    def norm(self) -> jax.Array: ...
    def finite(self) -> jax.Array: ...
    def scaled(self, factor: Scalar) -> KnowsUpdates: ...
    def zero_where(self, dropped: jax.Array | None) -> KnowsUpdates: ...


class _DeclaredArguments(Extra):
    """The extra arguments of ``update``, by name."""

    def __missing__(self, name: str) -> NoReturn:
        known = f"; those that links of this chain declare are {', '.join(self)}" if self else ""
        raise PlainKeyError(f"at.extra has no {name!r}: declare extra = ({name!r},) in the class of the link{known}")


class StepInfo:
    """The step, as the leaves that share these scalars see it.

    ``step`` is the number t = 1, 2, ... of steps since the link's slots for these leaves were initialized, as a
    scalar of the floating-point ``dtype`` in which the leaves are computed; ``count`` is the same number as int32,
    since float32 is not exact above 2²⁴. ``extra`` holds the extra arguments of ``update``, and ``global_state`` the
    scalars that the link keeps for the whole tree. In `Leafwise.update_global_state`, ``accepted`` is the result of
    `Leafwise.accepts`. ``dropped`` is for links that declare `Treewise.undoes_itself`.
    """

    accepted: jax.Array | bool = True
    dropped: jax.Array | None = None

    def __init__(
        self,
        count: jax.Array,
        dtype: DType,
        updates: KnowsUpdates,
        extra: Extra,
        global_state: dict[str, jax.Array],
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
        """(t − start) mod ``period`` for t >= start. Exact for integers after any number of steps.

        It is below 1 at periodic steps: the first at or after start, start + period, start + 2·period, ... By default
        the first is t = ``period``; with ``start`` 1 it is the first step.
        """
        return remainder(self.count, period, self.dtype, start)

    def debias(self, decay: Scalar) -> jax.Array:
        """1 / (1 − decayᵗ): the correction of a moving average that started at zero."""
        return div(1, one_minus_power(decay, self.step))

    def global_norm(self) -> jax.Array:
        """The norm of all updates that enter this link. Needs ``needs_all_updates``."""
        return self._updates.norm().astype(self.dtype)

    def all_finite(self, factor: Scalar = 1.0) -> jax.Array:
        """Whether all updates that enter this link, times ``factor``, are finite. Needs ``needs_all_updates``."""
        return self._updates.scaled(factor).finite()

    def zero_where(self, dropped: jax.Array | None) -> StepInfo:
        """The step, with updates of zeros where the result of the step is dropped."""
        updates = self._updates.zero_where(dropped)
        return StepInfo(self.count, self.dtype, updates, self.extra, self.global_state, self._late)
