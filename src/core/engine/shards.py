"""Encoded slots on a mesh with explicit axes: each device computes its shard, if blocks are whole within it.

If the mesh has automatic axes too, XLA divides what is computed on a shard along those.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..values.spec import axes_in
from ..values.tree import shards
from ..values.types import PyTree


class Shards(NamedTuple):
    """How an array is sharded along explicit axes, according to its type."""

    mesh: AbstractMesh | Mesh
    spec: P

    @classmethod
    def of(cls, x: jax.Array) -> Shards | None:
        """The shards; ``None`` outside of such a mesh."""
        sharding: Any = jax.typeof(x).sharding
        return cls(sharding.mesh, sharding.spec) if sharding.mesh.explicit_axes else None

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of shards along each axis of the array."""
        return tuple(shards(entry, self.mesh.shape) for entry in self.spec)

    @property
    def is_replicated(self) -> bool:
        """Whether the array is divided along no axis, not even one of size 1, which types contain too."""
        return not axes_in(self.spec)

    def local(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a shard."""
        return tuple(n // count for n, count in zip(shape, self.counts))

    def block_specs(self, shape: tuple[int, ...], block: int, per_byte: int) -> tuple[P, P] | None:
        """The specs of the codes and the scales of an array; ``None`` if a shard's border cuts a block."""
        counts = self.counts
        if shape and shape[-1] % (counts[-1] * block) == 0:  # blocks within rows
            return self.spec, self.spec
        if math.prod(counts[1:]) > 1 or math.prod(shape) % (counts[0] * block):
            return None
        flat = P(axes_in(self.spec))  # all but the first array axis are divided along axes of size 1 at most
        return self.spec if shape[-1] % per_byte == 0 else flat, flat

    def map(self, f: Callable[..., PyTree], in_specs: PyTree, out_specs: PyTree) -> Callable[..., PyTree]:
        """Compute ``f`` on each device's shards. Arguments with other shardings are moved first."""
        explicit = set(self.mesh.explicit_axes)
        mapped = jax.shard_map(f, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, axis_names=explicit)
        return lambda *args: mapped(*jax.tree.map(jax.sharding.reshard, args, self._placed(in_specs)))

    def own_key(self, key: jax.Array) -> jax.Array:
        """A PRNG key for this device's shard, in a function that `map` calls."""
        axes = axes_in(self.spec)
        return jax.random.fold_in(key, jax.lax.axis_index(axes)) if axes else key

    def automatically(self, f: Callable[..., PyTree], out_specs: PyTree) -> Callable[..., PyTree]:
        """Compute ``f`` with automatic axes; XLA inserts the communication."""
        return jax.sharding.auto_axes(f, axes=self.mesh.explicit_axes, out_sharding=self._placed(out_specs))

    def _placed(self, specs: PyTree) -> PyTree:
        return jax.tree.map(functools.partial(NamedSharding, self.mesh), specs)
