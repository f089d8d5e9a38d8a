"""State that rests in the host's memory between steps."""

from __future__ import annotations

import jax

from ..values.types import PyTree
from .checks import check_buffers, check_roles
from .state import State

HOST = "pinned_host"


def offload(state: State) -> State:
    """The state with its slots in pinned memory of the host, where it takes none of the device's.

    Every step of the chain fetches the slots, and puts the new ones back where the old ones lay: a state
    that was offloaded once stays so. The numbers are those of a state on the device, to the last bit.

    Errors: ``ValueError`` where the devices of the state have no pinned host memory.

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
    """The slots in the device's memory, for computing with them."""
    return jax.tree.map(lambda x: jax.device_put(x, jax.memory.Space.Device) if _is_away(x) else x, links)


def returned(links: PyTree, old: PyTree) -> PyTree:
    """The slots where the old ones lay."""
    away = iter(jax.tree.leaves(jax.tree.map(_is_away, old)))
    return jax.tree.map(lambda x: jax.device_put(x, jax.memory.Space.Host) if next(away) else x, links)


def _is_away(x: jax.Array) -> bool:
    return getattr(jax.typeof(x), "memory_space", None) is jax.memory.Space.Host
