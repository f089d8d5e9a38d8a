"""Every prebuilt optimizer converges: on Rosenbrock's valley, and on an ill-conditioned quadratic with noisy gradients.

A row states the chain and the steps that it needs on either. The limits are a fraction of the
starting loss: 1e-3 in the valley (24.2 at the start), and 0.05 on the quadratic, where the loss is
averaged over the last tenth of the steps and the noise has a tenth of the gradient's first size.
"""

from typing import Any

import chainax as cx
import chainax.extend as cxe
import jax
import jax.numpy as jnp
import pytest
from registry import quickly


def falling(learning_rate: float, steps: int, **hyper: Any) -> cx.chain:
    """AdamC at a rate that falls to 0."""
    rate = cx.linear_schedule(learning_rate, 0.0, steps)
    return cx.adamc(rate, max_learning_rate=learning_rate, **hyper)


def on_adam(learning_rate: float, link: cxe.Link) -> cx.chain:
    """Adam with a link behind it."""
    return cx.adam(learning_rate).insert(link, after="scale_by_adam")


PLATEAU = cx.reduce_on_plateau(0.5, 20.0, accumulation_size=5.0, min_scale=0.05)
GUARDS = (cx.skip_nonfinite(), cx.skip_large_updates(1e3), cx.skip_loss_spikes())
SHORTENED = cx.lbfgs().replace("scale_by_zoom_linesearch", cx.scale_by_backtracking_linesearch())
FLAT = cx.chain(cx.sharpness_aware(0.05), cx.sgd(0.01, momentum=0.9))
ADAPTIVE = FLAT.replace("sharpness_aware", cx.adaptive_sharpness_aware(0.05))
NEAR = cx.chain(cx.adaptive_sharpness_aware(1e-3), cx.sgd(1e-3, momentum=0.9))
fading = cx.cosine_decay_schedule  # for steps whose length the gradient does not set
ROWS: dict[str, tuple[Any, int, Any, int]] = {  # chain and steps in the valley, chain and steps on the quadratic
    "sgd": (cx.sgd(1e-3, momentum=0.9), 4000, cx.sgd(0.01, momentum=0.9), 500),
    "adam": (cx.adam(0.02), 4000, cx.adam(0.05), 500),
    "adamax": (cx.adamax(0.05), 4000, cx.adamax(0.05), 500),
    "nadamw": (cx.nadamw(0.01, weight_decay=1e-4), 4000, cx.nadamw(0.05), 500),
    "radam": (cx.radam(0.004), 8000, cx.radam(0.02), 500),  # whose first five steps are momentum's
    "adabelief": (cx.adabelief(0.02), 4000, cx.adabelief(0.02), 500),
    "acprop": (cx.acprop(0.01), 4000, cx.acprop(0.01), 500),
    "yogi": (cx.yogi(0.05), 4000, cx.yogi(0.05), 500),
    "amsgrad by the paper": (cx.amsgrad(0.05, debias="never"), 4000, cx.amsgrad(0.01, debias="never"), 500),
    "stable_adamw": (cx.stable_adamw(0.003, weight_decay=1e-4), 4000, cx.stable_adamw(0.02), 500),
    "novograd": (cx.novograd(1e-3), 4000, cx.novograd(3e-3), 500),
    "adam_mini": (cx.adam_mini(0.02, weight_decay=1e-4), 4000, cx.adam_mini(0.05), 500),
    "adan": (cx.adan(0.003), 4000, cx.adan(0.02), 500),
    "laprop": (cx.laprop(0.02), 4000, cx.laprop(0.02), 500),
    "adopt": (cx.adopt(0.2), 4000, cx.adopt(0.05), 500),
    "ademamix": (cx.ademamix(0.05), 4000, cx.ademamix(0.02, warmup_steps=100.0), 500),
    "simplified_ademamix": (cx.simplified_ademamix(3e-4), 4000, cx.simplified_ademamix(3e-4, alpha=10.0), 1000),
    "mars_adamw": (cx.mars_adamw(0.003, weight_decay=1e-4), 4000, cx.mars_adamw(0.02), 500),
    "adamc": (falling(0.02, 4000, weight_decay=1e-4), 4000, falling(0.05, 500), 500),
    "cautious adam": (on_adam(0.02, cx.cautious()), 4000, on_adam(0.05, cx.cautious()), 500),
    "grams": (on_adam(0.01, cx.grams()), 4000, on_adam(0.02, cx.grams()), 500),
    "adam with a plateau": (on_adam(0.05, PLATEAU), 4000, on_adam(0.1, PLATEAU), 500),
    "adam with guards": (cx.chain(*GUARDS, cx.adam(0.02)), 4000, cx.chain(*GUARDS, cx.adam(0.05)), 500),
    "lbfgs": (cx.lbfgs(), 50, cx.lbfgs(), 100),
    "lbfgs, backtracking": (SHORTENED, 50, SHORTENED, 100),
    "polyak_sgd": (cx.polyak_sgd(), 4000, cx.polyak_sgd(), 100),
    "dog": (cx.dog(), 10000, cx.dog(r_eps=1e-2), 500),
    "ldog": (cx.ldog(), 10000, cx.ldog(r_eps=1e-2), 500),
    "dowg": (cx.dowg(), 4000, cx.dowg(), 500),
    "dadapt_sgd": (cx.dadapt_sgd(), 4000, cx.dadapt_sgd(), 500),
    "dadapt_adamw": (cx.dadapt_adamw(), 4000, cx.dadapt_adamw(), 500),
    "prodigy": (cx.prodigy(), 4000, cx.prodigy(), 500),
    "cocob": (cx.cocob(), 5000, cx.cocob(), 500),
    "mechanize": (cx.mechanize(cx.adam(1.0)), 40000, cx.mechanize(cx.adam(1.0)), 500),  # which falls back at each bend
    "momo": (cx.momo(), 1000, cx.momo(), 500),
    "momo_adam": (cx.momo_adam(1.0), 1000, cx.momo_adam(1.0), 500),
    "schedule_free_sgd": (cx.schedule_free_sgd(1e-3), 5000, cx.schedule_free_sgd(0.05, warmup_steps=10.0), 500),
    "schedule_free_adamw": (cx.schedule_free_adamw(0.05), 4000, cx.schedule_free_adamw(0.05, warmup_steps=10.0), 500),
    "sharpness_aware": (cx.chain(cx.sharpness_aware(1e-3), cx.sgd(1e-3, momentum=0.9)), 4000, FLAT, 500),
    "adaptive_sharpness_aware": (NEAR, 4000, ADAPTIVE, 500),
    "sign_sgd": (cx.sign_sgd(fading(0.004, 8000)), 8000, cx.sign_sgd(fading(0.02, 500)), 500),
    "signum": (cx.signum(fading(0.01, 4000)), 4000, cx.signum(fading(0.02, 500)), 500),
    "lion": (cx.lion(fading(0.01, 4000), weight_decay=1e-4), 4000, cx.lion(fading(0.02, 500)), 500),
    "rprop": (cx.rprop(), 2000, cx.rprop(), 500),
    "lars": (cx.lars(fading(0.01, 4000), trust_coefficient=1.0), 4000, cx.lars(fading(30.0, 500)), 500),
    "lamb": (cx.lamb(fading(0.1, 4000)), 4000, cx.lamb(fading(0.03, 500)), 500),
    "fromage": (cx.fromage(fading(0.1, 4000)), 4000, cx.fromage(fading(0.03, 500)), 500),
    "adafactor": (cx.adafactor(fading(0.05, 4000)), 4000, cx.adafactor(fading(0.1, 500)), 500),
    "sm3": (cx.sm3(1.0), 4000, cx.sm3(0.3), 500),
    "madgrad": (cx.madgrad(0.003), 4000, cx.madgrad(0.01), 500),
    "asgd": (cx.asgd(1e-3), 8000, cx.asgd(0.02), 500),
    "optimistic_gradient_descent": (
        cx.optimistic_gradient_descent(5e-4),
        12000,
        cx.optimistic_gradient_descent(0.02),
        500,
    ),
    "optimistic_adam": (cx.optimistic_adam(0.02), 4000, cx.optimistic_adam(0.03), 500),
    "sophia": (cx.sophia(0.5, gamma=1.0), 4000, cx.sophia(0.03, gamma=1.0), 500),
    "noisy_sgd": (cx.noisy_sgd(1e-3), 8000, cx.noisy_sgd(0.02), 500),
    "accumulate": (cx.accumulate(cx.adam(0.05), 4), 8000, cx.accumulate(cx.adam(0.1), 4), 1000),
    "slow_weights": (cx.chain(cx.adam(0.05), cx.slow_weights()), 4000, cx.chain(cx.adam(0.1), cx.slow_weights()), 500),
}
CONDITION = jnp.logspace(-1, 1, 8)


def valley(x: jax.Array) -> jax.Array:
    """Rosenbrock's function; 0 at (1, 1)."""
    return jnp.square(1 - x[0]) + 100 * jnp.square(x[1] - jnp.square(x[0]))


def bowl(x: jax.Array) -> jax.Array:
    """A quadratic whose curvatures differ by a factor of 100."""
    return 0.5 * jnp.sum(CONDITION * jnp.square(x))


def descend(tx: Any, loss: Any, start: jax.Array, steps: int, noise: float) -> jax.Array:
    """The losses along a run of one compiled scan."""
    extra = {name for link in tx.links.values() for name in link.extra}

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        grads = grads + noise * jax.random.normal(key, grads.shape)
        known = {"value": value, "grad": grads, "value_fn": loss, "grad_fn": jax.grad(loss)}
        known["hessian"] = lambda there: cx.hutchinson(loss, there, key)
        return tx.step(params, state, grads, **{name: known[name] for name in extra}), value

    def run() -> jax.Array:
        keys = jax.random.split(jax.random.key(0), steps)
        return jax.lax.scan(step, (start, tx.init(start)), keys)[1]

    return quickly(run)()


@pytest.mark.parametrize("name", ROWS)
def test_finds_the_bottom_of_the_valley(name: str) -> None:
    """From the usual start (−1.2, 1), round the bend, to a thousandth of the first loss."""
    tx, steps, *_ = ROWS[name]
    losses = descend(tx, valley, jnp.array([-1.2, 1.0]), steps, 0.0)
    assert losses[-1] < 1e-3 * losses[0]


@pytest.mark.parametrize("name", ROWS)
def test_descends_through_noise(name: str) -> None:
    """Noise in the gradient does not keep the loss from falling to a twentieth."""
    *_, tx, steps = ROWS[name]
    losses = descend(tx, bowl, jnp.ones(8), steps, 0.1)
    assert losses[-steps // 10 :].mean() < 0.05 * losses[0]
