"""The constants of a leaf function, its inputs and its outputs."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax

from ..values.types import DType
from .frozen import Frozen, freeze
from .rounding import NEAREST, Rounding
from .storage import Stored

Slots: TypeAlias = dict[str, dict[str, Stored]]
"""The slots of one leaf as they are stored, by link and name."""

NO_LINKS = freeze(([], []))[0]
"""The `Plan.frozen` of a leaf that is only rounded."""


class Plan(NamedTuple):
    """The constants of a leaf function. Equal plans share one trace."""

    frozen: Frozen
    """The links, with numbers in place of schedules and tables, and the scalars of each."""
    names: tuple[str, ...]
    dtype: DType
    """The real dtype of the arithmetic."""
    formats: tuple = ()
    """The slots with a storage format: see `storage.formats_of`."""
    lagged: tuple[tuple[str, str], ...] = ()
    """The slots, as (link, slot), that are written last: see `Leafwise.lagged`."""
    out: DType = None
    """The dtype of the result."""
    apply: bool = False
    """Whether the result is the new parameter rather than the update."""
    rounding: Rounding = NEAREST
    ending: str = "apply_updates"
    """The name of the link that specifies the rounding of the parameter."""


class LeafInputs(NamedTuple):
    """The inputs of a leaf function. ``None`` for those that the links do not need."""

    u: jax.Array
    """The update."""
    p: jax.Array | None = None
    """The parameter as stored; ``None`` if none was passed to ``update``."""
    slots: Slots = {}
    grad: jax.Array | None = None
    """The gradient that entered the chain, for links that read ``slot.grad``."""
    keys: dict[str, jax.Array] = {}
    """PRNG keys of this step and leaf, by link."""
    residual: jax.Array | None = None
    """The residual of the parameter's last rounding."""
    rounding_key: jax.Array | None = None
    """The PRNG key of a random rounding."""
    dither: jax.Array | None = None
    """The step's threshold for rounding slots that hold no negative numbers: see `rounding.golden_dither`."""
    dropped: jax.Array | None = None
    """1 if the step is rejected, else 0, for leaves with encoded slots: their function keeps the old values itself."""
    opaque_false: jax.Array | None = None
    """A False that XLA's CPU compiler cannot fold, for plans with ``lagged`` slots."""


class LeafOutputs(NamedTuple):
    """The outputs of a leaf function."""

    leaf: jax.Array
    """The update, or the new parameter if the plan says ``apply``."""
    slots: Slots
    residual: jax.Array | None
