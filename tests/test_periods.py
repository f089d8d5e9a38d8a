"""Links that do something at every k-th step do it however many steps were taken."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chainax.core.values.numerics import remainder
from registry import quickly

PERIODIC = {
    "apply_every": cx.apply_every(3.0),
    "restart": cx.restart(cx.ema(0.5), 3.0),
    "slow_weights": cx.chain(cx.scale_by_lr(0.1), cx.slow_weights(3.0)),
    "swa": cx.chain(cx.scale_by_lr(0.1), cx.swa(2.0, 3.0)),
    "sophia": cx.scale_by_sophia(update_interval=3),
    "half a step": cx.apply_every(1.5),
}


@pytest.mark.parametrize("traced", (False, True), ids=("constant", "traced"))
@pytest.mark.parametrize("name", PERIODIC)
def test_the_phase_is_that_of_the_count(name: str, traced: bool) -> None:
    """In float32, which from 2²⁴ on holds the even counts only, every third step would fall now here, now there."""
    if traced and name == "sophia":
        pytest.skip("its interval is no number of the chain")

    def run(tx: Any, start: jax.Array) -> Any:
        def step(carry: Any, k: jax.Array) -> Any:
            p, state = carry
            extra = {"hessian": k} if name == "sophia" else {}
            p, state = tx.step(p, state, k, **extra)
            return (p, state), (p, state.links)

        state = tx.init(jnp.float32(0.0))._replace(step=start)
        return jax.lax.scan(step, (jnp.float32(0.0), state), jnp.arange(1.0, 12.0))[1]

    tx = PERIODIC[name]
    follow = quickly(run) if traced else quickly(lambda start: run(tx, start))
    args = (tx,) if traced else ()
    # Behind the first steps, so that whole numbers of periods lie between the starts.
    near = follow(*args, jnp.array(12, jnp.int32))
    for start in (3 * (2**24 // 3 - 1), 3 * (2**30 // 3)):
        far = follow(*args, jnp.array(start, jnp.int32))
        if name == "swa":  # a later mean moves less
            near, far = (jax.tree.map(lambda x: x != 0, np.diff(out[1]["swa"]["average"])) for out in (near, far))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), far, near)
        near = follow(*args, jnp.array(12, jnp.int32))


def test_noise_differs_from_step_to_step_however_many_there_were() -> None:
    """A key from a rounded count would be that of the next step too, and noise that repeats is not private."""
    tx, g = cx.differentially_private_aggregate(1.0, 1.0), jnp.ones((2, 3))
    noise = [tx.update(g, tx.init(g[0])._replace(step=jnp.array(2**24 + i, jnp.int32)))[0] for i in range(4)]
    assert len({x.tobytes() for x in map(np.asarray, noise)}) == 4


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.float64))
def test_remainder_is_exact(dtype: Any, x64: None) -> None:
    """For whole periods, as constants and as data; for others as good as the dtype's."""
    counts = np.array([0, 1, 2, 5, 2**24 - 1, 2**24, 2**24 + 1, 2**30 + 7, 2**31 - 2], np.int32)
    for period in (1.0, 3.0, 7.0, 1000.0, 2.5, 2.0**20, 1e10):
        for start in (0.0, 2.0, 3.5):
            late = counts[counts >= start]
            want = np.fmod(late.astype(np.float64) - start, period)
            for given in (period, jnp.asarray(period, dtype)):
                got = jax.vmap(lambda k, given=given, start=start: remainder(k, given, dtype, start))(jnp.asarray(late))
                np.testing.assert_allclose(got, want, rtol=1e-6 if dtype == jnp.float32 else 1e-12)
