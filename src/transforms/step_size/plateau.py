"""A scale that is reduced when a value stops improving."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ...core.facade.link import Scaling, transform
from ...core.values.hyper import Hyper, hyper
from ...core.values.value import derived, static
from ..guards import memories


@transform
class reduce_on_plateau(Scaling):
    """Reduce the scale when a value has stopped improving, as PyTorch's ReduceLROnPlateau does.

    ``update`` and ``step`` require ``value``. The link averages ``accumulation_size`` values,
    such as those of an epoch, and acts on the mean at once: the last step of an epoch already has the new scale.
    The state holds it as ``scale``. PyTorch's ``eps`` is 0 here. Optax's ``patience`` is larger by 1. The margin is a
    fraction of the best value's magnitude. PyTorch and Optax compare with best·(1 ∓ τ): there a constant negative
    value improves on itself, and the scale is never reduced. A value that is not finite is never an improvement.
    """

    reduction_factor: Hyper = hyper("γ", "factor of the scale", default=0.1, high=1.0)
    patience: Hyper = hyper("P", "values without improvement that are tolerated", default=10.0)
    threshold: Hyper = hyper("τ", "required improvement over the best value", default=1e-4)
    cooldown: Hyper = hyper("C", "values after a reduction that do not count", default=0.0)
    min_scale: Hyper = hyper("s_min", "the smallest scale", default=0.0)
    accumulation_size: Hyper = hyper("n", "updates whose values are averaged", default=1.0, low=1.0)
    mode: str = static("whether smaller or larger values are better", default="min", one_of=("min", "max"))
    threshold_mode: str = static("whether τ is relative or absolute", default="rel", one_of=("rel", "abs"))

    nonnegative = ("scale", "bad", "cooldown", "count")
    role = "scale"
    extra = ("value",)

    @derived
    def equation(self) -> str:
        near = "τ" if self.threshold_mode == "abs" else "τ·|best|"
        better = f"mean of n values < best − {near}" if self.mode == "min" else f"mean of n values > best + {near}"
        return (
            f"u ← su,  s ← max(γs, s_min) when {better} has failed more than P times in a row; then C are passed over"
        )

    def init_global_state(self):
        best = jnp.inf if self.mode == "min" else -jnp.inf
        first = {"scale": 1.0, "best": best, "bad": 0.0, "cooldown": 0.0, "sum": 0.0, "count": 0.0}
        return {name: jnp.full((), x, jnp.float32) for name, x in first.items()}

    def factor(self, at):
        return self.update_global_state(at)["scale"]

    def update_global_state(self, at):
        old = memories(at)
        total, count = old.sum + jnp.asarray(at.extra["value"], at.dtype), old.count + 1
        mean, complete = total / count, count >= self.accumulation_size
        better = self.is_better(mean, old.best)
        bad = jnp.where(better | (old.cooldown > 0), 0.0, old.bad + 1)
        reduce = bad > self.patience
        new = {
            "scale": jnp.where(reduce, jnp.maximum(old.scale * self.reduction_factor, self.min_scale), old.scale),
            "best": jnp.where(better, mean, old.best),
            "bad": jnp.where(reduce, 0.0, bad),
            "cooldown": jnp.where(reduce, self.cooldown, jnp.maximum(old.cooldown - 1, 0.0)),
        }
        return {
            **{name: jnp.where(complete, x, getattr(old, name)) for name, x in new.items()},
            "sum": jnp.where(complete, 0.0, total),
            "count": jnp.where(complete, 0.0, count),
        }

    def metrics(self, entry):
        return {"scale": entry["scale"]}

    def is_better(self, value: jax.Array, best: jax.Array) -> jax.Array:
        """Whether a value improves on the best by more than the threshold."""
        sign = 1.0 if self.mode == "min" else -1.0
        known = jnp.where(jnp.isfinite(best), jnp.abs(best), 0.0)
        margin = self.threshold * (known if self.threshold_mode == "rel" else 1.0)
        return jnp.isfinite(value) & (sign * value < sign * best - margin)
