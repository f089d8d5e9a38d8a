"""Chains with one structure, compiled and run together."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core.facade.chain import stack
from ..core.facade.transformation import Transformation
from ..core.values.contents import is_array, is_key
from ..core.values.tree import flatten
from ..core.values.types import PyTree
from .progress import Tell


class Group:
    """Chains with one structure: one compiled function of the arrays in them and in the arguments."""

    def __init__(self, what: str, members: list[int]) -> None:
        self.what, self.members = what, members
        self.error: Exception | None = None

    def compile(
        self, train: Callable[..., PyTree], chains: list[Transformation], args: tuple[Any, ...], batch_size: int | None
    ) -> None:
        """Compile ``train`` for ``batch_size`` chains at once, by default for as many as fit into memory."""
        alike = all(tx == chains[0] for tx in chains)
        tx = chains[0] if alike else stack(chains)
        leaves, treedef = jax.tree.flatten((tx, args))
        own = len(jax.tree.leaves(tx))
        self.axes = [0 if i < own and np.ndim(x) else None for i, x in enumerate(leaves) if is_array(x)]
        self.arrays = [
            x if axis is None or is_key(x) else np.asarray(x) for axis, x in zip(self.axes, filter(is_array, leaves))
        ]
        self.runs = 1 if alike else len(chains)

        def run(arrays: list[jax.Array]) -> PyTree:
            remaining = iter(arrays)
            tx, args = treedef.unflatten([next(remaining) if is_array(x) else x for x in leaves])
            return train(tx, *args)

        def once(arrays: list[jax.Array]) -> PyTree:
            return jax.tree.map(lambda x: jnp.asarray(x)[None], run(arrays))

        most = min(self.runs, batch_size or self.runs)
        while True:
            self.size = -(-self.runs // -(-self.runs // most))  # as few batches as ``most`` allows, of equal size
            mapped = once if alike else jax.vmap(run, (self.axes,), axis_size=self.size)
            self.compiled = jax.jit(mapped).lower(self.batch(0)).compile()
            needed, free = memory(self.compiled)
            if self.size == 1 or batch_size is not None or needed <= free:
                return
            most = max(1, min(self.size - 1, int(self.size * free / needed)))

    def batch(self, start: int) -> list[jax.Array | np.ndarray]:
        """The arrays of a batch of members. The last member is repeated to fill up the last batch."""
        which = np.minimum(np.arange(start, start + self.size), self.runs - 1)
        return [x if axis is None else x[which] for x, axis in zip(self.arrays, self.axes)]

    def rows(self, tell: Tell) -> list[dict[str, np.ndarray]]:
        """The results of each member."""
        rows: list[dict[str, np.ndarray]] = []
        for start in range(0, self.runs, self.size):
            results = {name: np.asarray(x) for name, x in named(self.compiled(self.batch(start))).items()}
            count = min(self.size, self.runs - start)
            rows += [{name: x[i] for name, x in results.items()} for i in range(count)]
            tell(f"running {self.what}", count if self.runs > 1 else len(self.members))
        return rows * (len(self.members) // self.runs)


def memory(compiled: jax.stages.Compiled) -> tuple[float, float]:
    """The bytes that a compiled function needs besides its arguments, and those that are free where it will run."""
    count, outputs = compiled.memory_analysis(), jax.tree.leaves(compiled.output_shardings)
    if count is None or not outputs:
        return 0, 0
    device = min(outputs[0].device_set, key=lambda device: device.id)
    return count.temp_size_in_bytes + count.output_size_in_bytes, free_bytes(device)


def free_bytes(device: Any) -> float:
    """Nine tenths of the free memory of an accelerator, or half of the host's memory, in bytes."""
    if stats := device.memory_stats():
        return 0.9 * (stats["bytes_limit"] - stats["bytes_in_use"])
    try:
        return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not available on every system
        return math.inf


def named(results: PyTree) -> dict[str, Any]:
    """The leaves of the results by path; a single leaf is called ``result``."""
    flat = flatten(results)
    return {path or "result": x for path, x in flat.items() if x is not None}
