"""Chains with one structure, compiled and run together."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Container, Iterator
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
from .folder import Part, Row, Run


class Group:
    """Runs of chains with one structure: one compiled function of the arrays in them and in the arguments.

    ``part`` is the part of a folder that these runs are.
    """

    def __init__(self, what: str, runs: list[Run], part: Part | None = None) -> None:
        self.what, self.runs, self.part = what, runs, part
        self.members = list(dict.fromkeys(i for i, _ in runs))
        self.size = 0
        self.error: Exception | None = None

    def compile(
        self,
        train: Callable[..., PyTree],
        chains: list[Transformation],
        args: tuple[Any, ...],
        devices: Devices,
        batch_size: int | None,
        share: int = 1,
    ) -> None:
        """Compile ``train`` for ``batch_size`` runs at once; by default for as many as fit into memory.

        And for at most ``1/share`` of the runs.
        """
        function, arrays = self._function(train, [chains[i] for i in self.members], args)
        available = len(devices.list)
        most = -(-self.count // share)
        batch_size = self.part.most if self.part else batch_size
        self.most = batch_size or most + -most % available
        while True:
            count, each = layout(self.count, self.most, available)
            self.size, self.mesh = count * each, devices.mesh(count)
            self.arrays = arrays + devices.args_on(self.mesh)
            mapped = function if self.once else jax.vmap(function, (self.axes,), axis_size=each)
            with jax.set_mesh(self.mesh):  # not the caller's, which may have explicit axes
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", UNTYPED)  # no array is a part of another: see `_spread`
                    lowered = self._spread(mapped).lower(self.batch(0))
                if self.size > 1 and is_host(devices.list[0]) and block_each_other(lowered):
                    available = self.most = 1
                    continue
                self.compiled = lowered.compile()
            needed, free = memory(self.compiled)
            least = 1 if is_host(devices.list[0]) else count  # fewer accelerators would not have more memory each
            if self.size <= least or batch_size is not None or needed <= free:
                return
            self.most = max(least, min(self.size - 1, int(self.size * free / needed)))

    def _function(
        self, train: Callable[..., PyTree], chains: list[Transformation], args: tuple[Any, ...]
    ) -> tuple[Callable[[list[jax.Array]], PyTree], list[np.ndarray]]:
        """``train`` as a function of the arrays in a chain, its seed and ``args``; and the arrays of all runs."""
        seeded = self.runs[0][1] is not None
        alike = all(tx == chains[0] for tx in chains)
        tx = chains[0] if alike else stack(chains)
        seeds = np.array([seed for _, seed in self.runs], np.int32) if seeded else None
        self.once = alike and not seeded
        self.count = 1 if self.once else len(self.runs)
        leaves, treedef = jax.tree.flatten((tx, seeds, args))
        of_chains, own = len(jax.tree.leaves(tx)), len(jax.tree.leaves((tx, seeds)))
        self.axes = [0 if i < own and np.ndim(x) else None for i, x in enumerate(leaves) if is_array(x)]
        impls = {i: jax.random.key_impl(x) for i, x in enumerate(leaves[:own]) if is_array(x) and is_key(x)}
        place = {i: k for k, i in enumerate(self.members)}
        which = [place[i] for i, _ in self.runs]

        def on_host(i: int, x: Any) -> np.ndarray:  # keys may be on a mesh of the caller
            array = np.asarray(jax.random.key_data(x) if i in impls else x)
            return array[which] if i < of_chains and np.ndim(x) else array

        def run(arrays: list[jax.Array]) -> PyTree:
            remaining = iter(arrays)
            given = [next(remaining) if is_array(x) else x for x in leaves]
            for i, impl in impls.items():
                given[i] = jax.random.wrap_key_data(given[i], impl=impl)
            tx, seed, args = treedef.unflatten(given)
            results = train(tx, seed, *args) if seeded else train(tx, *args)
            return jax.tree.map(lambda x: jnp.asarray(x)[None], results) if self.once else results

        return run, [on_host(i, x) for i, x in enumerate(leaves[:own]) if is_array(x)]

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
        """The arrays of a batch of runs. The last run is repeated to fill up the last batch."""
        which = np.minimum(np.arange(start, start + self.size), self.count - 1)
        return [
            jax.device_put(x if axis is None else x[which], self.placed(axis))
            for x, axis in zip(self.arrays, self.axes)
        ]

    def batches(self, done: Container[Run], wanted: Container[Run]) -> Iterator[tuple[list[int], list[Row]]]:
        """The places and results of the runs that are not done, for each batch with a run that is wanted.

        Batches begin at multiples of their size, whatever is done: a run is always computed beside the same ones.
        """
        for start in range(0, self.count, self.size):
            own = range(start, min(start + self.size, self.count)) if self.count > 1 else range(len(self.runs))
            left = [i for i in own if self.runs[i] not in done]
            if not any(self.runs[i] in wanted for i in left):
                continue
            results = {name: np.asarray(x) for name, x in named(self.compiled(self.batch(start))).items()}
            yield left, [{name: x[i - start if self.count > 1 else 0] for name, x in results.items()} for i in left]


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
