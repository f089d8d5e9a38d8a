"""Chains with one structure, compiled and run together."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ..core.engine.checks import UNTYPED
from ..core.facade.chain import stack
from ..core.facade.transformation import Transformation
from ..core.values.contents import is_array, is_key
from ..core.values.tree import flatten
from ..core.values.types import PyTree
from .devices import AXIS, Devices, block_each_other, is_host, layout
from .progress import Tell


class Group:
    """Chains with one structure: one compiled function of the arrays in them and in the arguments."""

    def __init__(self, what: str, members: list[int]) -> None:
        self.what, self.members = what, members
        self.size = 0
        self.error: Exception | None = None

    def compile(
        self,
        train: Callable[..., PyTree],
        chains: list[Transformation],
        args: tuple[Any, ...],
        batch_size: int | None,
        devices: Devices,
    ) -> None:
        """Compile ``train`` for ``batch_size`` chains at once, by default for as many as fit into memory."""
        alike = all(tx == chains[0] for tx in chains)
        tx = chains[0] if alike else stack(chains)
        leaves, treedef = jax.tree.flatten((tx, args))
        own = len(jax.tree.leaves(tx))
        self.axes = [0 if i < own and np.ndim(x) else None for i, x in enumerate(leaves) if is_array(x)]
        impls = {i: jax.random.key_impl(x) for i, x in enumerate(leaves[:own]) if is_array(x) and is_key(x)}
        # on the host: keys may be on a mesh of the caller
        of_chains = [
            np.asarray(jax.random.key_data(x) if i in impls else x) for i, x in enumerate(leaves[:own]) if is_array(x)
        ]
        self.runs = 1 if alike else len(chains)

        def run(arrays: list[jax.Array]) -> PyTree:
            remaining = iter(arrays)
            given = [next(remaining) if is_array(x) else x for x in leaves]
            for i, impl in impls.items():
                given[i] = jax.random.wrap_key_data(given[i], impl=impl)
            tx, args = treedef.unflatten(given)
            return train(tx, *args)

        def once(arrays: list[jax.Array]) -> PyTree:
            return jax.tree.map(lambda x: jnp.asarray(x)[None], run(arrays))

        available = len(devices.list)
        most = batch_size or self.runs + -self.runs % available
        while True:
            count, each = layout(self.runs, most, available)
            self.size, self.mesh = count * each, devices.mesh(count)
            self.arrays = of_chains + devices.args_on(self.mesh)
            mapped = once if alike else jax.vmap(run, (self.axes,), axis_size=each)
            with jax.set_mesh(self.mesh):  # not the caller's, which may have explicit axes
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", UNTYPED)  # no array is a part of another: see `_spread`
                    lowered = self._spread(mapped).lower(self.batch(0))
                if count > 1 and is_host(devices.list[0]) and block_each_other(lowered):
                    available = 1
                    continue
                self.compiled = lowered.compile()
            needed, free = memory(self.compiled)
            least = 1 if is_host(devices.list[0]) else count  # fewer accelerators would not have more memory each
            if self.size <= least or batch_size is not None or needed <= free:
                return
            most = max(least, min(self.size - 1, int(self.size * free / needed)))

    def _spread(self, mapped: Callable[..., PyTree]) -> Any:
        """The jitted function of all chains at once; each device computes its own, without communication.

        XLA divides the ``vmap`` of most programs by itself, but not of loops that end when all chains are done, as in
        line searches: their condition would be reduced over the devices at every turn. Without ``check_vma``,
        nothing in ``train`` is typed as a part of a whole, so norms are those of a chain.
        """
        if self.mesh.size > 1:
            specs = [P() if axis is None else P(AXIS) for axis in self.axes]
            mapped = jax.shard_map(mapped, mesh=self.mesh, in_specs=(specs,), out_specs=P(AXIS), check_vma=False)
        return jax.jit(mapped, in_shardings=([self.placed(axis) for axis in self.axes],), out_shardings=self.placed(0))

    def placed(self, axis: int | None) -> NamedSharding:
        """Where an array is: divided among the devices along the axis of chains, or in full on each of them."""
        return NamedSharding(self.mesh, P() if axis is None else P(AXIS))

    def batch(self, start: int) -> list[jax.Array]:
        """The arrays of a batch of members. The last member is repeated to fill up the last batch."""
        which = np.minimum(np.arange(start, start + self.size), self.runs - 1)
        return [
            jax.device_put(x if axis is None else x[which], self.placed(axis))
            for x, axis in zip(self.arrays, self.axes)
        ]

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
    """The bytes that a compiled function needs on all its devices besides its arguments, and those that are free."""
    count, outputs = compiled.memory_analysis(), jax.tree.leaves(compiled.output_shardings)
    if count is None or not outputs:
        return 0, 0
    devices = outputs[0].device_set
    free = min(map(free_bytes, devices))
    needed = len(devices) * (count.temp_size_in_bytes + count.output_size_in_bytes)
    return needed, free if is_host(next(iter(devices))) else len(devices) * free


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
