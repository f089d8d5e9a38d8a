"""PRNG keys, for each link, step and leaf."""

from __future__ import annotations

import functools
import zlib
from collections import Counter

import jax

from ..values.hyper import as_key
from ..values.tree import shard_axes
from .moving import MovingLeaf


class Keys:
    """The keys of one step."""

    def __init__(self, number: jax.Array, paths: list[str]) -> None:
        self.number, self.paths = number, paths

    def of_link(self, name: str, seed: jax.Array | int) -> jax.Array:
        """The key for one link."""
        of_step = jax.random.fold_in(as_key(f"{name}.seed", seed), self.number)
        return jax.random.fold_in(of_step, zlib.crc32(name.encode()))

    def of_leaf(self, key: jax.Array, leaf: MovingLeaf) -> jax.Array:
        """The key for one leaf, or for the part of it on one device of the mesh. ``key`` is that of a link."""
        key, axes = jax.random.fold_in(key, zlib.crc32(leaf.path.encode())), shard_axes(leaf.grad)
        for i in (self._namesakes[leaf.place] or None, jax.lax.axis_index(axes) if axes else None):
            key = key if i is None else jax.random.fold_in(key, i)
        return key

    @functools.cached_property
    def _namesakes(self) -> list[int]:
        """For each leaf, the number of earlier leaves whose path has the same checksum."""
        sums = [zlib.crc32(path.encode()) for path in self.paths]
        seen: Counter[int] = Counter()
        return [seen.update((x,)) or seen[x] - 1 for x in sums]
