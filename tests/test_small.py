"""Small leaves on GPUs read the step's scalars from one vector, so that XLA fuses them."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import pytest
from chainax.core.engine.small import SMALL


def vectors(tx: Any, size: int, platform: str) -> int:
    """How many vectors of scalars the step makes, by the barriers before them."""
    params = {f"layer_{i}": jnp.ones(size) for i in range(3)}
    lowered = jax.jit(tx.step).trace(params, tx.init(params), params).lower(lowering_platforms=(platform,))
    return lowered.as_text().count("stablehlo.optimization_barrier")


@pytest.mark.parametrize("tx", (cx.adamw(0.1), cx.sgd(cx.linear_schedule(0.1, 0.0, 9))), ids=("several", "one"))
def test_one_vector_for_all_small_leaves_on_gpus(tx: Any) -> None:
    """Whether the links compute several scalars at each step or one."""
    assert [vectors(tx, 8, platform) for platform in ("cuda", "rocm", "cpu", "tpu")] == [1, 1, 0, 0]


def test_large_leaves_read_scalars() -> None:
    """Thirteen of them in one kernel would leave too few registers."""
    assert vectors(cx.adamw(0.1), SMALL, "cuda") == 1
    assert vectors(cx.adamw(0.1), SMALL + 1, "cuda") == 0


def test_leaves_with_a_norm_read_scalars() -> None:
    """Fused with those of other leaves, their kernels would store temporaries."""
    assert vectors(cx.lamb(0.1), 8, "cuda") == 0


def test_steps_without_scalars_make_no_vector() -> None:
    """A constant is part of the kernel already."""
    assert vectors(cx.sgd(0.1), 8, "cuda") == 0
