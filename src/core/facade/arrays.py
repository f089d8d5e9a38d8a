"""The arrays of a stored state: checked, converted and placed like those of a first state."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..engine.leaf import narrowed_slot
from ..engine.processes import gathered, placed
from ..engine.state import State
from ..engine.storage import Format
from ..values.tree import compute_dtype, flatten, show, to_real
from ..values.types import DType, Leaf, Params, PyTree
from .parts import Part

Array: TypeAlias = jax.Array | np.ndarray
ArrayLike: TypeAlias = Any
"""An array, or a number, which some file formats return for a scalar."""


def misfit(x: ArrayLike, like: Array) -> str:
    """Why an array cannot be converted to the shape and dtype of another; ``""`` if it can."""
    dtype = np.dtype(x.dtype) if hasattr(x, "dtype") else np.asarray(x).dtype
    kinds = "iufc" if jnp.iscomplexobj(like) else "iuf"
    numbers = dtype.kind in kinds or jnp.issubdtype(dtype, jnp.floating) or _is_nameless(dtype, like)
    return "" if numbers and np.shape(x) == like.shape else f"{dtype}{list(np.shape(x))} for {show(like)}"


def odd_numbers(name: str, stored: ArrayLike, like: Array, least: float, *, endless: bool = False) -> str:
    """The invalid numbers of an array, which no step can have stored; ``""`` if all are valid.

    Numbers must not be below ``least``. They must be finite, or equal to those of ``like``, the array's first value,
    or +∞ with ``endless``.
    """
    if isinstance(stored, Tracer) or isinstance(like, Tracer):
        return ""
    x = _typed(name, stored, like)
    with np.errstate(all="ignore"):
        loaded = x.astype(like.dtype)
    if not jnp.issubdtype(like.dtype, jnp.inexact):
        if not np.array_equal(loaded, x):
            return f"numbers that {like.dtype} cannot hold"
    else:
        odd = ~(np.isfinite(loaded) | (endless & (x == math.inf)))  # alike in all processes: all gather or none
        if odd.any() and (odd & (x != np.asarray(gathered(name, like)))).any():
            return "numbers that are not finite"
    parts = (np.real(loaded), np.imag(loaded)) if np.iscomplexobj(loaded) else (loaded,)
    return f"numbers below {least:g}" if least > -math.inf and any(np.any(x < least) for x in parts) else ""


def odd_codes(part: Part, slot: str, arrays: Mapping[str, ArrayLike], news: Mapping[str, Array]) -> str:
    """The invalid numbers of a slot that is stored as codes and scales; ``""`` if all are valid."""
    codes = part.slots[slot]
    formats = getattr(part.link, "formats", None)
    if not isinstance(codes, dict) or part.path is None or formats is None:
        return ""
    form, signed = formats.of(slot, part.path, np.shape(part.param)), slot not in part.link.nonnegative
    if any(isinstance(arrays[name], Tracer) for name in codes.values()):
        return ""
    kept = {key: jnp.array(_typed(name, arrays[name], news[name]), news[name].dtype) for key, name in codes.items()}
    if np.any(np.asarray(kept.get("scale", 0.0)) < 0):
        return "scales below 0"
    if form is None:
        return ""
    like = np.zeros(part.shape, np.float32)
    return odd_numbers(slot, form.widen(kept, part.shape, signed), like, -math.inf if signed else 0.0)


def _is_nameless(dtype: DType, like: Array) -> bool:
    """Whether this is the dtype of bytes that NumPy's files return for bfloat16 and similar types."""
    return dtype == np.dtype(f"V{like.dtype.itemsize}")


def _typed(name: str, stored: ArrayLike, like: Array) -> np.ndarray:
    x = np.asarray(gathered(name, stored))
    return x.view(like.dtype) if _is_nameless(x.dtype, like) else x


def owned(name: str, stored: ArrayLike, like: Array) -> jax.Array:
    """A copy of the array in the dtype and sharding of another.

    Without the copy, JAX might use the memory of a NumPy array, or of the file that it maps.
    """
    if isinstance(stored, Tracer) or not isinstance(like, jax.Array) or isinstance(like, Tracer):
        return jnp.array(stored if isinstance(stored, jax.Array) else _typed(name, stored, like), like.dtype)
    is_local = like.sharding.is_fully_addressable
    if isinstance(stored, jax.Array) and stored.is_fully_addressable == is_local:
        return jax.device_put(stored, like.sharding, may_alias=False).astype(like.dtype)
    return placed(_typed(name, stored, like), like.dtype, like.sharding)


def beside(params: Params, named: dict[str, Any]) -> dict[str, Any]:
    """The arrays, with those that `init` left on the default device on the parameters' one device, if they have one."""
    put = [p for p in jax.tree.leaves(params) if isinstance(p, jax.Array) and not isinstance(p, Tracer) and p.committed]
    own = put[0].devices() if put else ()
    if len(own) != 1:
        return named
    return {name: x if isinstance(x, Tracer) or x.committed else jax.device_put(x, *own) for name, x in named.items()}


def named(state: State) -> dict[str, Array]:
    """The arrays of the state by name, in the order of its leaves."""
    named: dict[str, Array] = {}
    for name, x in flatten(state).items():
        if x is None:
            continue
        name = name.removeprefix("links/")
        if name in named:
            raise ValueError(f"two arrays of the state have the name {name!r}: rename one of the parameters")
        named[name] = x
    return named


TO_NEAREST = 1 << 31
"""The dither with which `narrowed_slot` rounds numbers that are not negative to the nearest, but not to 0."""


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def widened_slot(kept: PyTree, form: Format | None, shape: tuple[int, ...], signed: bool) -> jax.Array:
    """A stored slot in float32 or wider; ``shape`` is that of what a format stored."""
    if isinstance(kept, dict):
        assert form is not None
        return form.widen(kept, shape, signed)
    return to_real(kept, compute_dtype(kept.dtype))


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def rounded_slot(x: jax.Array, form: Format | None, signed: bool, dtype: Any) -> PyTree:
    """``x`` as a slot of a format, or as an array of ``dtype``."""
    wide: Leaf = to_real(x, compute_dtype(x.dtype))
    like: Any = {} if dtype is None else jax.ShapeDtypeStruct((), dtype)
    return narrowed_slot(wide, () if form is None else (form, signed), like, jnp.uint32(TO_NEAREST))
