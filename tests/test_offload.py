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
    "two runs": cx.chain(cx.scale_by_adam(), cx.clip_by_global_norm(1.0), cx.lion(1e-2)),
    "guarded": cx.chain(cx.skip_nonfinite(), cx.adamw(1e-2), cx.apply_update("kahan")),
    "wrapped": cx.accumulate(cx.chain(cx.adam(1e-2), cx.apply_update("kahan")), 2),
    "whole tree": cx.chain(cx.trace(0.9), cx.scale_by_dog(), cx.scale_by_lr(1.0), cx.apply_update("kahan")),
}


def transfers(tx: Any, state: Any, params: Any) -> str:
    """The order of a step: `<` fetches an array, `>` returns one, `|` is a barrier and `.` a leaf's function."""
    signs = {"optimization_barrier": "|", "jit": "."}
    jaxpr = jax.make_jaxpr(tx.step)(params, state, params)
    return "".join(
        "><"[eqn.params["devices"][0] is jax.memory.Space.Device]
        if eqn.primitive.name == "device_put"
        else signs.get(eqn.primitive.name, "")
        for eqn in jaxpr.eqns
    )


def places(state: Any) -> set[str]:
    """The kinds of memory that the slots lie in, but for scalars."""
    return {x.sharding.memory_kind for x in jax.tree.leaves(state.links) if x.ndim}


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


def test_slots_are_fetched_leaf_by_leaf() -> None:
    """The next leaf's after this leaf's are back; and no slot of a leaf that has no update."""
    tx, params = cx.adam(1e-2), {x: jnp.ones(2) for x in "abc"}
    state = tx.init(params)
    assert transfers(tx, state, params) == "..."
    assert transfers(tx, cx.offload(state), params) == "<<.>>|<<.>>|<<.>>"
    assert transfers(tx, cx.offload(state), {**params, "b": None}) == "<<.>>|<<.>>"


def test_offloaded_state_has_the_same_hypergradient() -> None:
    """Outside `jit`: within it JAX takes zeros on the device for the cotangents of arrays on the host."""
    params = {x: jnp.ones(2) for x in "ab"}

    def loss(learning_rate: jax.Array, state: Any) -> jax.Array:
        p = params
        for _ in range(2):
            p, state = cx.adam(learning_rate).step(p, state, p)
        return jnp.sum(jnp.stack([*p.values()]))

    state = cx.adam(1e-2).init(params)
    chex.assert_trees_all_equal(jax.grad(loss)(1e-2, cx.offload(state)), jax.grad(loss)(1e-2, state))


def test_backend_without_host_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which device has which memories."""
    state = cx.adam(1e-2).init(jnp.ones(3))
    device = SimpleNamespace(addressable_memories=lambda: [SimpleNamespace(kind="device")])
    monkeypatch.setattr(type(state.step.sharding), "device_set", property(lambda self: [device]))
    with pytest.raises(ValueError, match=r"offload needs 'pinned_host' memory: .* has 'device' only"):
        cx.offload(state)
