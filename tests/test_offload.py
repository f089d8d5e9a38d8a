"""State in the host's memory between steps: the same bits, and a clear error where there is no such memory."""

from types import SimpleNamespace
from typing import Any

import chainax as cx
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

CHAINS = {
    "adamw": cx.chain(cx.clip_by_global_norm(1.0), cx.adamw(1e-2)),
    "8 bits, corrected": cx.chain(cx.store(cx.adamw(1e-2), cx.int8(min_size=0)), cx.apply_update("ecc")),
}


def places(state: Any) -> set[str]:
    """The kinds of memory that the slots lie in."""
    return {x.sharding.memory_kind for x in jax.tree.leaves(state.links)}


@pytest.mark.parametrize("jit", (True, False))
@pytest.mark.parametrize("tx", CHAINS.values(), ids=CHAINS)
def test_offloaded_state_stays_and_changes_no_bit(tx: Any, jit: bool) -> None:
    """Three steps on sharded bfloat16 parameters, with the slots on the device and away."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(16, 256)), jnp.bfloat16), "b": jnp.ones(4, jnp.bfloat16)}
    params = jax.device_put(params, {"w": NamedSharding(mesh, P("d")), "b": NamedSharding(mesh, P())})
    step = cx.make_step(tx, donate=False) if jit else tx.step
    here, away = (params, tx.init(params)), (params, cx.offload(tx.init(params)))
    for _ in range(3):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
        here, away = step(*here, grads), step(*away, grads)
        assert places(away[1]) == {"pinned_host"}
        assert places(here[1]) == {"device"}
    chex.assert_trees_all_equal(jax.device_get(away), jax.device_get(here))


def test_offloaded_state_is_donated() -> None:
    """The compiled step reuses its buffers, and is traced once."""
    tx, params = cx.adam(1e-2), {"w": jnp.ones((64, 64))}
    traces = []

    def step(*arguments: Any) -> Any:
        traces.append(arguments)
        return tx.step(*arguments)

    compiled, state = jax.jit(step, donate_argnums=(0, 1)), cx.offload(tx.init(params))
    for _ in range(3):
        old = state.links["scale_by_adam"]["mu"]["w"]
        params, state = compiled(params, state, jax.tree.map(jnp.ones_like, params))
        assert old.is_deleted()
    assert len(traces) == 1
    assert places(state) == {"pinned_host"}


def test_backend_without_host_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which device has which memories."""
    state = cx.adam(1e-2).init(jnp.ones(3))
    device = SimpleNamespace(addressable_memories=lambda: [SimpleNamespace(kind="device")])
    monkeypatch.setattr(type(state.step.sharding), "device_set", property(lambda self: [device]))
    with pytest.raises(ValueError, match=r"offload needs 'pinned_host' memory: .* has 'device' only"):
        cx.offload(state)
