"""One finite gradient beyond all others, up to 1e38: every optimizer goes on with finite parameters, however it stores.

Squares of such gradients overflow float32. A coordinate may stop there for good, as Adam's does in PyTorch and Optax;
none becomes NaN.
"""

import inspect
from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chainax import chains
from registry import FORMATS, WORDS, given, links_of, quickly

SIZES = np.array([1e18, 1e20, 1e30, 1e38], np.float32)
STEPS, SPIKE = 25, 9
PARAMS = {"w": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32), "bias": np.ones(3, np.float32)}
GIVEN = {"matrices": WORDS}
MISSING = {"learning_rate": 0.01, "schedule": 0.01, "total_steps": 100, "warmup_steps": 10, "max_learning_rate": 0.01}


def prebuilt(name: str) -> Any:
    """The optimizer with its defaults, and where it has none, with a small rate."""
    make = getattr(chains, name)
    parameters = inspect.signature(make).parameters.items()
    return make(**{k: (GIVEN | MISSING)[k] for k, p in parameters if k in GIVEN or p.default is p.empty})


PREBUILT = {
    name: prebuilt(name)
    for name, f in vars(chains).items()
    if inspect.isfunction(f) and f.__module__ == chains.__name__ and not name.startswith("_")
}
VARIANTS = {
    "rmsprop, centered": cx.rmsprop(0.01, centered=True, momentum=0.9),
    "adafactor, factored": cx.adafactor(momentum=0.9, min_dim_size_to_factor=2, weight_decay=0.01),
    "debiased stddev": cx.chain(cx.scale_by_debiased_stddev(), cx.scale_by_lr(0.01)),
    "factored": cx.chain(cx.scale_by_factored_rms(min_dim_size_to_factor=2), cx.scale_by_lr(0.01)),
    "amsgrad, never": cx.amsgrad(0.01, debias="never"),
    "mechanize": cx.mechanize(cx.adamw(1.0), s_init=0.1),
    "mechanize, clipped": cx.mechanize(cx.adamw(1.0), s_init=0.1, clipped=True),
    "momo, adapted": cx.momo(weight_decay=0.1, adapt_lower_bound=True),
    "momo_adam, adapted": cx.momo_adam(weight_decay=0.1, adapt_lower_bound=True),
    "lbfgs, a rate": cx.chain(cx.scale_by_lbfgs(), cx.scale_by_lr(0.01)),
    "lbfgs, backtracking": cx.lbfgs().replace("scale_by_zoom_linesearch", cx.scale_by_backtracking_linesearch()),
    "adadelta behind a guard": cx.chain(cx.skip_nonfinite(), cx.adadelta()),
    "clipped sgd": cx.chain(cx.clip_by_global_norm(1.0), cx.sgd(0.1, momentum=0.9)),
}


def spiked(size: Any, everywhere: bool) -> dict[str, Any]:
    """Noise for gradients, but at one step one coordinate, or all, of this size."""
    rng = np.random.default_rng(1)
    grads = {k: jnp.asarray(rng.normal(size=(STEPS, *p.shape)), jnp.float32) for k, p in PARAMS.items()}
    if everywhere:
        return {k: g.at[SPIKE].set(size * jnp.sign(g[SPIKE])) for k, g in grads.items()}
    return {**grads, "w": grads["w"].at[SPIKE, 1, 2].set(size)}


def finite_runs(tx: Any) -> np.ndarray:
    """Whether all parameters are finite at the end: for each size, in one coordinate and in all."""
    tx = given(tx) if any(link.extra for link in links_of(tx)) else tx

    def train(size: jax.Array, everywhere: bool) -> jax.Array:
        start = jax.tree.map(jnp.asarray, PARAMS)
        (p, _), _ = jax.lax.scan(lambda c, g: (tx.step(*c, g), None), (start, tx.init(start)), spiked(size, everywhere))
        return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(p)]))

    def both(size: jax.Array) -> jax.Array:
        return jnp.stack([train(size, every) for every in (False, True)])

    if any(getattr(link, "decomposes", False) for link in links_of(tx)):  # batches of decompositions may block a CPU
        return np.asarray(quickly(lambda sizes: jax.lax.map(both, sizes))(SIZES))
    return np.asarray(quickly(jax.vmap(both))(SIZES))


@pytest.mark.long
@pytest.mark.parametrize("name", (*PREBUILT, *VARIANTS))
def test_a_finite_spike_leaves_finite_parameters(name: str) -> None:
    """Whatever the optimizer makes of it. No exception is needed: where references fail, see below."""
    assert finite_runs({**PREBUILT, **VARIANTS}[name]).all()


STORED = {
    "adam": cx.adam(0.01),
    "adadelta": cx.adadelta(),
    "sgd": cx.sgd(0.1, momentum=0.9),
    "adamax": cx.adamax(0.01),
    "rmsprop, centered": VARIANTS["rmsprop, centered"],
    "adabelief": cx.adabelief(0.01),
}


@pytest.mark.long
@pytest.mark.parametrize("form", ("bfloat16", "float16", *(cls(min_size=0) for cls in FORMATS.values())), ids=repr)
@pytest.mark.parametrize("name", STORED)
def test_in_every_storage_format(name: str, form: Any) -> None:
    """All slots stored so."""
    assert finite_runs(cx.store(STORED[name], form)).all()


@pytest.mark.parametrize(
    ("name", "make", "fails"),
    (
        ("adadelta", lambda: optax.adadelta(0.01), np.inf),
        ("adam", lambda: optax.adam(0.01), np.inf),
        ("mechanize", lambda: optax.contrib.mechanize(optax.adamw(1.0)), 1e20),
        ("factored", lambda: optax.chain(optax.scale_by_factored_rms(min_dim_size_to_factor=2)), 1e20),
    ),
)
def test_where_optax_fails(name: str, make: Any, fails: float) -> None:
    """AdaDelta and Adam stay finite there too; Mechanize and factored mean squares do not, from 1e20 on."""
    with jax.numpy_dtype_promotion("standard"):
        tx = make()

        def train(size: Any) -> Any:
            def step(carry: Any, g: Any) -> Any:
                u, state = tx.update(g, carry[1], carry[0])
                return (optax.apply_updates(carry[0], u), state), None

            start = jax.tree.map(jnp.asarray, PARAMS)
            (p, _), _ = jax.lax.scan(step, (start, tx.init(start)), spiked(size, False))
            return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(p)]))

        np.testing.assert_array_equal(jax.jit(jax.vmap(train))(SIZES), fails > SIZES)


def test_adadelta_agrees_with_torch_after_a_spike() -> None:
    """The coordinate with the spike stops, its mean square step decays, and the others do not notice."""
    torch = pytest.importorskip("torch")
    grads = {k: np.asarray(g) for k, g in spiked(1e25, False).items()}
    theirs = {k: torch.nn.Parameter(torch.tensor(p)) for k, p in PARAMS.items()}
    opt = torch.optim.Adadelta(theirs.values(), lr=1.0, rho=0.9, eps=1e-6)
    tx = cx.adadelta(1.0)
    ours = jax.tree.map(jnp.asarray, PARAMS)
    state, step = tx.init(ours), cx.make_step(tx)
    for k in range(STEPS):
        for name, p in theirs.items():
            p.grad = torch.tensor(grads[name][k])
        opt.step()
        ours, state = step(ours, state, {name: jnp.asarray(g[k]) for name, g in grads.items()})
    for name, p in theirs.items():
        np.testing.assert_allclose(ours[name], p.detach().numpy(), rtol=1e-4)
        slots = opt.state[p]
        np.testing.assert_allclose(
            state.links["scale_by_adadelta"]["delta"][name], slots["acc_delta"].numpy(), rtol=1e-3, atol=1e-12
        )
