"""State that is kept in host memory between steps."""

from __future__ import annotations

import jax
from jax.interpreters.partial_eval import DynamicJaxprTracer

from ..values.types import Leaf, PyTree
from .checks import check_buffers, check_roles
from .leaf import PlannedFunction
from .plan import LeafInputs, LeafOutputs, Plan
from .protocol import Links, is_leafwise
from .state import State

HOST = "pinned_host"


def offload(state: State) -> State:
    """Move a state's slots to pinned host memory, so that they take no device memory between steps.

    Each step of the chain fetches the slots, and returns the new ones in the same memory as the old, so a state is
    offloaded only once. The numbers are bit for bit those of a state on the device. The slots of leafwise links are
    fetched leaf by leaf, and those of about three leaves are on the device at once. Those of whole-tree links and
    wrappers are fetched together, those that belong to matrices too, and all slots of a chain with a link that may
    reject the step. Scalars stay on
    the device.

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
        if not x.ndim:
            return x
        for device in x.sharding.device_set:
            kinds = [memory.kind for memory in device.addressable_memories()]
            if HOST not in kinds:
                raise ValueError(f"offload needs {HOST!r} memory: {device} has {', '.join(map(repr, kinds))} only")
        return jax.device_put(x, jax.memory.Space.Host)

    return state._replace(links=jax.tree.map(put, state.links))


def fetched(links: PyTree) -> PyTree:
    """The slots in device memory, to compute with."""
    return jax.tree.map(lambda x: jax.device_put(x, jax.memory.Space.Device) if _is_on_host(x) else x, links)


def fetched_first(links: Links, entries: dict[str, PyTree]) -> dict[str, PyTree]:
    """The entries of the state as a walk begins: all but the slots that `Transfers` fetches leaf by leaf."""
    if any(is_leafwise(link) and link.can_reject for link in links.values()):
        return fetched(entries)  # the choice between new and old slots is made on the device
    later = {name: () if link.treewise else link.slots for name, link in links.items()}

    def first(name: str, entry: PyTree) -> PyTree:
        if not later.get(name):
            return fetched(entry)
        return {key: x if key in later[name] else fetched(x) for key, x in entry.items()}

    return {name: first(name, entry) for name, entry in entries.items()}


def returned(links: PyTree, old: PyTree) -> PyTree:
    """The slots in the same memory as the old ones."""
    on_host = iter(jax.tree.leaves(jax.tree.map(_is_on_host, old)))

    def put(x: Leaf) -> Leaf:
        return jax.device_put(x, jax.memory.Space.Host) if next(on_host) and not _is_on_host(x) else x

    return jax.tree.map(put, links)


class Transfers:
    """A leaf function that fetches a leaf's slots from the host, and returns the new ones to it.

    A leaf's slots are fetched after those of the leaf before it were returned, or XLA would fetch all of them when the
    step begins. Its TPU compiler overlaps the transfers of three leaves with the arithmetic.
    """

    def __init__(self, function: PlannedFunction) -> None:
        self.function = function
        self.done: list[LeafOutputs] = []
        """The outputs for each leaf, in the memory of its inputs."""
        self._before: int | None = None
        """The index of the last leaf whose slots were returned."""

    def __call__(self, plan: Plan, arrays: list[jax.Array], inputs: LeafInputs) -> None:
        """Call the leaf function, and append what it returns to ``done``."""
        old = inputs.slots, inputs.residual
        # Only while a step is compiled: a barrier of arrays in host memory has no derivative.
        transfers = any(_is_on_host(x) and isinstance(x, DynamicJaxprTracer) for x in jax.tree.leaves(old))
        if transfers and self._before is not None:
            old, self.done[self._before] = _in_turn(old, self.done[self._before])
        slots, residual = fetched(old)
        done = self.function(plan, arrays, inputs._replace(slots=slots, residual=residual))
        residual = None if done.residual is None else returned(done.residual, old[1])
        self.done.append(done._replace(slots=returned(done.slots, old[0]), residual=residual))
        self._before = len(self.done) - 1 if transfers else self._before


def _in_turn(old: PyTree, before: LeafOutputs) -> tuple[PyTree, LeafOutputs]:
    """``old`` and ``before``, such that what is on the host in ``old`` is read after ``before`` is written."""
    leaves, treedef = jax.tree.flatten(old)
    places = [i for i, x in enumerate(leaves) if _is_on_host(x)]
    waiting, before = jax.lax.optimization_barrier(([leaves[i] for i in places], before))
    for i, x in zip(places, waiting):
        leaves[i] = x
    return treedef.unflatten(leaves), before


def _is_on_host(x: jax.Array) -> bool:
    return getattr(jax.typeof(x), "memory_space", None) is jax.memory.Space.Host
