"""The values that every law is tried on: each link and prebuilt chain, and the forms that hyperparameters take."""

from typing import Any

import chainax as cx
import jax
import jax.numpy as jnp
import numpy as np


@cx.transform
class recenter(cx.Treewise):
    """Subtract a moving average of the mean over the whole tree: a whole-tree link with a state."""

    decay: cx.Hyper = cx.hyper("ρ", "decay of the average", default=0.9, high=1.0)

    equation = "c ← ρc + (1−ρ)·mean(u),  u ← u − c"

    def init_tree(self, params: Any) -> Any:
        """The average starts at 0."""
        return {"center": jnp.zeros(())}

    def update_tree(self, updates: Any, state: Any, params: Any, at: cx.At) -> tuple[Any, Any]:
        """Subtract the average."""
        floats = [x for x in jax.tree.leaves(updates) if jnp.issubdtype(x.dtype, jnp.floating)]
        mean = sum((x.sum() for x in floats), jnp.zeros(())) / max(1, sum(x.size for x in floats))
        center = self.decay * state["center"] + (1 - self.decay) * mean
        return jax.tree.map(lambda x: x - center if jnp.issubdtype(x.dtype, jnp.floating) else x, updates), {
            "center": center
        }


LINKS = (
    recenter(),
    cx.add_decayed_weights(0.1),
    cx.add_l1(0.1),
    cx.clip(0.5),
    cx.clip_by_global_norm(1.0),
    cx.decay_after_step(0.01),
    cx.ema(0.9),
    cx.scale(2.0),
    cx.scale_by_adadelta(),
    cx.scale_by_adagrad(0.1),
    cx.scale_by_adam(),
    cx.scale_by_amsgrad(),
    cx.scale_by_lr(0.1),
    cx.scale_by_nadam(),
    cx.scale_by_rms(),
    cx.scale_by_stddev(),
    cx.scale_by_uncorrected_adam(),
    cx.trace(0.9, 0.1),
    cx.trace(0.9, nesterov=True),
)

CHAINS = (
    cx.chain(),
    cx.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    cx.sgd_sutskever(cx.cosine_decay_schedule(0.1, 100)),
    cx.sgd_ema(0.1),
    cx.adagrad(0.1, lr_decay=0.01),
    cx.rmsprop(0.01, centered=True, momentum=0.9),
    cx.adadelta(),
    cx.adam(cx.by_path({"bias": 1e-4}, default=1e-3), weight_decay=0.01),
    cx.amsgrad(1e-3),
    cx.nadam(1e-3),
    cx.adamw(cx.warmup_cosine_decay_schedule(0.0, 1e-3, 2, 10), b1=cx.linear_schedule(0.8, 0.9, 10)),
    cx.adamw_paper(cx.warm_restarts_schedule(1.0, 3, factor=2)),
    cx.adamw_independent(1e-3),
    cx.bert_adamw(1e-3, total_steps=100, warmup_steps=2),
    cx.mxnet_adam(1e-3, weight_decay=0.01, rescale_grad=0.5, clip_gradient=1.0),
    cx.mxnet07_adam(1e-3, weight_decay=0.01),
    cx.chain(cx.scale_by_rms(), recenter(), cx.scale_by_lr(0.1)),
    cx.chain(z=cx.scale_by_rms(), y=cx.scale(2.0), x=cx.scale_by_lr(0.1)),
    cx.chain(cx.scale(2.0), cx.clip_by_global_norm(0.5), cx.scale_by_rms(), cx.clip(0.3), cx.scale_by_lr(0.1)),
)

REGISTRY = LINKS + CHAINS

Tree = dict[str, Any]


def tree(seed: int, dtype: Any = jnp.float32) -> Tree:
    """Parameters (or gradients) of mixed shapes and scales, with a path that excludes and a non-float leaf."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> jax.Array:
        x = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 2, size=shape)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            x = x + 1j * rng.normal(size=shape)
        return jnp.asarray(x, dtype)

    return {
        "layer": {"kernel": draw(4, 3), "bias": draw(3)},
        "scalar": draw(),
        "empty": draw(0, 3),
        "steps": jnp.arange(3),
        "hole": None,
    }


def grads(seed: int, dtype: Any = jnp.float32) -> Tree:
    """Gradients for `tree`: none where a parameter is no floating-point number."""
    return {**tree(seed, dtype), "steps": None}
