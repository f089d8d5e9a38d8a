"""The devices of a sweep: which ones, how chains are divided among them, and the arguments on them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..core.values.contents import is_array

AXIS = "chains"


class Devices:
    """Devices, and arguments that are copied to them when they are first needed there."""

    def __init__(self, devices: list[Any], args: tuple[Any, ...]) -> None:
        self.list = devices
        self._args = [x for x in jax.tree.leaves(args) if is_array(x)]
        self._placed: dict[Mesh, list[jax.Array]] = {}

    def mesh(self, count: int) -> Mesh:
        """The first ``count`` devices. The axis is automatic, whatever the axes of the caller's mesh are."""
        return Mesh(np.array(self.list[:count]), (AXIS,), axis_types=(AxisType.Auto,))

    def args_on(self, mesh: Mesh) -> list[jax.Array]:
        """The arrays in the arguments, in full on each device."""
        if mesh not in self._placed:
            self._placed[mesh] = [jax.device_put(x, NamedSharding(mesh, P())) for x in self._args]
        return self._placed[mesh]


def available() -> list[Any]:
    """This process's devices: those of the mesh set by ``jax.set_mesh``, or else the default device, or else all."""
    mesh, default = jax.sharding.get_mesh(), getattr(jax.config, "jax_default_device", None)
    if not mesh.empty:
        if not (local := list(mesh.local_devices)):
            raise ValueError(
                "`sweep` runs on the devices of this process, and the mesh set by jax.set_mesh has none of them: call "
                "it under a mesh that has, or without one."
            )
        return local
    if isinstance(default, jax.Device):
        return [default]
    return jax.local_devices(backend=default)


def layout(runs: int, most: int, devices: int) -> tuple[int, int]:
    """How many devices run how many chains each: at most ``most`` in all, in as few and equal batches as that allows.

    >>> layout(100, 100, 8), layout(100, 104, 8), layout(9, 16, 8), layout(3, 8, 8)
    ((8, 7), (8, 13), (5, 2), (3, 1))
    """
    devices = min(devices, most)
    batches = -(-runs // (devices * (most // devices)))
    each = -(-runs // (batches * devices))
    return -(-runs // (batches * each)), each


def is_host(device: Any) -> bool:
    """Whether devices of this kind are parts of the host, with one memory and one pool of threads."""
    return device.platform == "cpu"


def block_each_other(lowered: jax.stages.Lowered) -> bool:
    """Whether a function of several chains might never end on a host.

    jaxlib's LAPACK kernels divide a batch of matrices among the host's threads, and wait for them on such a thread. If
    all threads wait, on behalf of several devices or of decompositions that do not depend on each other, none is left
    to compute (seen with jaxlib 0.10: SVD on several devices, and two eigendecompositions on one with two threads).
    """
    return "@lapack_" in lowered.as_text()
