"""What the function of one leaf is made of, what it takes and what it returns."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax

from ..values.types import DType
from .frozen import Frozen, freeze
from .rounding import NEAREST, Rounding

Slots: TypeAlias = dict[str, dict[str, Any]]
"""The slots of one leaf as they are stored, by link and name: arrays, or dicts of the arrays of a `Format`."""

NO_LINKS = freeze(([], []))[0]
"""The `Plan.frozen` of a leaf that is only rounded."""


class Plan(NamedTuple):
    """What is constant in the function that a leaf runs through; equal plans share one trace."""

    frozen: Frozen
    """The links, with numbers for fields, and the scalars of each."""
    names: tuple[str, ...]
    dtype: DType
    """The real dtype of the arithmetic."""
    formats: tuple = ()
    """The slots that are not stored as they are: see `storage.formats_of`."""
    lagged: tuple[tuple[str, str], ...] = ()
    """The slots, as (link, slot), that are written last: see `Leafwise.lagged`."""
    out: DType = None
    """The dtype of the result."""
    apply: bool = False
    """Whether the result is the parameter, and not the update."""
    rounding: Rounding = NEAREST
    ending: str = "apply_updates"
    """The name of the link that says how the parameter is rounded."""


class LeafInputs(NamedTuple):
    """What a leaf function takes. ``None`` stands for what the links do not need."""

    u: jax.Array
    """The update."""
    p: jax.Array | None = None
    """The parameter as it is stored; ``None`` if none was passed to ``update``."""
    slots: Slots = {}
    grad: jax.Array | None = None
    """The gradient as it came into the chain, for links that read ``slot.grad``."""
    keys: dict[str, jax.Array] = {}
    """PRNG keys of this step and leaf, by link."""
    residual: jax.Array | None = None
    """What the last rounding of the parameter left over."""
    rounding_key: jax.Array | None = None
    """The PRNG key of a rounding that is random."""
    dither: jax.Array | None = None
    """The step's threshold for rounding slots that hold no negative numbers: see `rounding.golden_dither`."""
    opaque_false: jax.Array | None = None
    """False, which XLA's CPU compiler cannot fold, for plans with ``lagged`` slots."""


class LeafOutputs(NamedTuple):
    """What a leaf function returns."""

    leaf: jax.Array
    """The update, or the parameter if the plan says ``apply``."""
    slots: Slots
    residual: jax.Array | None
