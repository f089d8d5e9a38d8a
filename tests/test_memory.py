"""`tx.memory`: the plan equals what is then allocated on each device."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

LEAVES = {"kernel": ((256, 64), P(None, "model")), "embed": ((512, 32), P("model")), "scale": ((64,), P())}


def shapes(kind: AxisType = AxisType.Explicit, dtype: Any = jnp.float32) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters on a mesh of 4 × 2 devices."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
        for name, (shape, spec) in LEAVES.items()
    }


def allocated(tree: Any) -> int:
    """The bytes of a tree on the first device."""
    shards = [s.data for x in jax.tree.leaves(tree) for s in x.addressable_shards if s.device == jax.devices()[0]]
    return sum(x.size * x.dtype.itemsize for x in shards)


CHAINS = {
    "adamw": cx.adamw(1e-3),
    "codes": cx.store(cx.adamw(1e-3), cx.int4()),
    "residuals": cx.chain(cx.sgd(0.1, momentum=0.9), cx.apply_update("kahan")),
    "within": cx.accumulate(cx.chain(cx.adafactor(1e-3, min_dim_size_to_factor=16), cx.ema_params(0.9)), 2),
    "the tree": cx.lbfgs(memory_size=2),
    "by path": cx.partition(cx.by_path({"scale": cx.sgd(0.1, momentum=0.9)}, default=cx.lion(0.1))),
}


@pytest.mark.filterwarnings("ignore:store. no format applies")
@pytest.mark.parametrize("tx", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16))
def test_the_plan_is_what_is_allocated(tx: Any, dtype: Any) -> None:
    """As it is, in other formats and spread; offloaded, only parameters and counters stay."""
    like = shapes(dtype=dtype)
    plan = tx.memory(like)
    params = {name: jax.device_put(jnp.zeros(s.shape, s.dtype), s.sharding) for name, s in like.items()}
    own = allocated(params)
    for column, chain in {
        "as it is": tx,
        "store(tx, 'bfloat16')": cx.store(tx, "bfloat16"),
        "store(tx, int8())": cx.store(tx, cx.int8()),
        "zero1(tx, over='data')": cx.zero1(tx),
        "zero1(store(tx, int8()), over='data')": cx.zero1(cx.store(tx, cx.int8())),
    }.items():
        assert plan.total(column) == own + allocated(chain.init(params)), column
        assert plan.columns[column]["parameters"] == own
    counters = plan.columns["as it is"]["counters and other scalars"]
    assert plan.total("offload(state)") == own + counters
    assert plan == tx.memory(params)


def test_rows_are_links_and_slots() -> None:
    """Also of chains within, of codes apart from their scales, and for a parameter that is called 'scale'."""
    plan = cx.accumulate(cx.store(cx.adamw(1e-3), mu=cx.int8()), 2).memory(shapes())
    assert {*plan.columns["as it is"]} == {
        "parameters",
        "accumulate.sum",
        "accumulate/scale_by_adam.mu",
        "accumulate/scale_by_adam.nu",
        "scales of codes",
        "counters and other scalars",
    }
    numbers = sum(x.sharding.shard_shape(x.shape)[0] * x.sharding.shard_shape(x.shape)[-1] for x in shapes().values())
    assert plan.columns["as it is"]["accumulate/scale_by_adam.nu"] == 4 * (numbers - 64 * 64 + 64)


def test_it_prints_as_a_table() -> None:
    """In the unit of the largest total; the last rows are the scales, the counters and the total."""
    text = str(cx.adamw(1e-3).memory({"w": jax.ShapeDtypeStruct((1024, 1024), jnp.float32)}))
    assert text.splitlines() == [
        "MiB a device                as it is  store(tx, 'bfloat16')  store(tx, int8())  offload(state)",
        "parameters                      4.00                   4.00               4.00            4.00",
        "scale_by_adam.mu                4.00                   2.00               1.00            0.00",
        "scale_by_adam.nu                4.00                   2.00               1.00            0.00",
        "scales of codes                                                           0.03",
        "counters and other scalars      0.00                   0.00               0.00            0.00",
        "total                          12.00                   8.00               6.03            4.00",
    ]


def test_what_zero1_would_do_is_shown_once() -> None:
    """Not for a chain that is spread already, nor without an axis that replicates the parameters."""
    assert not any("zero1" in column for column in cx.zero1(cx.adam(0.1)).memory(shapes()).columns)
    assert not any("zero1" in column for column in cx.accumulate(cx.zero1(cx.adam(0.1)), 2).memory(shapes()).columns)
    mesh = jax.make_mesh((8,), ("data",))
    fsdp = {"w": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=NamedSharding(mesh, P("data")))}
    assert not any("zero1" in column for column in cx.adam(0.1).memory(fsdp).columns)


def test_automatic_axes_need_no_specs() -> None:
    """A plan is of the shardings that the shapes have."""
    tx = cx.adamw(0.1)
    assert tx.memory(shapes(AxisType.Auto)).columns == tx.memory(shapes()).columns
