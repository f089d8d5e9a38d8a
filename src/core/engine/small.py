"""Small leaves on GPUs, several of which XLA computes in one kernel if they read one vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from .elementwise import is_elementwise
from .leaf import PlannedFunction
from .offload import fetched
from .plan import LeafInputs, LeafOutputs, Plan

SMALL = 16384
"""Numbers in the largest leaf that shares a kernel. Larger ones fill a GPU alone, and want its registers."""


class SharedScalars:
    """The arrays of plans, as the leaves of one walk read them."""

    def __init__(self, function: PlannedFunction) -> None:
        self.function = function
        self._vectors: dict[tuple[int, ...], list[jax.Array]] = {}
        self._elementwise: dict[tuple, bool] = {}

    def __call__(self, plan: Plan, arrays: list[jax.Array], inputs: LeafInputs) -> list[jax.Array]:
        """The arrays of a plan, from one vector if the leaf is small and its function elementwise."""
        shape = jnp.shape(inputs.u)
        if jnp.size(inputs.u) > SMALL or not any(isinstance(x, Tracer) for x in arrays):
            return arrays
        if (plan, shape) not in self._elementwise:

            def function(arrays: list[jax.Array], inputs: LeafInputs) -> LeafOutputs:
                return self.function(plan, arrays, fetched(inputs))  # a transfer is not elementwise

            self._elementwise[plan, shape] = is_elementwise(jax.make_jaxpr(function)(arrays, inputs).jaxpr, shape)
        if not self._elementwise[plan, shape]:
            return arrays
        same = tuple(map(id, arrays))
        if same not in self._vectors:
            self._vectors[same] = in_one_vector(arrays)
        return self._vectors[same]


def in_one_vector(arrays: list[jax.Array]) -> list[jax.Array]:
    """The same arrays, such that a compiled step for GPUs reads the float32 scalars from one vector.

    XLA's GPU compiler fuses kernels of equal shape that share an operand, as long as they have at most 96 operands and
    results together, but a shared scalar does not count. Thirteen leaves of AdamW make one kernel.
    """
    scalars = [x for x in arrays if isinstance(x, Tracer) and not jnp.ndim(x) and x.dtype == jnp.float32]
    scalars = [x for x in scalars if jax.typeof(x) == jax.typeof(scalars[0])]
    if not scalars:
        return arrays

    def read_back(xs: list[jax.Array]) -> list[jax.Array]:
        # One number alone would be a scalar to XLA, and without the barrier it would read the originals.
        vector = lax.optimization_barrier(lax.concatenate([lax.reshape(x, (1,)) for x in (*xs, xs[0])], 0))
        return [lax.index_in_dim(vector, i, keepdims=False) for i in range(len(xs))]

    new = lax.platform_dependent(scalars, cuda=read_back, rocm=read_back, default=lambda xs: xs)
    places = {id(x): y for x, y in zip(scalars, new)}
    return [places.get(id(x), x) for x in arrays]
