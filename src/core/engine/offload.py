"""State that is kept in host memory between steps."""

from __future__ import annotations

import jax

from ..values.types import PyTree
from .checks import check_buffers, check_roles
from .state import State

HOST = "pinned_host"


def offload(state: State) -> State:
    """Move a state's slots to pinned host memory, so that they take no device memory between steps.

    Each step of the chain fetches the slots, and returns the new ones in the same memory as the old, so a state is
    offloaded only once. The numbers are bit for bit those of a state on the device.

    Errors: ``ValueError`` if the state's devices have no pinned host memory.

    >>> import chainax as cx
    >>> tx, params = cx.adam(1e-3), {"w": jax.numpy.ones(3)}
    >>> state = cx.offload(tx.init(params))
    >>> _, state = tx.step(params, state, params)
    >>> state.links["scale_by_adam"]["mu"]["w"].sharding.memory_kind
    'pinned_host'
    """
    check_roles("offload(state)", state=state)
    check_buffers("offload(state)", state=state)

    def put(x: jax.Array) -> jax.Array:
        for device in x.sharding.device_set:
            kinds = [memory.kind for memory in device.addressable_memories()]
            if HOST not in kinds:
                raise ValueError(f"offload needs {HOST!r} memory: {device} has {', '.join(map(repr, kinds))} only")
        return jax.device_put(x, jax.memory.Space.Host)

    return state._replace(links=jax.tree.map(put, state.links))


def fetched(links: PyTree) -> PyTree:
    """The slots in device memory, to compute with."""
    return jax.tree.map(lambda x: jax.device_put(x, jax.memory.Space.Device) if _is_on_host(x) else x, links)


def returned(links: PyTree, old: PyTree) -> PyTree:
    """The slots in the same memory as the old ones."""
    on_host = iter(jax.tree.leaves(jax.tree.map(_is_on_host, old)))
    return jax.tree.map(lambda x: jax.device_put(x, jax.memory.Space.Host) if next(on_host) else x, links)


def _is_on_host(x: jax.Array) -> bool:
    return getattr(jax.typeof(x), "memory_space", None) is jax.memory.Space.Host
