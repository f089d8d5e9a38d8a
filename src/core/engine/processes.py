"""Arrays on the devices of several processes, of which each process can read only its own shards."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Sharding

from ..values.types import DType


def gathered(name: str, x: Any) -> Any:
    """All numbers of an array that spans processes, as a NumPy array in each of them; anything else is unchanged.

    The processes exchange their shards, unless each has all numbers: all must call this, in the same order. ``name`` is
    for the error.
    """
    if isinstance(x, Tracer) or not isinstance(x, jax.Array) or x.is_fully_addressable:
        return x
    if not x.sharding.addressable_devices:
        raise ValueError(
            f"the array {name!r} lies on devices of other processes only: call this in the processes that hold it"
        )
    if x.is_fully_replicated:
        return np.asarray(x)
    from jax.experimental import multihost_utils  # here, since importing it is slow

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def placed(x: np.ndarray, dtype: DType, sharding: Sharding) -> jax.Array:
    """A copy, on devices, of an array that all their processes have. Each process copies its own shards."""
    if sharding.is_fully_addressable:
        return jax.device_put(np.array(x, dtype), sharding)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: np.array(x[index], dtype))
