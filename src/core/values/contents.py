"""What fields hold, Python objects and arrays: compared, hashed and printed as code."""

from __future__ import annotations

import inspect
import math
from collections.abc import Hashable, Mapping
from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Array = jax.Array | np.ndarray


def is_array(x: object) -> TypeGuard[Array]:
    """Whether ``x`` is a JAX array, traced or not, or a NumPy array."""
    return isinstance(x, (jax.Array, np.ndarray))


def is_key(x: Array) -> bool:
    """Whether an array holds PRNG keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data(x: Array) -> np.ndarray:
    """The array as numbers. Keys become their key data."""
    return np.asarray(jax.random.key_data(x) if is_key(x) else x)  # pyright: ignore[reportArgumentType]


def same(a: object, b: object) -> bool:
    """Whether two fields are equal: arrays by shape, dtype and contents, traced arrays by identity."""
    if a is b:
        return True
    if type(a) is tuple and type(b) is tuple:
        return len(a) == len(b) and all(map(same, a, b))
    if is_array(a) and is_array(b) and not isinstance(a, Tracer) and not isinstance(b, Tracer):
        x, y = _data(a), _data(b)
        return x.shape == y.shape and x.dtype == y.dtype and is_key(a) == is_key(b) and bool(np.all(x == y))
    return type(a) is type(b) and not is_array(a) and bool(a == b)


def hashable(x: object) -> Hashable:
    """A hashable object for a field, equal for fields that are the `same`."""
    if isinstance(x, tuple):
        return tuple(map(hashable, x))
    if isinstance(x, Tracer):
        return id(x)
    if is_array(x):
        return x.shape, str(x.dtype), tuple(np.ravel(_data(x)).tolist())  # as numbers: 0.0 and -0.0 are equal
    return x


def code(x: object) -> str:
    """The code that makes ``x``."""
    if isinstance(x, float):
        if not math.isfinite(x):
            return f"float('{x}')"
        return str(int(x)) if x.is_integer() and abs(x) < 1e15 else repr(x)
    if isinstance(x, Tracer):
        return f"traced {x.dtype}{list(x.shape)}"
    if is_array(x):
        return f"jnp.{x.dtype}({code(shortest(x))})" if x.ndim == 0 and not is_key(x) else f"{x.dtype}{list(x.shape)}"
    if isinstance(x, tuple):
        return f"({', '.join(map(code, x))}{',' if len(x) == 1 else ''})"
    if isinstance(x, Mapping):
        return f"{{{', '.join(f'{key!r}: {code(entry)}' for key, entry in x.items())}}}"
    if inspect.isfunction(x):
        return x.__qualname__
    return repr(x)


def brief(x: object) -> str:
    """``x`` as code, truncated for an error message."""
    text = code(x)
    return text if len(text) <= 200 else f"{text[:200]}..."


def shortest(x: object) -> object:
    """The shortest Python number that converts to the same scalar array. Anything else is returned unchanged."""
    if isinstance(x, Tracer) or not is_array(x) or x.ndim or is_key(x):
        return x
    return type(x.item())(str(np.asarray(x)[()]))
